"""What charts and the code that shows them agree on; reading what was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AROUND", "SELECTION", "selected_points"]

AROUND = "around"
"""Key of a chart's `usermeta`: pixels that its legend and axes need above and below the plot."""

SELECTION = "dot"
"""Name of the point selection of every chart that can be clicked."""


def selected_points(state: Any, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return the clicked points as field → value, points with a missing field left out."""
    selection = state.get("selection") if state else None
    points = (selection or {}).get(SELECTION) or []
    return [
        {field: point[field] for field in fields}
        for point in points
        if isinstance(point, dict) and all(point.get(field) is not None for field in fields)
    ]
