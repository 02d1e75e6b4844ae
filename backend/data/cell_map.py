"""The map of a dataset's cells: principal components, nearest cells and UMAP, for display only.

One recipe for data in memory and for files that are read in pieces, for training sets and uploads:

1. log1p of counts per 10,000; the 2,000 genes of the highest dispersion and their 50 principal
   components, fitted on a seeded sample of at most 10,000 cells, each donor by its share;
2. the components of every cell, piece by piece;
3. the 15 nearest other cells of each cell among the components;
4. UMAP of these neighbours. Above `fitted_on` cells it is fitted on a sample, and a cell outside
   stands at the weighted mean of the five sampled cells that are nearest to it.

Beside what is returned, memory is that of the sample and of the components, 200 bytes a cell.
Nothing here is ever a feature of a scored model.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.matrix import log_cp10k

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anndata import AnnData
    from scipy.sparse import csr_matrix

__all__ = [
    "LARGEST_FIT",
    "N_NEIGHBOURS",
    "QUICK_FIT",
    "CellMap",
    "ComponentStream",
    "components_of",
    "map_components",
    "nearest_cells",
    "part_of",
    "sample_by_donor",
]

LARGEST_FIT: Final = 50_000
"""UMAP of a training set is fitted on at most so many cells."""

QUICK_FIT: Final = 3_000
"""UMAP of an upload, for which somebody waits, is fitted on at most so many cells."""

N_NEIGHBOURS: Final = 15
"""Nearest cells that are kept of each cell, and that UMAP is made from."""

_CHUNK: Final = 8_192
_LARGEST_SAMPLE: Final = 10_000
_N_GENES: Final = 2_000
_N_COMPONENTS: Final = 50
_FEWEST_CELLS_OF_A_GENE: Final = 3
_SMALLEST_UMAP: Final = 60
_EPOCHS: Final = 200
"""What UMAP itself takes above 10,000 cells; below, 500 take longer and change little."""
_N_AROUND: Final = 5
"""Sampled cells that a cell outside the sample is placed between."""

_LARGEST_EXACT: Final = 20_000
_GROUP: Final = 1_000
_CANDIDATES: Final = 12_000


@dataclass(frozen=True, slots=True, eq=False)
class CellMap:
    """Where the cells of a dataset lie.

    coordinates : (n_cells, 2) float32
    neighbours : (n_cells, 15) int32 row numbers, see `nearest_cells`
    """

    coordinates: np.ndarray
    neighbours: np.ndarray


def _silent(share: float, message: str) -> None:
    """Tell nobody."""


def part_of(
    progress: Callable[[float, str], None], low: float, high: float
) -> Callable[[float, str], None]:
    """Return what tells the progress of a part that goes from `low` to `high` of the whole."""
    return lambda share, message: progress(low * (1 - share) + high * share, message)


class ComponentStream:
    """Principal components of cells that are read twice, in pieces of any size.

    Parameters
    ----------
    donors
        (n_cells,) donor of each cell.
    fitted_on
        Genes and components are fitted on at most so many cells, never on more than 10,000.
    seed
        Chooses the sample and seeds the fit.
    """

    def __init__(self, donors: np.ndarray, *, fitted_on: int = LARGEST_FIT, seed: int = 0) -> None:
        self._seed = seed
        size = min(fitted_on, _LARGEST_SAMPLE)
        self._is_sampled = np.zeros(len(donors), dtype=bool)
        self._is_sampled[sample_by_donor(donors, size, seed=seed)] = True
        self._sampled: list[csr_matrix] = []
        self._n_seen = 0

    def add(self, cells: AnnData) -> None:
        """Take the sampled ones of the next cells, in the order of `donors`."""
        chosen = self._is_sampled[self._n_seen : self._n_seen + cells.n_obs]
        self._n_seen += cells.n_obs
        if chosen.any():
            self._sampled.append(log_cp10k(cells.X[chosen]))

    def components(
        self,
        pieces: Iterable[AnnData],
        *,
        progress: Callable[[float, str], None] = _silent,
    ) -> np.ndarray:
        """Fit on what was added, and return the components of all cells.

        Parameters
        ----------
        pieces
            All cells once more, in the same order.
        progress
            Called with the share done and what is done now.

        Returns
        -------
        (n_cells, at most 50) float32, the same bits however the cells are cut into pieces; no
        column where there are less than two cells or genes to compare.
        """
        from scipy import sparse
        from sklearn.decomposition import PCA

        n_cells = len(self._is_sampled)
        progress(0.0, "Finding principal components")
        sampled = sparse.vstack(self._sampled, format="csr")
        self._sampled = []
        genes = _variable_genes(sampled)
        n_components = min(_N_COMPONENTS, sampled.shape[0], len(genes))
        if n_components < 2:
            return np.zeros((n_cells, 0), dtype=np.float32)
        pca = PCA(n_components=n_components, svd_solver="randomized", random_state=self._seed)
        with np.errstate(invalid="ignore"):  # shares of a variance of 0, which are not used
            pca.fit(sampled[:, genes].toarray())
        del sampled
        axes = np.ascontiguousarray(pca.components_.T)
        centre = pca.mean_ @ axes
        found = np.empty((n_cells, n_components), dtype=np.float32)
        done = 0
        for cells in pieces:
            # Sparse times dense goes row by row, so that no piece changes another's bits.
            found[done : done + cells.n_obs] = log_cp10k(cells.X)[:, genes] @ axes - centre
            done += cells.n_obs
            progress(done / n_cells, f"Compared {done:,} of {n_cells:,} cells")
        return found


def components_of(
    adata: AnnData,
    *,
    fitted_on: int = LARGEST_FIT,
    seed: int = 0,
    progress: Callable[[float, str], None] = _silent,
) -> np.ndarray:
    """Return the components of cells in memory; see `ComponentStream`."""

    def pieces() -> Iterator[AnnData]:
        for start in range(0, adata.n_obs, _CHUNK):
            yield adata[start : start + _CHUNK]

    donors = adata.obs["donor"].astype(str).to_numpy()
    stream = ComponentStream(donors, fitted_on=fitted_on, seed=seed)
    for cells in pieces():
        stream.add(cells)
    return stream.components(pieces(), progress=progress)


def map_components(
    components: np.ndarray,
    donors: np.ndarray,
    *,
    fitted_on: int = LARGEST_FIT,
    seed: int = 0,
    progress: Callable[[float, str], None] = _silent,
) -> CellMap:
    """Find the neighbours of cells and draw their map.

    Parameters
    ----------
    components
        (n_cells, n_components) float32 of `ComponentStream`, or other numbers in which like cells
        lie near each other.
    donors
        (n_cells,) donor of each cell: every donor is sampled by its share.
    fitted_on
        UMAP is fitted on at most so many cells.
    seed
        Chooses the sample and seeds the fit.
    progress
        Called with the share done and what is done now.

    Returns
    -------
    The same for the same input and seed. Below 60 cells the first two components are the map;
    without components all cells lie at 0, and none is near another.
    """
    n_cells = len(components)
    progress(0.0, "Finding the nearest cells")
    neighbours, distances = _nearest_others(components, N_NEIGHBOURS, seed)
    if components.shape[1] < 2:
        return CellMap(np.zeros((n_cells, 2), dtype=np.float32), neighbours)
    rows = sample_by_donor(donors, fitted_on, seed=seed)
    if len(rows) < _SMALLEST_UMAP:
        rows, fitted = np.arange(n_cells), components[:, :2].copy()
    else:
        message = f"Fitting UMAP on {len(rows):,} cells; the first fit on a machine is compiled"
        progress(0.4, message)
        if len(rows) < n_cells:
            neighbours_of_sample = _nearest_others(components[rows], N_NEIGHBOURS, seed)
        else:
            neighbours_of_sample = neighbours, distances
        fitted = _umap(components[rows], *neighbours_of_sample, seed)
    if len(rows) < n_cells:
        progress(0.9, f"Placing the other {n_cells - len(rows):,} cells")
        around, distances = _nearest(components[rows], components, _N_AROUND, seed)
        weights = 1 / np.maximum(distances, 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        coordinates = np.einsum("ck,ckd->cd", weights, fitted[around])
        coordinates[rows] = fitted
        fitted = coordinates
    progress(1.0, "The map is made")
    return CellMap(fitted, neighbours)


def _umap(
    components: np.ndarray, neighbours: np.ndarray, distances: np.ndarray, seed: int
) -> np.ndarray:
    with warnings.catch_warnings():
        # umap tells about its optional parametric variant, which needs TensorFlow.
        warnings.simplefilter("ignore", ImportWarning)
        # The fit is not asked to transform other cells, for which it would need an index.
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        from umap import UMAP, layouts, umap_

        from backend.data.compiled import kept_compiled

        kept_compiled(layouts, umap_)
        # UMAP counts a cell as its own first neighbour. A seed makes it run on one thread; saying
        # so avoids its warning.
        itself = np.arange(len(components), dtype=np.int32)[:, None]
        model = UMAP(
            n_neighbors=N_NEIGHBOURS,
            min_dist=0.3,
            n_epochs=_EPOCHS,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(
                np.hstack([itself, neighbours[:, :-1]]),
                np.hstack([np.zeros_like(distances[:, :1]), distances[:, :-1]]),
            ),
        )
        coordinates: np.ndarray = model.fit_transform(components)
    return coordinates.astype(np.float32)


def nearest_cells(components: np.ndarray, *, k: int = N_NEIGHBOURS, seed: int = 0) -> np.ndarray:
    """Return the `k` nearest other cells of each cell by Euclidean distance.

    Parameters
    ----------
    components
        (n_cells, n_components) of `ComponentStream`.
    seed
        Of the search among more than 20,000 cells, see Notes.

    Returns
    -------
    (n_cells, k) int32 row numbers, nearest first; -1 where there are fewer other cells.

    Notes
    -----
    Up to 20,000 cells all distances are measured. Above, cells are put into groups of about 1,000
    by k-means, and 12,000 cells of the nearest groups are measured (an inverted file: Sivic and
    Zisserman 2003, doi:10.1109/ICCV.2003.1238663). Of 60,000 simulated cells it finds about 97 of
    100 neighbours.
    """
    return _nearest_others(components, k, seed)[0]


def _nearest_others(components: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (n_cells, k) int32 rows and float32 distances of the nearest other cells."""
    n_cells = len(components)
    rows = np.full((n_cells, k), -1, dtype=np.int32)
    distances = np.full((n_cells, k), np.inf, dtype=np.float32)
    n_found = min(k, n_cells - 1)
    if n_found < 1 or not components.shape[1]:
        return rows, distances
    found, apart = _nearest(components, components, n_found + 1, seed)
    # Each row's own number goes, or its last one where equal cells crowded it out.
    is_other = found != np.arange(n_cells)[:, None]
    is_other[is_other.all(axis=1), -1] = False
    rows[:, :n_found] = found[is_other].reshape(n_cells, n_found)
    distances[:, :n_found] = apart[is_other].reshape(n_cells, n_found)
    return rows, distances


def _nearest(
    points: np.ndarray, queries: np.ndarray, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n_queries, k) int32 rows of the nearest points and float32 distances to them."""
    from sklearn.neighbors import NearestNeighbors

    points, queries = (np.ascontiguousarray(each, dtype=np.float32) for each in (points, queries))
    rows = np.empty((len(queries), k), dtype=np.int32)
    distances = np.empty((len(queries), k), dtype=np.float32)
    for asked, candidates in _searches(points, queries, seed):
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points[candidates])
        for start in range(0, len(asked), _CHUNK):
            part = asked[start : start + _CHUNK]
            distances[part], found = search.kneighbors(queries[part])
            rows[part] = candidates[found]
    return rows, distances


def _searches(
    points: np.ndarray, queries: np.ndarray, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of queries with the rows of points that are measured for them."""
    if len(points) <= _LARGEST_EXACT:
        yield np.arange(len(queries)), np.arange(len(points))
        return
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import pairwise_distances

    groups = MiniBatchKMeans(
        len(points) // _GROUP, random_state=seed, n_init=1, batch_size=4 * _CHUNK, max_iter=20
    ).fit(points)
    nearest = np.argsort(pairwise_distances(groups.cluster_centers_), axis=1, kind="stable")
    members, asked = (_members(groups.predict(each), len(nearest)) for each in (points, queries))
    sizes = np.array([len(rows) for rows in members])
    for number, rows in enumerate(asked):
        if len(rows):
            enough = np.searchsorted(sizes[nearest[number]].cumsum(), _CANDIDATES) + 1
            near = np.concatenate([members[other] for other in nearest[number, :enough]])
            # Equal cells are one group, however many; of equally near cells any will do.
            yield rows, near[: 2 * _CANDIDATES]


def _members(group_of: np.ndarray, n_groups: int) -> list[np.ndarray]:
    order = np.argsort(group_of, kind="stable")
    return np.split(order, np.searchsorted(group_of[order], np.arange(1, n_groups)))


def sample_by_donor(donors: np.ndarray, size: int, *, seed: int = 0) -> np.ndarray:
    """Choose at most `size` rows: every n-th cell, donor after donor, in random order within.

    Returns
    -------
    Ascending row numbers; all of them up to `size` cells.
    """
    n_cells = len(donors)
    if n_cells <= size:
        return np.arange(n_cells)
    # As text, so that a missing donor is one more donor.
    _, codes = np.unique(np.asarray(donors).astype(str), return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(n_cells)
    by_donor = shuffled[np.argsort(codes[shuffled], kind="stable")]
    return np.sort(by_donor[np.arange(size) * n_cells // size])


def _variable_genes(expression: csr_matrix) -> np.ndarray:
    """Return the genes with the highest variance for their mean, in order of the genes."""
    n = expression.shape[0]
    mean = np.asarray(expression.mean(axis=0)).ravel()
    variance = np.asarray(expression.power(2).mean(axis=0)).ravel() - mean**2
    n_cells = np.bincount(expression.indices, minlength=expression.shape[1])
    is_seen = n_cells >= min(_FEWEST_CELLS_OF_A_GENE, n)
    dispersion = np.where(is_seen, variance / np.maximum(mean, 1e-12), -1)
    order = np.argsort(-dispersion, kind="stable")[:_N_GENES]
    return np.sort(order[dispersion[order] >= 0])
