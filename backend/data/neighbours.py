"""The nearest cells of each cell among the principal components; for display only."""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np

__all__ = ["LARGEST_EXACT", "N_NEIGHBOURS", "nearest_cells"]

N_NEIGHBOURS: Final = 15
"""As many as the UMAP of the same components uses."""

LARGEST_EXACT: Final = 100_000
"""Up to here all distances are measured; above, neighbours are found approximately."""


def nearest_cells(
    components: np.ndarray,
    *,
    k: int = N_NEIGHBOURS,
    seed: int = 0,
    largest_exact: int = LARGEST_EXACT,
) -> np.ndarray:
    """Return the `k` nearest other cells of each cell by Euclidean distance.

    Parameters
    ----------
    components
        (n_cells, n_components) of `backend.data.embedding.fit_components`.
    seed
        Of the approximate search, which only larger inputs need.

    Returns
    -------
    (n_cells, k) int32 row numbers, nearest first; -1 where there are fewer other cells.
    """
    n = len(components)
    nearest = np.full((n, k), -1, dtype=np.int32)
    n_found = min(k, n - 1)
    if n_found < 1:
        return nearest
    points = np.ascontiguousarray(components, dtype=np.float32)
    search = _exact if n <= largest_exact else _approximate
    nearest[:, :n_found] = _without_itself(search(points, n_found + 1, seed), n_found)
    return nearest


def _exact(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
    return search.kneighbors(points, return_distance=False)


def _approximate(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        # As for UMAP: the package tells about optional parts on import.
        warnings.simplefilter("ignore", ImportWarning)
        from pynndescent import NNDescent

    return NNDescent(points, n_neighbors=k, random_state=seed).neighbor_graph[0]


def _without_itself(found: np.ndarray, k: int) -> np.ndarray:
    """Leave each row's own number out, or its last one where equal cells crowded it out."""
    is_other = found != np.arange(len(found))[:, None]
    is_other[is_other.all(axis=1), -1] = False
    return found[is_other].reshape(len(found), k)
