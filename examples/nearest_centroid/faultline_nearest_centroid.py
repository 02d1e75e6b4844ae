"""Nearest centroid: name a cell by the closest mean expression profile of its training types."""

from typing import Self

import numpy as np

from backend.errors import InputError
from backend.models.base import CellTyper, ModelCard, Predictions


class NearestCentroid(CellTyper):
    """Compare log-normalised counts with the mean of each type; closer is more probable."""

    key = "nearest_centroid"
    display_name = "Nearest centroid"
    is_savable = False
    card = ModelCard(
        summary="Names a cell by the nearest mean profile.",
        citation="Tibshirani R, Hastie T, Narasimhan B, Chu G. PNAS 2002;99:6567-6572.",
        doi="10.1073/pnas.082099299",
        weights_licence="no weights",
        expects="raw counts, any genes",
    )

    def check_input(self, adata):
        if adata.X.data.size and adata.X.data.min() < 0:
            raise InputError("`X` holds negative values.", "Give raw counts.")

    def fit(self, train, *, label_key, valid, seed) -> Self:
        labels = train.obs[label_key].astype(str)
        self.classes_ = tuple(sorted(set(labels)))
        profiles = _profiles(train)
        self.centroids_ = np.stack(
            [profiles[labels == name].mean(axis=0) for name in self.classes_]
        )
        return self

    def predict(self, adata, *, batch_size=64) -> Predictions:
        similarity = _profiles(adata) @ self.centroids_.T
        proba = np.exp(20 * (similarity - similarity.max(axis=1, keepdims=True)))
        proba = (proba / proba.sum(axis=1, keepdims=True)).astype(np.float32)
        return Predictions(adata.obs_names.to_numpy(), proba, self.classes_)

    def save(self, folder):
        raise InputError("Nearest centroid is not saved.", "Use its predictions.")

    load = classmethod(save)


def _profiles(adata):
    counts = np.log1p(adata.X.toarray())
    return counts / np.linalg.norm(counts, axis=1, keepdims=True).clip(min=1e-9)
