"""Colours, names and words of a cell map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from app.components import palette
from backend.data.labels import family

if TYPE_CHECKING:
    from backend.evaluation.cells.colours import ColourColumn
    from backend.evaluation.cells.map_cells import MapCells

__all__ = [
    "COLOURS",
    "NEED_LABELS",
    "NO_FACET",
    "TITLES",
    "VIRIDIS",
    "Facets",
    "colours_of",
    "facets_by_timepoint",
    "header_of",
    "one_facet",
]

COLOURS: Final = {
    "outcome": "outcome",
    "label": "label",
    "predicted": "predicted",
    "confidence": "confidence",
    "local error rate": "local_error",
    "models that fail": "n_wrong",
    "donor": "donor",
    "timepoint": "timepoint",
}
"""What the page and its address call each way of colouring."""

NEED_LABELS: Final = ("outcome", "label", "local error rate", "models that fail")
"""Ways of colouring that say nothing where no cell is scored."""

TITLES: Final = {
    "outcome": "Outcome",
    "label": "Label",
    "predicted": "Predicted type",
    "confidence": "Confidence",
    "local_error": "Share wrong around",
    "n_wrong": "Models that fail",
    "donor": "Donor",
    "timepoint": "Timepoint",
}
"""What cells can be coloured by, in the words of legends."""

# Viridis in ten steps, the scale of all values from 0 to 1.
VIRIDIS: Final = (
    "#440154", "#482878", "#3E4A89", "#31688E", "#26828E",
    "#1F9E89", "#35B779", "#6DCD59", "#B4DE2C", "#FDE725",
)  # fmt: skip

NO_FACET: Final = 255
_MOST_NAMES: Final = 40
"""With more types their names would lie on one another."""


@dataclass(frozen=True, eq=False)
class Facets:
    """Panels of small multiples: `codes` (n,) uint8 into `names`, 255 for a cell in none."""

    codes: np.ndarray
    names: tuple[str, ...]
    counts: tuple[int, ...]


def one_facet(n_cells: int) -> Facets:
    """Return a single panel with all cells."""
    return Facets(np.zeros(n_cells, dtype=np.uint8), (), ())


def facets_by_timepoint(cells: MapCells, in_scope: np.ndarray) -> Facets:
    """Return a panel for each timepoint that has cells in scope."""
    role = cells.roles["timepoint"]
    sizes = np.bincount(role.codes[in_scope] + 1, minlength=len(role.names) + 1)[1:]
    shown = [code for code, size in enumerate(sizes) if size]
    place = np.full(len(role.names) + 1, NO_FACET, dtype=np.uint8)
    place[shown] = np.arange(len(shown), dtype=np.uint8)
    return Facets(
        place[role.codes],
        tuple(role.names[code] for code in shown),
        tuple(int(sizes[code]) for code in shown),
    )


def _steps(n: int) -> list[str]:
    """Return `n` colours of the scale from its dark to its light end."""
    return [VIRIDIS[round(i * (len(VIRIDIS) - 1) / max(n - 1, 1))] for i in range(n)]


def colours_of(column: ColourColumn) -> list[str]:
    """Return a colour for each name; a type, donor or outcome has the same one on every page."""
    if column.mode == "continuous":
        return list(VIRIDIS)
    named = [n for n in column.names if n != column.missing]
    if column.by == "outcome":
        known = palette.outcome_colours()
    elif column.by == "timepoint":
        known = palette.timepoint_colours(named)
    elif column.by == "n_wrong":
        known = dict(zip(named, _steps(len(named)), strict=True))
    elif column.by == "donor":
        known = palette.donor_colours(named)
    else:
        known = palette.type_colours({name: family(name) for name in named})
    return [palette.SMALL if n == column.missing else known[n] for n in column.names]


def _described(cells: MapCells, column: ColourColumn, in_scope: np.ndarray) -> str:
    """Describe the map for those who do not see it."""
    n_failed = int(np.count_nonzero(in_scope & cells.is_wrong))
    return (
        f"Map of {int(in_scope.sum()):,} cells of {cells.display_name} coloured by "
        f"{TITLES[column.by].lower()}; {n_failed:,} failures are drawn last. "
        "The tables on this page hold the same data."
    )


def header_of(
    cells: MapCells,
    column: ColourColumn,
    in_scope: np.ndarray,
    facets: Facets,
    *,
    title: str,
    link: str,
    has_picture: bool,
) -> dict[str, Any]:
    """Return the header of the message, see docs/cell-map.md."""
    return {
        "mode": column.mode,
        "categories": list(column.names),
        "colours": colours_of(column),
        "counts": list(column.counts),
        "facets": [
            {"name": name, "n": n} for name, n in zip(facets.names, facets.counts, strict=True)
        ],
        "legend_title": TITLES[column.by],
        "names_on_map": column.by in {"label", "predicted"} and len(column.names) <= _MOST_NAMES,
        "label": _described(cells, column, in_scope),
        "title": title,
        "link": link,
        "n_in_scope": int(in_scope.sum()),
        "about": f"{cells.dataset_id}.{cells.series_id}",
        "has_picture": has_picture,
    }
