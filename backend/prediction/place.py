"""Coordinates for display of a file that is read in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from backend.models.expression import log_cp10k, variable_genes

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.data.h5ad import OpenDataset

__all__ = ["SAMPLED", "place_cells"]

SAMPLED: Final = 5000
"""The map is fitted on at most so many cells, each donor by its share."""

_SMALLEST: Final = 60
_N_GENES: Final = 2000
_N_COMPONENTS: Final = 30
_NEAREST: Final = 5


def place_cells(
    dataset: OpenDataset,
    donors: np.ndarray,
    *,
    size: int,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """Embed all cells of an opened file in two dimensions, for display only.

    UMAP of 30 principal components, fitted on a sample; a cell outside the sample stands at the
    weighted mean of the five sampled cells that are nearest in the components. Below 60 cells the
    first two components are returned. The file is read twice; memory is that of the sample.

    Returns
    -------
    (n_cells, 2) float32, the same for the same file and seed.
    """
    from scipy import sparse
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    obs = dataset.obs()
    rows = _sample(donors, np.random.default_rng(seed))
    sampled = np.zeros(dataset.n_cells, dtype=bool)
    sampled[rows] = True
    parts = []
    for start in range(0, dataset.n_cells, size):
        chosen = sampled[start : start + size]
        if chosen.any():
            parts.append(log_cp10k(dataset.cells(start, start + size, obs).X[chosen]))
        progress(0.4 * min(1.0, (start + size) / dataset.n_cells))
    expression = sparse.vstack(parts, format="csr")
    columns = variable_genes(expression, _N_GENES)
    n_components = min(_N_COMPONENTS, len(rows), len(columns))
    if n_components < 2:
        return np.zeros((dataset.n_cells, 2), dtype=np.float32)
    pca = PCA(n_components=n_components, svd_solver="randomized", random_state=seed)
    components = pca.fit_transform(expression[:, columns].toarray()).astype(np.float32)
    is_small = len(rows) < _SMALLEST
    places = components[:, :2] if is_small else _umap(components, seed)
    progress(0.7)
    if len(rows) == dataset.n_cells:
        return np.ascontiguousarray(places)
    search = NearestNeighbors(n_neighbors=min(_NEAREST, len(rows))).fit(components)
    found = np.empty((dataset.n_cells, 2), dtype=np.float32)
    for start in range(0, dataset.n_cells, size):
        counts = log_cp10k(dataset.cells(start, start + size, obs).X)
        distances, nearest = search.kneighbors(pca.transform(counts[:, columns].toarray()))
        weights = 1 / np.maximum(distances, 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        found[start : start + size] = (places[nearest] * weights[:, :, None]).sum(axis=1)
        progress(0.7 + 0.3 * min(1.0, (start + size) / dataset.n_cells))
    found[rows] = places
    return found


def _umap(components: np.ndarray, seed: int) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():
        # umap tells about its optional parametric variant, which needs TensorFlow.
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP
    # A seed makes UMAP run on one thread; saying so avoids its warning.
    model = UMAP(n_neighbors=15, min_dist=0.3, random_state=seed, n_jobs=1)
    places: np.ndarray = model.fit_transform(components)
    return places.astype(np.float32)


def _sample(donors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(donors) <= SAMPLED:
        return np.arange(len(donors))
    chosen = []
    for name in np.unique(donors):
        rows = np.flatnonzero(donors == name)
        n = max(1, SAMPLED * len(rows) // len(donors))
        chosen.append(rng.choice(rows, size=n, replace=False))
    return np.sort(np.concatenate(chosen))
