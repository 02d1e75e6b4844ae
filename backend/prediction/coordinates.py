"""Coordinates for display of a file that is read in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from backend.models.baselines.expression import log_cp10k, variable_genes

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from backend.data.h5ad import OpenDataset

__all__ = ["SAMPLED", "Placer"]

SAMPLED: Final = 3000
"""The map is fitted on at most so many cells, each donor by its share."""

_SMALLEST: Final = 60
_N_GENES: Final = 2000
_N_COMPONENTS: Final = 30
_NEAREST: Final = 5
_NEIGHBOURS: Final = 15
_EPOCHS: Final = 200
"""For a sample of this size UMAP by itself takes 500, and two and a half times as long."""


class Placer:
    """Places the cells of an opened file in two dimensions, for display only.

    UMAP of 30 principal components, fitted on a sample; a cell outside the sample stands at the
    weighted mean of the five sampled cells that are nearest in the components. Below 60 cells the
    first two components are returned. Memory is that of the sample.

    Parameters
    ----------
    donors
        (n_cells,) donor of each cell: every donor is sampled by its share.
    seed
        Chooses the sample and seeds the fit.
    """

    def __init__(self, donors: np.ndarray, *, seed: int = 0) -> None:
        self._seed = seed
        self._rows = _sample(donors, np.random.default_rng(seed))
        self._is_sampled = np.zeros(len(donors), dtype=bool)
        self._is_sampled[self._rows] = True
        self._parts: list[csr_matrix] = []
        self._n_seen = 0

    def add(self, cells: AnnData) -> None:
        """Take the sampled ones of the next cells, in the order of the file."""
        chosen = self._is_sampled[self._n_seen : self._n_seen + cells.n_obs]
        self._n_seen += cells.n_obs
        if chosen.any():
            self._parts.append(log_cp10k(cells.X[chosen]))

    def places(
        self,
        dataset: OpenDataset,
        *,
        size: int,
        progress: Callable[[float], None] = lambda share: None,
    ) -> np.ndarray:
        """Fit on the sample, then read the file in pieces of `size` cells and place the others.

        Returns
        -------
        (n_cells, 2) float32, the same for the same file and seed.
        """
        from scipy import sparse
        from sklearn.decomposition import PCA
        from sklearn.neighbors import NearestNeighbors

        rows, n_cells = self._rows, len(self._is_sampled)
        expression = sparse.vstack(self._parts, format="csr")
        self._parts = []
        columns = variable_genes(expression, _N_GENES)
        n_components = min(_N_COMPONENTS, len(rows), len(columns))
        if n_components < 2:
            return np.zeros((n_cells, 2), dtype=np.float32)
        pca = PCA(n_components=n_components, svd_solver="randomized", random_state=self._seed)
        components = pca.fit_transform(expression[:, columns].toarray()).astype(np.float32)
        is_small = len(rows) < _SMALLEST
        fitted = components[:, :2] if is_small else _umap(components, self._seed)
        progress(0.6)
        if len(rows) == n_cells:
            return np.ascontiguousarray(fitted)
        search = NearestNeighbors(n_neighbors=min(_NEAREST, len(rows))).fit(components)
        found = np.empty((n_cells, 2), dtype=np.float32)
        obs = dataset.obs()
        for start in range(0, n_cells, size):
            counts = log_cp10k(dataset.cells(start, start + size, obs).X)
            distances, nearest = search.kneighbors(pca.transform(counts[:, columns].toarray()))
            weights = 1 / np.maximum(distances, 1e-6)
            weights /= weights.sum(axis=1, keepdims=True)
            found[start : start + size] = (fitted[nearest] * weights[:, :, None]).sum(axis=1)
            progress(0.6 + 0.4 * min(1.0, (start + size) / n_cells))
        found[rows] = fitted
        return found


def _umap(components: np.ndarray, seed: int) -> np.ndarray:
    import warnings

    from sklearn.neighbors import NearestNeighbors

    # Left to itself UMAP calls a Python function for each pair of a sample of this size.
    search = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(components)
    distances, nearest = search.kneighbors(components)
    with warnings.catch_warnings():
        # umap tells about its optional parametric variant, which needs TensorFlow.
        warnings.simplefilter("ignore", ImportWarning)
        # The fit is not asked to transform other cells, for which it would need an index.
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        from umap import UMAP

        # A seed makes UMAP run on one thread; saying so avoids its warning.
        model = UMAP(
            n_neighbors=_NEIGHBOURS,
            min_dist=0.3,
            n_epochs=_EPOCHS,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(nearest, distances),
        )
        places: np.ndarray = model.fit_transform(components)
    return places.astype(np.float32)


def _sample(donors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose at most `SAMPLED` rows: every n-th cell, donor after donor, in random order within."""
    if len(donors) <= SAMPLED:
        return np.arange(len(donors))
    _, codes = np.unique(donors, return_inverse=True)
    shuffled = rng.permutation(len(donors))
    by_donor = shuffled[np.argsort(codes[shuffled], kind="stable")]
    return np.sort(by_donor[np.arange(SAMPLED) * len(donors) // SAMPLED])
