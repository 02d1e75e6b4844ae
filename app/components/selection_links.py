"""Selections in the address: opening one, giving one, and going to other pages with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import streamlit as st

from app import cache, nav
from app.state import CONFIGURATION, DATASET, LABEL_LEVEL, current_scope, go
from backend.config import home
from backend.errors import FaultlineError
from backend.evaluation.cells.hit_test import cells_inside
from backend.evaluation.cells.selection import (
    SavedSelection,
    load_selection,
    save_selection,
    scope_json,
    scope_of,
)
from backend.evaluation.wording import plain, prose
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from backend.types import Scope

__all__ = [
    "SELECTION",
    "cells_in_a_donor",
    "cells_of_selection",
    "drop_link",
    "keep",
    "open_buttons",
    "opened",
    "page_links",
]

SELECTION: Final = "sel"
"""URL name of a saved selection."""

_PAGES: Final = {
    "failure_map": ("See them on the Failure map", ":material/scatter_plot:"),
    "confusions": ("See them on Confusions", ":material/table_chart:"),
    "genes": ("See their genes", ":material/genetics:"),
}


def drop_link() -> None:
    """Take the selection out of the address; for callbacks of what selects other cells."""
    if SELECTION in st.query_params:
        del st.query_params[SELECTION]


def keep(selection: SavedSelection) -> None:
    """Save a selection and name it in the address; for callbacks.

    What cannot be saved is told on the page that follows.
    """
    try:
        st.query_params[SELECTION] = save_selection(home(), current_scope().owner, selection)
    except FaultlineError as error:
        st.session_state[f"{SELECTION}.refused"] = prose(f"{error.message} {error.hint}")


def _go(page: str, selection: SavedSelection, filters: Mapping[str, Any]) -> None:
    try:
        saved = save_selection(home(), current_scope().owner, selection)
    except FaultlineError as error:
        st.session_state[f"{SELECTION}.refused"] = prose(f"{error.message} {error.hint}")
        return
    # `go` puts a name into the address that no widget has held in this session.
    st.session_state.pop(SELECTION, None)
    go(page, **filters, **{SELECTION: saved})


def open_buttons(
    selection: SavedSelection,
    *,
    name: str,
    leave_out: str = "",
    configuration: str | None = None,
    label_level: str | None = None,
) -> None:
    """Draw a button for each page that can show a selection.

    Parameters
    ----------
    name
        Part of the buttons' keys, unique on the page.
    leave_out
        Key of the page that they stand on.
    configuration
        The model that the other page opens with.
    label_level
        The level that it opens with, when that is not the one of the sidebar.
    """
    asked = {CONFIGURATION: configuration, LABEL_LEVEL: label_level}
    filters = {key: value for key, value in asked.items() if value is not None}
    for page, (label, icon) in _PAGES.items():
        if page != leave_out:
            st.button(
                label,
                key=f"{name}.{page}",
                icon=icon,
                on_click=_go,
                args=(page, selection, filters),
            )


def opened() -> SavedSelection | None:
    """Return the selection that the address names; say so when it is gone or of other data."""
    if refusal := st.session_state.pop(f"{SELECTION}.refused", None):
        st.warning(refusal, icon=":material/warning:")
    asked = st.query_params.get(SELECTION)
    if asked is None:
        return None
    scope = current_scope()
    try:
        selection = load_selection(home(), scope.owner, asked)
        if selection.dataset_id == scope.dataset_id:
            scope_of(selection, scope.owner)
            return selection
    except FaultlineError as error:
        st.info(prose(f"{error.message} {error.hint}"), icon=":material/link_off:")
        return None
    st.info(
        f"The selection of this link, {plain(selection.name or selection.describe())}, is of "
        "another dataset.",
        icon=":material/link_off:",
    )
    names = cache.scope_choices(scope.owner).drop_duplicates("dataset_id").set_index("dataset_id")
    if selection.dataset_id in names.index:
        st.button(
            f"Show {plain(names.name[selection.dataset_id])}",
            key="selection.dataset",
            on_click=_switch,
            args=(selection.dataset_id,),
        )
    return None


def cells_in_a_donor(point: Mapping[str, str], rows: pd.DataFrame, scope: Scope) -> SavedSelection:
    """Return the selection of one type's cells of a donor, as a point of the donors' chart names it.

    Parameters
    ----------
    rows
        What the chart was drawn from: `donor_name`, `donor`, `timepoint`.
    """
    row = rows[rows.donor_name == point["donor_name"]].iloc[0]
    predicate = {"donor": [str(row.donor)], "label": [point["cell_type"]]}
    if isinstance(row.timepoint, str) and row.timepoint in TIMEPOINTS:
        predicate["timepoint"] = [row.timepoint]
    return SavedSelection(kind="predicate", predicate=predicate, scope=scope_json(scope))


def page_links(*, label_level: str | None = None) -> None:
    """Draw links to the pages of single cells; they keep the filters of the sidebar.

    `label_level` is the level that they open with, when that is not the one of the sidebar.
    """
    with st.container(horizontal=True, gap="small"):
        for page, label, icon in (
            ("failure_map", "See which cells fail", ":material/scatter_plot:"),
            ("confusions", "See what they are mistaken for", ":material/table_chart:"),
        ):
            if label_level is None:
                st.page_link(nav.page_file(page), label=label, icon=icon)
            else:
                st.button(
                    label,
                    key=f"link.{page}",
                    icon=icon,
                    on_click=go,
                    args=(page,),
                    kwargs={LABEL_LEVEL: label_level},
                )


def _switch(dataset_id: str) -> None:
    st.session_state[DATASET] = dataset_id


def cells_of_selection(selection: SavedSelection, configuration: str) -> np.ndarray:
    """Return the `cell_index` of a selection's cells; an area is read on the map of its scope.

    Raises
    ------
    FaultlineError
        If its dataset or model is gone.
    """
    owner = current_scope().owner
    if selection.kind != "polygon":
        return cache.selected_cells(owner, selection)
    scope = scope_of(selection, owner)
    cells = cache.cells_on_map(scope, str(selection.scope.get("configuration", configuration)))
    return np.flatnonzero(
        cells_inside(cells.coordinates, selection.polygon) & cells.in_scope(scope)
    )
