"""The map on a page: drawn, listened to, answered, and offered as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import streamlit as st

from app import cache
from app.components import export
from app.components.cell_map import component, picture, selected_cells
from app.components.cell_map.legend import Facets, header_of
from app.components.figure import MARK, is_dark
from app.state import current_source
from backend.errors import InputError
from backend.evaluation.cells.colours import colour_of_values, values_of
from backend.evaluation.cells.hit_test import read_event
from backend.evaluation.cells.message import flags_of
from backend.evaluation.outcomes import OUTCOMES
from backend.evaluation.wording import prose

if TYPE_CHECKING:
    from backend.evaluation.cells.colours import ColourColumn
    from backend.evaluation.cells.hit_test import Event
    from backend.evaluation.cells.map_cells import MapCells
    from backend.types import Scope

__all__ = ["DrawnMap", "downloads", "draw", "draw_side_by_side"]

_NO_WEBGL: Final = "cell_map.no_webgl"
_POINT: Final = "Point at a cell to see what it is."
_FACTS: Final = {
    "cell_id": "Cell",
    "label": "Label",
    "predicted": "Predicted",
    "confidence": "Confidence",
    "outcome": "Outcome",
    "donor": "Donor",
    "timepoint": "Timepoint",
}


@dataclass(frozen=True, eq=False)
class DrawnMap:
    """One map: whose cells, coloured how, which of them in scope, in which panels."""

    key: str
    scope: Scope
    cells: MapCells
    column: ColourColumn
    in_scope: np.ndarray
    facets: Facets
    title: str = ""
    link: str = ""
    continuous: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        values = values_of(self.cells, self.column.by, self.in_scope)
        object.__setattr__(self, "continuous", colour_of_values(values))


def _facts(shown: DrawnMap, row: int) -> list[tuple[str, str]]:
    """Return what is said of a cell: name and value."""
    configuration = shown.cells.configuration
    details = cache.selected_rows(shown.scope, np.array([row]), configuration, limit=1).iloc[0]
    facts = []
    for column, name in _FACTS.items():
        value = details[column]
        if column == "confidence" and value == value:
            value = f"{value:.2f}"
        facts.append((name, "–" if value is None or value != value else str(value)))
    return facts


def _answer(shown: DrawnMap) -> dict[str, Any]:
    """Return what to show of the cell that the pointer rests on."""
    row = st.session_state.get(f"cell_map.{shown.key}.pointed")
    if row is None or row >= len(shown.cells):
        return {"text": _POINT}
    facts = _facts(shown, row)
    return {
        "map": shown.key,
        "about": f"{shown.cells.dataset_id}.{shown.cells.series_id}",
        "cell_index": row,
        "facts": facts,
        "text": " · ".join(f"{name} {value}" for name, value in facts),
    }


def _act(event: Event, shown: DrawnMap) -> None:
    """Do what the user asked for; a new selection draws the whole page again."""
    if event.kind == "hover":
        st.session_state[f"cell_map.{shown.key}.pointed"] = event.cell_index
    elif event.kind == "coordinates":
        component.send_again(shown.key, shown.cells.coordinates)
    elif event.kind == "no_webgl":
        st.session_state[_NO_WEBGL] = True
    else:
        selected_cells.change_by(event, shown.cells, shown.in_scope, shown.column, shown.facets)
        st.rerun(scope="app")


@st.fragment
def draw(shown: DrawnMap) -> None:
    """Draw one map and the line below it.

    A fragment: to point at cells runs this part of the page only.
    """
    if (said := component.heard(shown.key)) is not None:
        try:
            event = read_event(said, n_cells=len(shown.cells))
        except InputError as error:
            st.warning(prose(f"{error.message} {error.hint}"))
        else:
            _act(event, shown)
    has_picture = bool(st.session_state.get(_NO_WEBGL))
    chosen = selected_cells.current(shown.cells)
    columns = component.Columns(
        category=shown.column.codes,
        continuous=shown.continuous,
        facet=shown.facets.codes,
        flags=flags_of(
            wrong=shown.cells.is_wrong,
            confident=shown.cells.outcome == OUTCOMES.index("confidently wrong"),
            selected=None if chosen is None else chosen.mask & shown.in_scope,
            context=~shown.in_scope,
        ),
    )
    header = header_of(
        shown.cells,
        shown.column,
        shown.in_scope,
        shown.facets,
        title=shown.title,
        link=shown.link,
        has_picture=has_picture,
    )
    if current_source().simulated:
        header["label"] = f"{MARK}. {header['label']}"
    component.mount(shown.key, shown.cells.coordinates, columns, header)
    if has_picture:
        st.image(
            picture.density_bytes(shown.cells, shown.in_scope, dark=is_dark()),
            caption="Cells counted in squares. Selecting needs WebGL; all tables are complete.",
            width="stretch",
        )
        return
    component.mount_answer(f"{shown.key}.answer", _answer(shown))


def draw_side_by_side(maps: list[DrawnMap]) -> None:
    """Draw several maps, two in a row; their cameras move together when they share a link."""
    for start in range(0, len(maps), 2):
        for place, shown in zip(st.columns(2), maps[start : start + 2], strict=False):
            with place:
                draw(shown)


def downloads(maps: list[DrawnMap], *, name: str, title: str) -> None:
    """Offer the whole map as PNG, SVG and PDF, with title, legend, source and use."""
    source = current_source()
    first = maps[0]

    def made(suffix: str) -> bytes:
        return picture.picture_bytes(
            [(m.title, m.cells, m.column) for m in maps],
            [m.continuous for m in maps],
            first.in_scope,
            first.facets,
            title=title,
            source=source.line,
            suffix=suffix,
        )

    with st.container(horizontal=True, gap="small", key=f"downloads.{name}"):
        for suffix, mime in picture.FORMATS.items():
            st.download_button(
                suffix.upper(),
                data=partial(made, suffix),
                file_name=export.file_name(source, name, suffix),
                mime=mime,
                key=f"figure.{name}.{suffix}",
                type="tertiary",
                icon=":material/download:",
                on_click="ignore",
                help=f"Download the whole map as {suffix.upper()} with its legend and source",
            )
