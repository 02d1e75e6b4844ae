"""Published: what did the study report, and what is found here?"""

from functools import partial

import streamlit as st

from app import cache
from app.components import errors, figure, frames, heatmap, provenance, tables
from app.components.averages_table import averages_table
from app.components.selection_links import page_links
from app.sections.published import charts
from app.sections.published.words import beside_sentences, rows_in_words
from app.state import course, current_models, current_scope
from backend.evaluation.description import COMPARISON
from backend.evaluation.metrics import DEFAULT, METRICS

scope = current_scope()
models = current_models()
metric = METRICS[DEFAULT]
with errors.shown_to_user():
    view = cache.published(scope)
    averages = cache.averages(scope)

scores = view.by_timepoint.scores
if scores.empty:
    st.info(
        "No scored cells for this choice. Widen the timepoints, the models or the labels counted."
    )
    st.stop()

names = list(models.values())
timepoints = course(scores.timepoint)
is_comparison = view.by_timepoint.kind == COMPARISON
provenance.described(view.by_timepoint.kind, view.by_timepoint.donors.donor.nunique())
st.markdown(" ".join(beside_sentences(view)))
figure.draw(
    partial(
        charts.course_beside,
        scores,
        view.by_timepoint.donors,
        view.rows,
        timepoints=timepoints,
        models=names,
        has_lines=is_comparison,
    ),
    name="published-by-timepoint",
    title="The study's figure 2, with these models: F1 by timepoint",
    alt_text=f"{metric.title} from 0 to 1 over the clinical course, a line per model with donors and "
    "95 % intervals; dashed boxes are what the study reports of scGPT.",
)
st.caption(
    f"Dashed boxes: {charts.PUBLISHED.lower()}, on {view.study.cells}; no result of these models. The "
    "study does not say which average of F1 it took, nor how far donors spread. Bars: 95 % intervals "
    "over donors, none below 5."
)
provenance.types_note(view.by_timepoint, metric, view.by_timepoint.donors.donor.nunique())
page_links()

if len(averages):
    figure.draw(
        partial(
            charts.three_averages,
            averages,
            view.rows,
            timepoints=timepoints,
            configurations=list(models.items()),
        ),
        name="published-averages",
        title="A high average can hide lost types: three averages of the same calls",
        alt_text="Accuracy, weighted F1 and macro-F1 from 0 to 1 side by side over the clinical "
        "course, a line per model.",
    )
    st.caption(
        "Accuracy counts every cell alike, so common types carry it; weighted F1 weighs a type by its "
        "cells; macro-F1 counts every type alike. Where the first is far above the last, types are lost "
        "that the average does not show."
    )
    averages_table(averages)

types = view.by_type.scores
labelled = types[types.n_cells > 0]
figure.draw(
    partial(
        charts.types_beside,
        types,
        view.rows,
        rows=frames.in_order(labelled.cell_type, "cell_type"),
        models=names,
    ),
    name="published-by-type",
    title="The study's figure 3, with these models: F1 by cell type",
    alt_text="Heatmap of F1 from 0 to 1, a row per cell type and a column per model; a last, dashed "
    "column says what the study reports of a type.",
)
st.caption(
    "In each cell: F1, then labelled cells / donors. Grey: fewer than 20 cells, too few to read as a "
    f"score. {heatmap.FEW_DONORS}: one or two donors. {heatmap.ONE_DONOR}: most cells are one donor's. "
    f"Dashed: {charts.PUBLISHED.lower()}; the study gives no numbers by type in its text, and some "
    "types have F1 0 there."
)
tables.show(
    rows_in_words(view.rows),
    name="published-beside",
    alt_text="Each statement of the study with the score of each model here, its interval, donors "
    "and cells",
    columns=(
        "figure", "model", "of", "published", "display_name", "value", "interval", "n_donors",
        "n_cells", "beside", "note",
    ),
    labels={
        "figure": "Place", "model": "Study's model", "of": "Of", "published": charts.PUBLISHED,
        "display_name": "Model here", "value": "F1 here", "interval": "95 % interval",
        "beside": "Here", "note": "What it leaves open",
    },
    folded="Each statement of the study beside these models",
)  # fmt: skip
st.caption(f"Published points: {view.study.citation}.")
provenance.caption(cache.provenance(scope))
