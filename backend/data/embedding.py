"""UMAP coordinates for display; never a feature of a scored model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

__all__ = ["LARGEST_FIT", "fit_components", "fit_umap", "is_fitted_on_sample", "place_cells"]

LARGEST_FIT: Final = 50_000
"""Up to here UMAP is fitted on all cells; above, on a sample by donor."""

_SMALLEST_FIT: Final = 60
_N_GENES: Final = 2_000
_N_COMPONENTS: Final = 50
_CHUNK: Final = 8_192


def is_fitted_on_sample(n_cells: int) -> bool:
    """Say whether a dataset of this size is embedded by a sample (pages state it)."""
    return n_cells > LARGEST_FIT


def fit_umap(adata: AnnData, *, seed: int = 0, largest_fit: int = LARGEST_FIT) -> np.ndarray:
    """Embed all cells in two dimensions.

    log1p of counts per 10,000, the 2,000 genes of highest dispersion, 50 principal components,
    UMAP with 15 neighbours. Above `largest_fit` cells the components and the embedding are fitted
    on a sample in which every donor has its share, and the other cells are placed into it. Below
    60 cells the first two components are returned.

    Returns
    -------
    (n_cells, 2) float32, the same for the same input and seed.
    """
    return place_cells(*fit_components(adata, seed=seed, largest_fit=largest_fit), seed=seed)


def fit_components(
    adata: AnnData, *, seed: int = 0, largest_fit: int = LARGEST_FIT
) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal components that are embedded, and the rows that they were fitted on.

    Returns
    -------
    components
        (n_cells, at most 50) float32; less than two columns where there is nothing to compare.
    rows
        Ascending row numbers; all of them up to `largest_fit` cells.
    """
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    rows = _sample_by_donor(adata, largest_fit, rng)
    counts = adata.X.tocsr()
    genes = _variable_genes(counts[rows])
    fitted = _log_share(counts[rows], counts[rows])[:, genes].toarray()
    n_components = min(_N_COMPONENTS, len(rows), len(genes))
    if n_components < 2:
        return np.zeros((adata.n_obs, 0), dtype=np.float32), rows
    pca = PCA(n_components=n_components, svd_solver="randomized", random_state=seed)
    pca.fit(fitted)
    components = np.empty((adata.n_obs, n_components), dtype=np.float32)
    for start in range(0, adata.n_obs, _CHUNK):
        part = counts[start : start + _CHUNK]
        components[start : start + _CHUNK] = pca.transform(
            _log_share(part, part)[:, genes].toarray()
        )
    return components, rows


def place_cells(components: np.ndarray, rows: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Embed cells by their components, fitted on `rows`; see `fit_umap`."""
    if components.shape[1] < 2:
        return np.zeros((len(components), 2), dtype=np.float32)
    if len(rows) < _SMALLEST_FIT:
        return components[:, :2].copy()
    return _umap(components, rows, seed)


def _umap(components: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        # umap tells about its optional parametric variant, which needs TensorFlow.
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP
    # A seed makes UMAP run on one thread; saying so avoids its warning.
    model = UMAP(n_neighbors=15, min_dist=0.3, random_state=seed, n_jobs=1)
    place = np.empty((len(components), 2), dtype=np.float32)
    place[rows] = model.fit_transform(components[rows])
    others = np.setdiff1d(np.arange(len(components)), rows)
    for start in range(0, len(others), _CHUNK):
        part = others[start : start + _CHUNK]
        place[part] = model.transform(components[part])
    return place


def _sample_by_donor(adata: AnnData, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose at most `size` rows, each donor by its share and with at least one cell."""
    if adata.n_obs <= size:
        return np.arange(adata.n_obs)
    donors = adata.obs["donor"].astype(str).to_numpy()
    chosen = []
    for donor in np.unique(donors):
        rows = np.flatnonzero(donors == donor)
        n = min(len(rows), max(1, size * len(rows) // adata.n_obs))
        chosen.append(rng.choice(rows, size=n, replace=False))
    return np.sort(np.concatenate(chosen))


def _log_share(counts: csr_matrix, totals_of: csr_matrix) -> csr_matrix:
    totals = np.asarray(totals_of.sum(axis=1)).ravel()
    scaled = counts.astype(np.float32, copy=True)
    scaled.data *= np.repeat(1e4 / np.maximum(totals, 1), np.diff(scaled.indptr)).astype(np.float32)
    np.log1p(scaled.data, out=scaled.data)
    return scaled


def _variable_genes(counts: csr_matrix) -> np.ndarray:
    """Return the genes with the highest variance for their mean, in order of the genes."""
    shares = _log_share(counts, counts)
    n = counts.shape[0]
    mean = np.asarray(shares.mean(axis=0)).ravel()
    squares = shares.copy()
    squares.data **= 2
    variance = np.asarray(squares.mean(axis=0)).ravel() - mean**2
    cells_with_gene = np.bincount(counts.indices, minlength=counts.shape[1])
    dispersion = np.where(cells_with_gene >= min(3, n), variance / np.maximum(mean, 1e-12), -1)
    order = np.argsort(-dispersion, kind="stable")[:_N_GENES]
    return np.sort(order[dispersion[order] >= 0])
