"""Majority class: the floor that every model must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from backend.models.base import CellTyper, ModelCard, Predictions
from backend.models.baselines.expression import (
    cell_ids_of,
    check_fitted,
    labels_of,
    read_model,
    write_model,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

__all__ = ["MajorityClass"]


class MajorityClass(CellTyper):
    """Predict the most frequent training type for every cell.

    The probability of a type is its share of the training cells; of equally frequent types the
    first by name is predicted.
    """

    key = "majority"
    display_name = "Majority class"
    card = ModelCard(
        summary="Names every cell by the most frequent training type. It reads no gene.",
        citation="A control, after Open Problems in Single-Cell Analysis (Luecken et al. 2025).",
        doi="10.1038/s41587-025-02694-w",
        weights_licence="no weights",
        expects="any counts",
        n_parameters=0,
    )

    def fit(self, train: AnnData, *, label_key: str, valid: AnnData, seed: int) -> Self:
        """Count the training labels; `valid` and `seed` change nothing."""
        self.check_input(train)
        codes, self.classes_ = labels_of(train, label_key)
        self.shares_ = np.bincount(codes, minlength=len(self.classes_)) / len(codes)
        return self

    def predict(self, adata: AnnData, *, batch_size: int = 64) -> Predictions:
        """Give every cell the shares of the training types."""
        check_fitted(bool(self.classes_), self.display_name)
        self.check_input(adata)
        proba = np.tile(self.shares_.astype(np.float32), (adata.n_obs, 1))
        return Predictions(cell_ids_of(adata), proba, self.classes_)

    def save(self, folder: Path) -> None:
        """Write the shares to `folder`."""
        check_fitted(bool(self.classes_), self.display_name)
        write_model(
            folder,
            key=self.key,
            classes=self.classes_,
            genes=(),
            values={},
            arrays={"shares": self.shares_},
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Read what `save` wrote."""
        model = cls()
        model.classes_, _, _, arrays = read_model(folder, key=cls.key)
        model.shares_ = arrays["shares"]
        return model
