"""Which category or value each cell is coloured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from backend.evaluation.outcomes import OUTCOMES

if TYPE_CHECKING:
    from backend.evaluation.cells.map_cells import MapCells

__all__ = [
    "COLOUR_BY",
    "NO_VALUE",
    "VALUES",
    "ColourColumn",
    "colour_column",
    "colour_of_values",
    "local_error_rate",
    "values_of",
]

COLOUR_BY: Final = (
    "outcome",
    "label",
    "predicted",
    "confidence",
    "local_error",
    "n_wrong",
    "donor",
    "timepoint",
)
"""What cells can be coloured by: `local_error` is the share of wrong cells around a cell on the map,
`n_wrong` the number of models that fail on it."""

VALUES: Final = ("confidence", "local_error")
"""Those of `COLOUR_BY` that are values from 0 to 1."""

_BINS: Final = 256
_REACH: Final = 2.0
"""Standard deviation, in bins, with which the cells around a place weigh in its error rate."""

NO_VALUE: Final = 255
"""Continuous code of a cell without a value; 0 to 254 stand for 0 to 1."""

OTHER: Final = "other"
_MOST: Final = 255
_MISSING: Final = {
    "label": "not labelled",
    "predicted": "not predicted",
    "donor": "unknown donor",
    "timepoint": "no timepoint",
    "n_wrong": "not scored by all models",
}


@dataclass(frozen=True, eq=False)
class ColourColumn:
    """A colour for each cell.

    Parameters
    ----------
    by
        One of `COLOUR_BY`.
    codes
        (n,) uint8 into `names`.
    names
        At most 255, in the order of the legend.
    counts
        Cells in scope of each name.
    missing
        Name that stands for cells without a word; None when no cell lacks one.
    """

    by: str
    codes: np.ndarray
    names: tuple[str, ...]
    counts: tuple[int, ...]
    missing: str | None
    mode: Literal["category", "continuous"] = "category"


def _counted(
    by: str, codes: np.ndarray, names: tuple[str, ...], in_scope: np.ndarray
) -> ColourColumn:
    """Fit words into one byte: the rarest beyond 254 become "other", none gets a name of its own."""
    codes = codes.astype(np.int64)
    is_missing = codes < 0
    missing = _MISSING.get(by, "unknown") if is_missing.any() else None
    most = _MOST - (missing is not None)
    if len(names) > most:
        size = np.bincount(codes[~is_missing], minlength=len(names))
        kept = np.sort(np.argsort(-size, kind="stable")[: most - 1])
        place = np.full(len(names), len(kept), dtype=np.int64)
        place[kept] = np.arange(len(kept))
        codes = np.where(is_missing, -1, place[codes])
        names = (*(names[code] for code in kept), OTHER)
    if missing is not None:
        codes = np.where(is_missing, len(names), codes)
        names = (*names, missing)
    sizes = np.bincount(codes[in_scope], minlength=len(names))
    counts = tuple(int(size) for size in sizes)
    return ColourColumn(by, codes.astype(np.uint8), names, counts, missing)


def colour_column(
    cells: MapCells,
    by: str,
    in_scope: np.ndarray,
    n_wrong: tuple[np.ndarray, int] | None = None,
) -> ColourColumn:
    """Return the category of each cell.

    Parameters
    ----------
    by
        One of `COLOUR_BY`; by a value the categories are the outcomes, which a legend beside the scale
        needs.
    n_wrong
        What `wrong_models` returned; needed by `n_wrong` only.
    """
    if by == "outcome" or by in VALUES:
        counts = np.bincount(cells.outcome[in_scope], minlength=len(OUTCOMES))
        mode: Literal["category", "continuous"] = "continuous" if by in VALUES else "category"
        return ColourColumn(
            by, cells.outcome, OUTCOMES, tuple(int(count) for count in counts), None, mode
        )
    if by == "n_wrong":
        if n_wrong is None:
            msg = "Colouring by `n_wrong` needs the counts of `wrong_models`."
            raise ValueError(msg)
        codes, n_models = n_wrong
        names = tuple(f"{k} of {n_models} models wrong" for k in range(n_models + 1))
        return _counted(by, codes, names, in_scope)
    role = cells.roles[by]
    return _counted(by, role.codes, role.names, in_scope)


def values_of(cells: MapCells, by: str, in_scope: np.ndarray) -> np.ndarray:
    """Return the value that each cell is coloured by when `by` is one of `VALUES`: (n,) floats.

    Whatever else cells are coloured by, it is the confidence.
    """
    return local_error_rate(cells, in_scope) if by == "local_error" else cells.confidence


def local_error_rate(cells: MapCells, in_scope: np.ndarray) -> np.ndarray:
    """Return the share of wrong cells around each cell of the map: (n,) floats, NaN for none.

    Failures are drawn last and larger, so a place that is half right looks all wrong; this is its
    rate. Scored cells in scope are counted on a grid over the map and weighed by distance with a
    Gaussian (Nadaraya 1964; Watson 1964), so the time does not grow with the square of the cells.
    """
    from scipy.ndimage import gaussian_filter

    places = cells.coordinates
    rate = np.full(len(cells), np.nan)
    is_scored = cells.outcome != OUTCOMES.index("not scored")
    counted = places.is_placed & in_scope & is_scored
    if not counted.any():
        return rate
    # Places are whole numbers below 2^16, so a bin is a shift.
    bins = tuple(axis.astype(np.int64) * _BINS >> 16 for axis in (places.x, places.y))
    flat = bins[0] * _BINS + bins[1]

    def smooth(which: np.ndarray) -> np.ndarray:
        grid = np.bincount(flat[which], minlength=_BINS * _BINS).astype(np.float64)
        return gaussian_filter(grid.reshape(_BINS, _BINS), _REACH, mode="constant").ravel()

    shown = places.is_placed & in_scope
    total = smooth(counted)[flat[shown]]
    wrong = smooth(counted & cells.is_wrong)[flat[shown]]
    rate[shown] = np.divide(wrong, total, out=np.full(len(total), np.nan), where=total > 1e-9)
    return rate


def colour_of_values(values: np.ndarray) -> np.ndarray:
    """Turn values from 0 to 1 into codes 0 to 254; NaN becomes `NO_VALUE`: (n,) uint8."""
    codes = np.full(len(values), NO_VALUE, dtype=np.uint8)
    is_known = np.isfinite(values)
    codes[is_known] = np.rint(np.clip(values[is_known], 0, 1) * 254).astype(np.uint8)
    return codes
