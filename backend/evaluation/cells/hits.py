"""Which cells lie inside a polygon, and what that does to a selection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backend.evaluation.cells.coordinates import LAST

if TYPE_CHECKING:
    from backend.evaluation.cells.coordinates import Coordinates

__all__ = ["cells_inside", "changed_selection", "visible_cells"]


def cells_inside(coordinates: Coordinates, polygon: np.ndarray) -> np.ndarray:
    """Say which cells lie inside a polygon by the even-odd rule.

    A cell is inside when a ray to the right crosses the outline an odd number of times; an edge
    counts from its lower end up to below its upper end, so that neighbours share no cell. Only
    cells in the bounding box are looked at. They are sorted by height once, and each edge then
    touches only the cells at its height.

    Parameters
    ----------
    polygon
        (k, 2) corners in data units; the last is joined to the first. Fewer than three hit nothing.

    Returns
    -------
    (n,) bool, False for cells without a place.
    """
    inside = np.zeros(len(coordinates), dtype=bool)
    if len(polygon) < 3:
        return inside
    polygon = np.asarray(polygon, dtype=np.float64)
    rows = _in_box(coordinates, polygon)
    # uint16 keys are sorted by radix, in linear time.
    rows = rows[np.argsort(coordinates.y[rows], kind="stable")]
    x, y = coordinates.x_values(rows), coordinates.y_values(rows)
    odd = np.zeros(len(rows), dtype=bool)
    ends = np.roll(polygon, -1, axis=0)
    lower = np.searchsorted(y, np.minimum(polygon[:, 1], ends[:, 1]), side="left")
    upper = np.searchsorted(y, np.maximum(polygon[:, 1], ends[:, 1]), side="left")
    for (x1, y1), (x2, y2), low, high in zip(polygon, ends, lower, upper, strict=True):
        if high > low:
            odd[low:high] ^= x[low:high] < (x2 - x1) * (y[low:high] - y1) / (y2 - y1) + x1
    inside[rows[odd]] = True
    return inside


def _in_box(coordinates: Coordinates, polygon: np.ndarray) -> np.ndarray:
    """Return the rows of cells in the bounding box, one step of the grid wider on each side."""
    (x_low, y_low), (x_high, y_high) = polygon.min(axis=0), polygon.max(axis=0)
    bounds = coordinates.bounds

    def codes(low: float, high: float, axis: str) -> tuple[np.uint16, np.uint16]:
        """Return the first and the last code; first above last where the box misses the map."""
        start, end = bounds[f"{axis}_min"], bounds[f"{axis}_max"]
        ends = (np.array([low, high]) - start) * (LAST / (end - start)) + (-1, 1)
        if ends[1] < 0 or ends[0] > LAST:
            return np.uint16(1), np.uint16(0)
        first, last = np.rint(np.clip(ends, 0, LAST)).astype(np.uint16)
        return first, last

    # Codes are compared as they are: a comparison with a float would copy all of them.
    (left, right), (bottom, top) = codes(x_low, x_high, "x"), codes(y_low, y_high, "y")
    near = (coordinates.x >= left) & (coordinates.x <= right)
    near &= (coordinates.y >= bottom) & (coordinates.y <= top)
    return np.flatnonzero(near)


def visible_cells(
    coordinates: Coordinates,
    *,
    in_scope: np.ndarray,
    category: np.ndarray,
    hidden: tuple[int, ...],
    facet_codes: np.ndarray | None,
    facet: int | None,
) -> np.ndarray:
    """Say which cells a polygon can reach: in scope, placed, shown by the legend, in its panel."""
    mask = in_scope & coordinates.is_placed
    if hidden:
        mask &= ~np.isin(category, np.array(hidden, dtype=np.int64))
    if facet is not None and facet_codes is not None:
        mask &= facet_codes == facet
    return mask


def changed_selection(
    before: np.ndarray | None, hit: np.ndarray, reach: np.ndarray, mode: str
) -> np.ndarray:
    """Return the selection after a polygon.

    Parameters
    ----------
    before
        (n,) bool, or None for no selection.
    hit
        Cells that the polygon reached.
    reach
        Cells that can be selected now; `invert` turns these round.
    mode
        One of `events.MODES`.
    """
    empty = np.zeros(len(hit), dtype=bool)
    before = empty if before is None else before
    if mode == "add":
        return before | hit
    if mode == "remove":
        return before & ~hit
    if mode == "invert":
        return reach & ~before
    if mode == "clear":
        return empty
    return hit.copy()
