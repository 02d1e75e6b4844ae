"""What the map in the browser sends back: untrusted until read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from backend.errors import InputError

__all__ = ["KINDS", "MODES", "Event", "read_event"]

KINDS: Final = ("lasso", "box", "hover", "coordinates", "no_webgl")
"""`coordinates` asks for x and y, which the browser lacks; `no_webgl` says that it cannot draw."""

MODES: Final = ("replace", "add", "remove", "invert", "clear")
"""What a polygon does to the selection; the last two come without one."""

_MAX_POINTS: Final = 500
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


def _corners(value: Any) -> np.ndarray:
    hint = f"A polygon has at most {_MAX_POINTS} corners of two finite numbers each."
    if value is None or (isinstance(value, list) and not value):
        return np.zeros((0, 2))
    try:
        corners = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = "its polygon is not a list of points"
        raise _refused(msg, hint) from error
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) > _MAX_POINTS:
        msg = f"its polygon has the shape {corners.shape}"
        raise _refused(msg, hint)
    if not np.isfinite(corners).all():
        msg = "its polygon holds values that are not numbers"
        raise _refused(msg, hint)
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
        polygon=_corners(value.get("polygon")),
        cell_index=_whole(value.get("cell_index"), "its cell", n_cells),
        facet=_whole(value.get("facet"), "its panel", 256),
        hidden=tuple(_whole(code, "a hidden category", 256) or 0 for code in hidden),
    )
