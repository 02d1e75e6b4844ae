"""Display coordinates as 16-bit numbers, the same in the browser and in the hit test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

__all__ = ["LAST", "MISSING", "Coordinates", "binned", "quantise"]

MISSING: Final = 65_535
"""Code of a cell that has no place on the map; it is not drawn and never hit."""

LAST: Final = 65_534
"""Code of the highest value of an axis; 0 is the lowest."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Places of all cells.

    Parameters
    ----------
    x, y
        (n,) uint16; both `MISSING` where a cell has no place.
    x_min, x_max, y_min, y_max
        What 0 and 65,534 stand for; the maximum is above the minimum.
    """

    x: np.ndarray
    y: np.ndarray
    x_min: float
    x_max: float
    y_min: float
    y_max: float

    def __len__(self) -> int:
        return len(self.x)

    @property
    def bounds(self) -> dict[str, float]:
        """The four bounds by name."""
        return {
            "x_min": self.x_min,
            "x_max": self.x_max,
            "y_min": self.y_min,
            "y_max": self.y_max,
        }

    @cached_property
    def is_placed(self) -> np.ndarray:
        """Which cells have a place: (n,) bool."""
        return self.x != MISSING

    @cached_property
    def token(self) -> str:
        """First 16 hex digits of a hash of places and bounds: names them between messages."""
        digest = hashlib.sha256(repr(sorted(self.bounds.items())).encode())
        digest.update(self.x.tobytes())
        digest.update(self.y.tobytes())
        return digest.hexdigest()[:16]

    def x_values(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return x of some rows in data units, as the browser computes it: float64."""
        return self.x_min + self.x[rows].astype(np.float64) * ((self.x_max - self.x_min) / LAST)

    def y_values(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return y of some rows in data units, as the browser computes it: float64."""
        return self.y_min + self.y[rows].astype(np.float64) * ((self.y_max - self.y_min) / LAST)


def _axis(values: np.ndarray, is_placed: np.ndarray) -> tuple[np.ndarray, float, float]:
    codes = np.full(len(values), MISSING, dtype=np.uint16)
    placed = values[is_placed]
    if not len(placed):
        return codes, 0.0, 1.0
    low, high = float(placed.min()), float(placed.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    codes[is_placed] = np.rint((placed - low) * (LAST / (high - low))).astype(np.uint16)
    return codes, low, high


def quantise(x: np.ndarray, y: np.ndarray) -> Coordinates:
    """Turn places into 16-bit codes; a cell with NaN or an infinite value has no place.

    An axis on which all cells agree gets a width of one unit around them.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    is_placed = np.isfinite(x) & np.isfinite(y)
    x_codes, x_min, x_max = _axis(x, is_placed)
    y_codes, y_min, y_max = _axis(y, is_placed)
    return Coordinates(x_codes, y_codes, x_min, x_max, y_min, y_max)


def binned(coordinates: Coordinates, mask: np.ndarray, *, bins: int) -> np.ndarray:
    """Count the placed cells of `mask` in `bins` × `bins` squares: [0, 0] is bottom left.

    Returns
    -------
    (bins, bins) int64, rows from low to high y.
    """
    kept = mask & coordinates.is_placed
    x = coordinates.x[kept].astype(np.int64) * bins // 65_535
    y = coordinates.y[kept].astype(np.int64) * bins // 65_535
    return np.bincount(y * bins + x, minlength=bins * bins).reshape(bins, bins)
