"""What a set of cells is made of, wherever one is chosen: map, confusions, slices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import altair as alt
import streamlit as st

from app import cache
from app.components import errors, figure, palette, tables
from app.components.selection_links import keep, open_buttons
from app.components.words import unique_texts
from app.state import choose_one, current_models
from backend.evaluation.cells.selection import SavedSelection
from backend.evaluation.wording import plain, plural

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from backend.evaluation.cells.summary import SelectionSummary
    from backend.types import Scope

__all__ = ["probability_bars", "selection_panel"]

_LISTED: Final = 1_000
"""Cells that are listed on the page; numbers and files have all of them."""

_ROLES: Final = {
    "label": "Type",
    "timepoint": "Timepoint",
    "donor": "Donor",
    "genotype": "Genotype",
    "label_source": "Label source",
}
_MOST_BARS: Final = 20
_BARS: Final = {
    "label and prediction": palette.GREEN,
    "prediction": palette.VERMILLION,
    "label": palette.BLUE,
    "other type": palette.GREY,
}
_HALF: Final = 455
"""Width in pixels of the left of two tables; where both have no room they stack."""


def selection_panel(
    scope: Scope,
    cells: np.ndarray,
    *,
    title: str,
    selection: SavedSelection | None,
    configuration: str | None = None,
    page: str = "",
) -> None:
    """Show what some cells have in common, offer them as a file and under a link.

    Parameters
    ----------
    scope
        What the page shows.
    cells
        Values of `cell_index`.
    title
        What the cells are, in the user's words; shown as text.
    selection
        How they were chosen, so that they can be saved under a link; None where they cannot.
    configuration
        The model whose predictions are shown; by default the first of the sidebar.
    page
        Key of the page that the panel stands on: no button leads there.
    """
    st.markdown(f"##### Selected cells: {plain(title)}")
    if not len(cells):
        st.info("No cell is in this selection. Choose others, or widen the filters of the sidebar.")
        return
    models = current_models()
    configuration = configuration or next(iter(models), None)
    if configuration is None:
        st.info(f"{plural(len(cells), 'cell')} selected; no model has results for them.")
        return
    with errors.shown_to_user():
        summary = cache.selection_summary(scope, cells, configuration)
    st.markdown(" ".join(summary.sentences))
    if selection is not None:
        _save_and_go(selection, configuration, page)
    for left, right in ((_hits, _composition), (_confusion, _neighbourhood)):
        with st.container(horizontal=True, gap="medium"):
            with st.container(width=_HALF):
                left(summary)
            with st.container():
                right(summary)
    tables.show(
        summary.quality,
        name="selected-quality",
        alt_text="Quartiles of counts and genes of the selected cells and of all cells in scope",
        columns=("measure", "cells", "n_cells", "low", "median", "high"),
        labels={"cells": "Cells", "low": "Lower quartile", "high": "Upper quartile"},
        folded="Counts and genes of these cells",
    )
    _cells(scope, cells, summary)


def _save_and_go(selection: SavedSelection, configuration: str, page: str) -> None:
    """Draw the name, the button that saves under a link, and the ways to other pages."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.text_input(
            "Name",
            value=selection.name,
            max_chars=200,
            key="selection.name",
            placeholder="Name of these cells",
            width=240,
        )
        named = SavedSelection.from_json(selection.to_json() | {"name": name or ""})
        st.button(
            "Save as link",
            key="selection.save",
            icon=":material/link:",
            on_click=keep,
            args=(named,),
            help="Puts these cells into the address: copy it to come back or to share them",
        )
        open_buttons(named, name="selection", leave_out=page, configuration=configuration)


def _hits(summary: SelectionSummary) -> None:
    st.markdown("**Which models are right on them**")
    tables.show(
        summary.hits,
        name="selected-hits",
        alt_text="Share of the selected labelled cells on which each model is right, with cells, "
        "donors and the median confidence",
        columns=(
            "display_name", "hit_rate", "n_cells", "n_donors", "confidence_right",
            "confidence_wrong",
        ),
        labels={"confidence_right": "Confidence, right", "confidence_wrong": "Confidence, wrong"},
    )  # fmt: skip


def _composition(summary: SelectionSummary) -> None:
    st.markdown("**What they are**")
    titles = {title: role for role, title in _ROLES.items()}
    chosen = choose_one("By", list(titles), "selected_by")
    tables.show(
        summary.composition[summary.composition.role == titles[chosen]],
        name=f"selected-by-{titles[chosen]}",
        alt_text=f"Selected cells by {chosen.lower()}, with donors, and their share against all "
        "cells in scope",
        columns=("value", "n_cells", "n_donors", "share", "share_of_all"),
        labels={"value": chosen, "share": "Share here", "share_of_all": "Share in scope"},
        height=_tall(int((summary.composition.role == titles[chosen]).sum())),
    )


def _tall(n_rows: int) -> int | str:
    """Let long tables scroll."""
    return "auto" if n_rows <= 8 else 320


def _confusion(summary: SelectionSummary) -> None:
    st.markdown(f"**Called by {plain(summary.display_name)}**")
    if summary.confusion.empty:
        st.markdown("No selected cell has both a label and a prediction.")
        return
    tables.show(
        summary.confusion,
        name="selected-confusion",
        alt_text="Labels against predictions among the selected cells, with their kind of error",
        columns=("label", "predicted", "n_cells", "n_donors", "share", "kind", "confidence"),
        labels={"kind": "Kind", "confidence": "Median confidence"},
        height=_tall(len(summary.confusion)),
    )


def _neighbourhood(summary: SelectionSummary) -> None:
    st.markdown("**A label error or a model error?**")
    found = summary.neighbourhood
    if found is None:
        st.markdown(
            "No neighbourhood is stored for this dataset. `python -m backend data neighbours` "
            "adds it from the file of counts."
        )
        return
    st.markdown(" ".join(found.sentences))
    st.caption(
        "Neighbours are the nearest cells by 50 principal components of all cells. Labels and "
        "predictions were made from the same expression, so this is a hint and no proof."
    )
    if len(found.pairs):
        tables.show(
            found.pairs,
            name="selected-neighbours",
            alt_text="Whether the neighbours of wrong cells carry the label or the prediction",
            columns=(
                "label", "predicted", "n_cells", "label_share", "predicted_share",
                "n_label_leads", "n_prediction_leads",
            ),
            labels={"predicted_share": "Neighbours with the prediction"},
            folded="By label and prediction",
        )  # fmt: skip


def _cells(scope: Scope, cells: np.ndarray, summary: SelectionSummary) -> None:
    """List the cells and offer all of them as a file."""
    configuration = summary.configuration
    rows = cache.selected_rows(scope, cells, configuration, limit=_LISTED)
    st.markdown("**The cells, wrong and confident ones first**")
    tables.show(
        rows,
        name="selected-cells",
        alt_text="The selected cells with label, prediction, confidence, donor and timepoint",
        columns=(
            "cell_id", "label", "predicted", "confidence", "outcome", "donor", "timepoint",
            "sample", "genotype", "label_source", "n_counts", "n_genes",
        ),
        labels={"n_counts": "Counts", "n_genes": "Genes"},
        height=320,
        whole=partial(cache.selected_rows, scope, cells, configuration),
    )  # fmt: skip
    if len(rows) < len(cells):
        st.caption(f"{len(rows):,} of {len(cells):,} cells are listed; the CSV has all of them.")
    _one_cell(scope, rows, summary)


@st.fragment
def _one_cell(scope: Scope, rows: pd.DataFrame, summary: SelectionSummary) -> None:
    """Show all class probabilities of one of the listed cells; read only while it is open."""
    tested = rows[rows.run_id.notna()]
    name = plain(summary.display_name)
    if tested.empty:
        st.markdown(f"None of these cells has a prediction of {name}.")
        return
    box = st.expander("One cell in full", key="selection.one", on_change="rerun")
    if not box.open:
        return
    words = {
        row.cell_id: f"{row.cell_id}: {row.label} called {row.predicted}"
        for row in tested.itertuples()
    }
    with box:
        cell_id = st.selectbox(
            "Cell",
            list(words),
            format_func=words.__getitem__,
            key="selection.cell",
            width=_HALF,
        )
        cell = tested[tested.cell_id == cell_id].iloc[0]
        with errors.shown_to_user():
            vector = cache.probability_vector(scope, cell_id, cell.run_id)
        figure.draw(
            partial(probability_bars, vector, label=cell.label, predicted=cell.predicted),
            name="probabilities-of-cell",
            title=f"What {summary.display_name} holds likely for {cell_id}",
            alt_text="Bars of the probability of every type, the largest "
            f"{vector.cell_type.iloc[0]} with {vector.probability.iloc[0]:.2f}; labelled "
            f"{cell.label}.",
        )
        tables.show(
            vector,
            name="probabilities-of-cell",
            alt_text="Probability of every type for one cell",
            labels={"probability": "Probability"},
            height=_tall(len(vector)),
        )


def probability_bars(
    vector: pd.DataFrame, *, label: str | None, predicted: str, dark: bool
) -> alt.LayerChart:
    """Draw the probability of each type for one cell, at most the 20 largest and the label's."""
    names = vector.cell_type
    rows = vector[(vector.index < _MOST_BARS) | (names == label)].copy()
    rows["what"] = "other type"
    rows.loc[rows.cell_type == label, "what"] = "label"
    rows.loc[rows.cell_type == predicted, "what"] = "prediction"
    if label == predicted:
        rows.loc[rows.cell_type == label, "what"] = "label and prediction"
    rows["name"] = unique_texts(rows.cell_type)
    rows["text"] = [f"{p:.2f}" if p >= 0.005 else "<0.01" for p in rows.probability]
    shown = [what for what in _BARS if what in set(rows.what)]
    base = alt.Chart(rows).encode(
        y=alt.Y(
            "name:N",
            sort=rows.name.tolist(),
            title=None,
            axis=alt.Axis(
                labelLimit=240, labelOverlap=False, labelFontSize=12, ticks=False, domain=False
            ),
        ),
        x=alt.X(
            "probability:Q",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f"),
            title="Probability",
        ),
        tooltip=[
            alt.Tooltip("cell_type:N", title="Type"),
            alt.Tooltip("probability:Q", title="Probability", format=".4f"),
            alt.Tooltip("what:N", title="Is"),
        ],
    )
    bars = base.mark_bar().encode(
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=shown, range=[_BARS[what] for what in shown]),
            legend=alt.Legend(orient="top", title=None, symbolType="square"),
        )
    )
    texts = base.mark_text(align="left", dx=4, color=palette.ink(dark=dark)).encode(text="text:N")
    return alt.layer(bars, texts).properties(
        height=20 * len(rows), width=560, usermeta={figure.AROUND: 110}
    )
