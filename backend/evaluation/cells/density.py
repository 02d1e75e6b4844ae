"""Cells counted in squares: the map for browsers that cannot draw points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from backend.evaluation.cells.coordinates import Coordinates

__all__ = ["binned"]


def binned(coordinates: Coordinates, mask: np.ndarray, *, bins: int = 256) -> np.ndarray:
    """Count the placed cells of `mask` in `bins` × `bins` squares: [0, 0] is bottom left.

    Returns
    -------
    (bins, bins) int64, rows from low to high y.
    """
    kept = mask & coordinates.is_placed
    x = coordinates.x[kept].astype(np.int64) * bins // 65_535
    y = coordinates.y[kept].astype(np.int64) * bins // 65_535
    return np.bincount(y * bins + x, minlength=bins * bins).reshape(bins, bins)
