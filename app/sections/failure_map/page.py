"""The parts of the Failure map page, from its choices to its table of failures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import streamlit as st

from app import cache
from app.components import errors, frames, jobs, selection_links, tables
from app.components.cell_map import selected_cells, view
from app.components.cell_map.legend import (
    COLOURS,
    NEED_LABELS,
    NO_FACET,
    TITLES,
    facets_by_timepoint,
    one_facet,
)
from app.components.selection_panel import selection_panel
from app.identity import identity
from app.state import CELL_TYPE, current_source
from backend.evaluation.cells.colours import colour_column
from backend.evaluation.cells.map_cells import count_outcomes
from backend.evaluation.cells.selection import SavedSelection, scope_json
from backend.evaluation.outcomes import OUTCOMES
from backend.evaluation.wording import plain, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from streamlit.delta_generator import DeltaGenerator

    from backend.evaluation.cells.map_cells import MapCells
    from backend.types import Scope

__all__ = [
    "MODEL_WIDTH",
    "WIDTH",
    "choose_colour",
    "choose_panels",
    "choose_types",
    "counts",
    "draw",
    "failure_table",
    "headline",
    "is_coloured_anew",
    "maps",
    "numbers_of_selected",
    "open_link",
]

WIDTH: Final = 230
"""Width of the page's choices, in pixels."""

MODEL_WIDTH: Final = 226
"""Of a choice of models, whose names are longer: a cut one may be two."""

PANELS: Final = ("all cells", "timepoint", "model")
_MOST_MODELS: Final = 8
_MOST_ROWS: Final = 1_000
_OF_LABELS: Final = frozenset({"label", "outcome", "label_source"})
_OPENED: Final = "failure_map.opened"
_DRAWN: Final = "failure_map.drawn"


def has_labels(cells: MapCells) -> bool:
    """Say whether any cell of the dataset is scored."""
    return bool((cells.outcome != OUTCOMES.index("not scored")).any())


def choose_colour(cells: MapCells) -> str:
    """Draw the choice of what cells are coloured by; return its key."""
    # Without labels there is no outcome: cells open as what they are called.
    words = [word for word in COLOURS if has_labels(cells) or word not in NEED_LABELS]
    word = st.selectbox("Colour by", words, key="colour", bind="query-params", width=WIDTH)
    return COLOURS[word]


def choose_panels() -> str:
    """Draw the choice of small multiples."""
    return st.selectbox("A map for each", PANELS, key="facet", bind="query-params", width=WIDTH)


def choose_types(scope: Scope, cells: MapCells) -> Scope:
    """Draw the filter by label, where there is one, and return the scope with it."""
    if not has_labels(cells):
        return scope
    chosen_types = st.multiselect(
        "Labelled as",
        list(cells.roles["label"].names),
        key=CELL_TYPE,
        bind="query-params",
        placeholder="All types",
        width=WIDTH,
    )
    return scope.with_(cell_types=tuple(chosen_types)) if chosen_types else scope


def headline(cells: MapCells, in_scope: np.ndarray, counted: pd.DataFrame) -> str:
    """Return the sentence above the map."""
    scored = in_scope & (cells.outcome != OUTCOMES.index("not scored"))
    donors = np.unique(cells.roles["donor"].codes[scored])
    return frames.outcome_sentence(
        counted,
        cells.display_name,
        cells.threshold,
        n_donors=int((donors >= 0).sum()),
        # A file without any label has no other reason.
        is_upload=current_source().is_upload and current_source().is_scored,
    )


def counts(cells: MapCells, in_scope: np.ndarray) -> pd.DataFrame:
    """Return cells, donors and share per outcome."""
    return frames.with_share(count_outcomes(cells, in_scope))


def maps(
    scope: Scope,
    cells: MapCells,
    in_scope: np.ndarray,
    models: Mapping[str, str],
    *,
    colour_by: str,
    facet_by: str,
) -> list[view.DrawnMap]:
    """Return the maps to draw: one, or one a model."""
    n_wrong = None
    if colour_by == "n_wrong":
        n_wrong = cache.wrong_models(scope, tuple(sorted(models)), len(cells))
    if facet_by != "model":
        is_by_timepoint = facet_by == "timepoint"
        facets = facets_by_timepoint(cells, in_scope) if is_by_timepoint else one_facet(len(cells))
        column = colour_column(cells, colour_by, in_scope, n_wrong)
        return [view.DrawnMap(_key("map"), scope, cells, column, in_scope, facets)]
    shown = []
    for configuration in list(models)[:_MOST_MODELS]:
        other = cache.cells_on_map(scope, configuration)
        column = colour_column(other, colour_by, in_scope, n_wrong)
        shown.append(
            view.DrawnMap(
                _key(f"map.{configuration}"), scope, other, column, in_scope,
                one_facet(len(cells)), title=models[configuration], link="models",
            )
        )  # fmt: skip
    return shown


def _key(name: str) -> str:
    return f"failure_map.{name}"


def _where_words(shown: list[view.DrawnMap], n_left_out: int) -> str:
    """Say what is not on the map and why."""
    cells, facets, in_scope = shown[0].cells, shown[0].facets, shown[0].in_scope
    n = int(np.count_nonzero(in_scope & cells.coordinates.is_placed))
    last = ", failures last and larger" if has_labels(cells) else ""
    words = [f"{plural(n, 'cell')} in scope, all drawn{last}."]
    if n_context := int(np.count_nonzero(~in_scope & cells.coordinates.is_placed)):
        words.append(f"Grey: {plural(n_context, 'cell')} outside the filters.")
    if n_unplaced := int(np.count_nonzero(in_scope & ~cells.coordinates.is_placed)):
        words.append(
            f"Without a place on the map, but in all numbers: {plural(n_unplaced, 'cell')}."
        )
    if facets.names and (n_in_none := int(np.count_nonzero(in_scope & (facets.codes == NO_FACET)))):
        words.append(f"In no panel, without a timepoint: {plural(n_in_none, 'cell')}.")
    if n_left_out:
        words.append(
            f"Not shown: {plural(n_left_out, 'more model')}; choose models in the sidebar."
        )
    if cells.is_computed:
        words.append("Places were computed from class probabilities, not from expression.")
    words.append("UMAP is for display only; distances between groups are not evidence.")
    return " ".join(words)


def draw(
    place: DeltaGenerator,
    shown: list[view.DrawnMap],
    *,
    colour_by: str,
    models: Mapping[str, str],
) -> None:
    """Draw the maps at a place on the page, with heading, words and files."""
    model = models[shown[0].cells.configuration]
    by = TITLES[colour_by].lower()
    title = f"Cells by {by}, one map a model" if shown[0].link else f"Cells of {model} by {by}"
    with place:
        st.markdown(f"##### {plain(title)}")
        if current_source().simulated:
            st.badge("Simulated data, not a finding", color="orange")
        if not shown[0].cells.coordinates.is_placed.any():
            _offer_map(shown[0], model)
            return
        if len(shown) == 1:
            view.draw(shown[0])
        else:
            view.draw_side_by_side(shown)
        n_left_out = len(models) - len(shown) if shown[0].link else 0
        st.caption(_where_words(shown, n_left_out))
        view.downloads(shown, name=f"failure-map-by-{colour_by}", title=title)


def _offer_map(shown: view.DrawnMap, model: str) -> None:
    """Say that there is no map, and offer to compute one; follow the job that does."""
    st.info(
        "This dataset has no map yet: none of its cells has a place. All numbers and tables are "
        "complete."
    )
    if job_id := st.query_params.get(jobs.JOB):
        with errors.shown_to_user():
            jobs.one_job(job_id)
        return
    st.markdown(
        f"A map can be computed from the class probabilities of {plain(model)}: cells that it "
        "takes for similar lie together. That says nothing of expression."
    )
    who = identity()
    scope = shown.scope
    if st.button("Compute a map", disabled=not who.may_write, help=who.reason, key="map.compute"):
        with errors.shown_to_user():
            jobs.start(
                "place",
                {
                    "dataset_id": scope.dataset_id,
                    "label_level": scope.label_level,
                    "protocol": scope.protocol,
                    "budget": scope.budget,
                    "configuration": shown.cells.configuration,
                },
            )


def is_coloured_anew(colour_by: str, facet_by: str) -> bool:
    """Tell whether the map is coloured or divided otherwise than when it was drawn last.

    Who asked for that waits for the map, and everybody else for numbers: drawing the map keeps slow
    machines busy.
    """
    before = st.session_state.get(_DRAWN)
    st.session_state[_DRAWN] = (colour_by, facet_by)
    return before != (colour_by, facet_by)


def numbers_of_selected(
    scope: Scope,
    cells: MapCells,
    in_scope: np.ndarray,
    configuration: str,
    *,
    answer: DeltaGenerator,
) -> None:
    """Show what the selected cells in scope have in common, its first sentence at `answer`."""
    found = selected_cells.current(cells)
    if found is None:
        st.markdown("No cells are selected. Draw around some with the lasso or the box.")
        return
    rows = np.flatnonzero(found.mask & in_scope)
    if len(rows):
        with errors.shown_to_user():
            summary = cache.selection_summary(scope, rows, configuration)
        answer.markdown(f"{summary.sentences[0]} More below the map.")
    kept = scope_json(scope, configuration=configuration)
    if found.polygon is not None and len(found.polygon) >= 3:
        saved = SavedSelection(kind="polygon", scope=kept, polygon=found.polygon)
    else:
        saved = SavedSelection(kind="cells", scope=kept, cells=rows)
    selection_panel(
        scope,
        rows,
        title=found.title,
        selection=saved,
        configuration=configuration,
        page="failure_map",
    )


def open_link(cells: MapCells) -> None:
    """Select the cells that the address names, once for each link; say so when they are gone."""
    link = st.query_params.get(selection_links.SELECTION)
    saved = selection_links.opened()
    if saved is None or link == st.session_state.get(_OPENED):
        return
    with errors.shown_to_user():
        rows = selection_links.cells_of_selection(saved, cells.configuration)
    mask = np.zeros(len(cells), dtype=bool)
    mask[rows] = True
    polygon = None
    if saved.kind == "polygon":
        polygon = tuple((float(x), float(y)) for x, y in saved.polygon)
    selected_cells.select(cells, mask, title=saved.name or saved.describe(), polygon=polygon)
    st.session_state[_OPENED] = link


def failure_table(scope: Scope, cells: MapCells, in_scope: np.ndarray) -> None:
    """Show the most confident failures, without labels all cells; the file has all of them."""
    columns: tuple[str, ...] = (
        "cell_id", "label", "predicted", "confidence", "outcome", "donor", "timepoint", "sample",
        "genotype", "label_source",
    )  # fmt: skip
    if has_labels(cells):
        title, rows = "Failures", np.flatnonzero(in_scope & cells.is_wrong)
        what = "Cells whose predicted type differs from the label"
    else:
        title, rows = "Cells and what they are called", np.flatnonzero(in_scope)
        what = "Cells without a label"
        columns = tuple(name for name in columns if name not in _OF_LABELS)
    st.markdown(f"##### {title}, most confident first")
    if not len(rows):
        st.markdown("No cell fails here.")
        return

    tables.show(
        cache.selected_rows(scope, rows, cells.configuration, limit=_MOST_ROWS),
        name="failures",
        alt_text=f"{what}, most confident first",
        columns=columns,
        height=420,
        whole=partial(cache.selected_rows, scope, rows, cells.configuration),
    )
    if len(rows) > _MOST_ROWS:
        st.caption(f"{_MOST_ROWS:,} of {len(rows):,} cells are listed; the CSV has all of them.")
