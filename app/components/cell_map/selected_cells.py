"""Which cells are selected in this session, on whatever page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import streamlit as st

from backend.evaluation.cells.hit_test import cells_inside, changed_selection, visible_cells

if TYPE_CHECKING:
    from app.components.cell_map.legend import Facets
    from backend.evaluation.cells.colours import ColourColumn
    from backend.evaluation.cells.hit_test import Event
    from backend.evaluation.cells.map_cells import MapCells

__all__ = ["SelectedCells", "change_by", "current", "deselect", "select"]

_KEY: Final = "faultline.selected_cells"


@dataclass(frozen=True, slots=True)
class SelectedCells:
    """Selected cells of a dataset: a bit for each cell, and where they come from in words.

    `polygon` holds the corners when one area says it all, so that it can be kept as an area.
    """

    dataset_id: str
    n: int
    bits: bytes
    title: str
    polygon: tuple[tuple[float, float], ...] | None = None

    @property
    def mask(self) -> np.ndarray:
        """(n,) bool."""
        bits = np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8), count=self.n)
        return bits.astype(bool)


def current(cells: MapCells) -> SelectedCells | None:
    """Return the selection if it is one of these cells."""
    found = st.session_state.get(_KEY)
    if found is None or (found.dataset_id, found.n) != (cells.dataset_id, len(cells)):
        return None
    return found


def select(
    cells: MapCells,
    mask: np.ndarray,
    *,
    title: str,
    polygon: tuple[tuple[float, float], ...] | None = None,
) -> None:
    """Select the cells of a mask; an empty one is a selection of nothing, which the page says."""
    bits = np.packbits(mask).tobytes()
    st.session_state[_KEY] = SelectedCells(cells.dataset_id, len(cells), bits, title, polygon)


def deselect() -> None:
    """Select nothing, silently."""
    st.session_state.pop(_KEY, None)


def change_by(
    event: Event, cells: MapCells, in_scope: np.ndarray, column: ColourColumn, facets: Facets
) -> None:
    """Change the selection by what was drawn on the map."""
    if event.mode == "clear":
        deselect()
        return
    reach = visible_cells(
        cells.coordinates,
        in_scope=in_scope,
        category=column.codes,
        hidden=event.hidden,
        facet_codes=facets.codes,
        facet=event.facet,
    )
    hit = cells_inside(cells.coordinates, event.polygon) & reach
    before = current(cells)
    mask = changed_selection(None if before is None else before.mask, hit, reach, event.mode)
    is_whole = event.mode == "replace" and not event.hidden and event.facet is None
    words = {"lasso": "Lasso on the map", "box": "Box on the map"}[event.kind]
    if event.mode == "invert":
        words = "All but the cells selected before"
    elif event.mode != "replace" and before is not None:
        words = f"{before.title}, {'and more' if event.mode == 'add' else 'less a part'}"
    corners = tuple((float(x), float(y)) for x, y in event.polygon) if is_whole else None
    select(cells, mask, title=words[:200], polygon=corners)
