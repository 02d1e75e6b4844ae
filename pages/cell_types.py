"""Cell types: which types are lost, and where?"""

from functools import partial

import streamlit as st

from app import cache
from app.components import errors, figure, frames, heatmap, provenance, tables
from app.components.selection_links import page_links
from app.sections.cell_types.paired import paired_types
from app.sections.cell_types.rows import labelled_rows, lost_types
from app.state import (
    BY,
    CELL_TYPE,
    CONFIGURATION,
    TIMEPOINT,
    choose_model,
    choose_one,
    current_models,
    current_scope,
    go,
    ordered,
)
from backend.evaluation.wording import plain

scope = current_scope()
models = current_models()

left, right = st.columns(2, vertical_alignment="bottom")
with left:
    by = choose_one("Columns", ("model", "timepoint"), BY)
with right:
    chosen = choose_model(models, label="Model" if by == "timepoint" else "Types sorted by")
configuration = chosen if by == "timepoint" else None

with errors.shown_to_user():
    view = cache.f1_by_cell_type(scope, by=by, configuration=configuration)

if view.scores.empty:
    st.info(
        "No scored cells for this choice. Widen the timepoints, the models or the labels counted."
    )
    st.stop()

provenance.described(view.kind, view.n_donors)
lost = lost_types(view.never_predicted, view.zero_f1)
if len(lost):
    frames.name_types(lost, by="kind")

rows = labelled_rows(view.scores, first=None if configuration else chosen)
found = frames.in_order(view.scores["column"], by)
columns = found if configuration else ordered(found, list(models.values()))
answer = st.container()
points = figure.draw(
    partial(
        heatmap.heatmap, view.scores, row="cell_type", column="column", rows=rows, columns=columns,
        row_title="Cell type", column_title="Model" if by == "model" else "Timepoint",
    ),
    name=f"f1-by-cell-type-and-{by}",
    title=f"F1 by cell type and {by}" + (f", {models[configuration]}" if configuration else ""),
    alt_text=f"Heatmap of F1 from 0 to 1, a row per cell type and a column per {by}, worst rows "
    f"first: {', '.join(rows[:3])}. Every cell shows F1, then cells and donors.",
    select=("cell_type", "column"),
)  # fmt: skip
st.caption(
    "In each cell: F1, then labelled cells / donors. Rows that the chosen model loses first. Grey: fewer than 20 cells, "
    f"too few to read as a score. {heatmap.FEW_DONORS}: describes one or two donors, says nothing "
    f"about others. {heatmap.ONE_DONOR}: most cells are one donor's, with its share where there is room. “–”: no labelled cell."
)
if points:
    cell_type, column = points[0]["cell_type"], points[0]["column"]
    picked = configuration or next(key for key, name in models.items() if name == column)
    filters = {CELL_TYPE: [cell_type], CONFIGURATION: picked}
    if by == "timepoint":
        filters[TIMEPOINT] = [column]
    with answer.container(horizontal=True):
        st.button(
            f"See the {plain(cell_type)} cells of {plain(models[picked])} on the failure map",
            key="cell_types.see",
            icon=":material/scatter_plot:",
            on_click=go,
            args=("failure_map",),
            kwargs=filters,
        )
        st.button(
            f"See what {plain(models[picked])} mistakes the {plain(cell_type)} cells for",
            key="cell_types.confusions",
            icon=":material/table_chart:",
            on_click=go,
            args=("confusions",),
            kwargs=filters,
        )
else:
    page_links()

st.markdown("##### The same numbers as a table")
tables.show(
    view.scores,
    name=f"f1-by-cell-type-and-{by}",
    alt_text=f"F1, precision and recall per cell type and {by}, with cells and donors",
    columns=(
        "cell_type", "column", "f1", "low", "high", "precision", "recall", "n_cells", "n_donors",
        "top_donor_share", "is_small", "n_predicted_absent", "interval",
    ),
    labels={"column": "Model" if by == "model" else "Timepoint"},
)  # fmt: skip
if configuration:
    paired_types(scope, configuration, models[configuration])
provenance.caption(cache.provenance(scope))
