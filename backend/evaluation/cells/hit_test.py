"""What is drawn on the map, which cells lie inside it, and what that does to a selection.

What a browser sends is untrusted until it is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.errors import InputError
from backend.evaluation.cells.coordinates import LAST

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.evaluation.cells.coordinates import Coordinates

__all__ = [
    "KINDS",
    "MAX_CORNERS",
    "MODES",
    "Event",
    "cells_inside",
    "changed_selection",
    "read_corners",
    "read_event",
    "visible_cells",
]

KINDS: Final = ("lasso", "box", "hover", "coordinates", "no_webgl")
"""`coordinates` asks for x and y, which the browser lacks; `no_webgl` says that it cannot draw."""

MODES: Final = ("replace", "add", "remove", "invert", "clear")
"""What a polygon does to the selection; the last two come without one."""

MAX_CORNERS: Final = 500
"""Corners of a polygon."""

_MAX_HIDDEN: Final = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class Event:
    """One act of the user on the map.

    Parameters
    ----------
    polygon
        (k, 2) corners in data units, k ≤ 500; none for `invert`, `clear` and other kinds.
    cell_index
        The cell under the pointer, for `hover`; None when there is none.
    facet
        The panel that the polygon was drawn in; None where there is one panel only.
    hidden
        Categories that the legend hides.
    nonce
        Differs between any two events of a browser.
    """

    kind: str
    nonce: str
    mode: str
    polygon: np.ndarray
    cell_index: int | None = None
    facet: int | None = None
    hidden: tuple[int, ...] = ()


def _refused(found: str, hint: str) -> InputError:
    return InputError(f"The map sent something that cannot be used: {found}.", hint)


def _whole(value: Any, name: str, below: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
        msg = f"{name} is {str(value)[:40]}"
        raise _refused(msg, f"A whole number from 0 below {below:,}.")
    return value


def read_corners(
    value: Any, refused: Callable[[str, str], InputError], *, at_least: int
) -> np.ndarray:
    """Return the corners of a polygon, (k, 2) float64.

    Parameters
    ----------
    refused
        Gives the error to raise from what was found and what to do.
    at_least
        Corners that are needed; nothing is a polygon without corners.
    """
    hint = (
        f"A polygon has {f'{at_least} to' if at_least else 'at most'} {MAX_CORNERS} corners of two "
        "finite numbers each."
    )
    if not at_least and (value is None or (isinstance(value, list) and not value)):
        return np.zeros((0, 2))
    try:
        corners = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = "its polygon is not a list of points"
        raise refused(msg, hint) from error
    is_list = corners.ndim == 2 and corners.shape[1] == 2
    if not is_list or not at_least <= len(corners) <= MAX_CORNERS:
        shape = " × ".join(map(str, corners.shape))
        msg = f"its polygon has the shape {shape or 'of one number'}"
        raise refused(msg, hint)
    if not np.isfinite(corners).all():
        msg = "its polygon holds values that are not numbers"
        raise refused(msg, hint)
    return corners


def read_event(value: Any, *, n_cells: int) -> Event:
    """Check what a browser sent.

    Raises
    ------
    InputError
        If it is no event of the map.
    """
    if not isinstance(value, Mapping):
        msg = f"a {type(value).__name__}"
        raise _refused(msg, "Send an object.")
    kind, mode = value.get("kind"), value.get("mode") or "replace"
    if kind not in KINDS:
        msg = f'its kind is "{str(kind)[:40]}"'
        raise _refused(msg, f"Kinds: {', '.join(KINDS)}.")
    if mode not in MODES:
        msg = f'its mode is "{str(mode)[:40]}"'
        raise _refused(msg, f"Modes: {', '.join(MODES)}.")
    hidden = value.get("hidden") or []
    if not isinstance(hidden, list) or len(hidden) > _MAX_HIDDEN:
        msg = "its hidden categories are no short list"
        raise _refused(msg, f"At most {_MAX_HIDDEN}.")
    return Event(
        kind=kind,
        mode=mode,
        nonce=str(value.get("nonce"))[:64],
        polygon=read_corners(value.get("polygon"), _refused, at_least=0),
        cell_index=_whole(value.get("cell_index"), "its cell", n_cells),
        facet=_whole(value.get("facet"), "its panel", 256),
        hidden=tuple(_whole(code, "a hidden category", 256) or 0 for code in hidden),
    )


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
        One of `MODES`.
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
