"""Donors: is it one patient?"""

from functools import partial

import streamlit as st

from app import cache
from app.components import errors, figure, frames, heatmap, provenance, tables
from app.components.selection_links import cells_in_a_donor, open_buttons, page_links
from app.sections.donors.rows import donor_order, donor_sentence, laid_out
from app.state import choose_model, current_metric, current_models, current_scope
from backend.evaluation.wording import plain

scope = current_scope()
models = current_models()
metric = current_metric()
configuration = choose_model(models)
with errors.shown_to_user():
    view = cache.scores_by_donor(scope, configuration, metric.key)

if view.scores.empty:
    st.info(
        f"No scored cells of {view.display_name} ({view.status_text}). Choose another model, or "
        "widen the timepoints or the labels counted."
    )
    st.stop()

provenance.described(view.kind, view.totals.donor.nunique())
st.markdown(donor_sentence(view.totals, models[configuration]))
scores = frames.with_donor_names(view.scores)
donors = donor_order(scores)
cell_types = frames.in_order(scores.cell_type, "cell_type")
answer = st.container()
layout = laid_out(donors, cell_types)
points = figure.draw(
    partial(heatmap.heatmap, scores, **layout, with_n=("n_cells",)),
    name="f1-by-donor",
    title=f"F1 by donor and cell type, {models[configuration]}",
    alt_text=f"Heatmap of F1 from 0 to 1, a row for each of {len(donors)} donors and a column "
    "per cell type. Every cell shows F1 and the number of cells.",
    select=("donor_name", "cell_type"),
)
written = (
    "F1; labelled cells stand in its tooltip and in the table"
    if layout["is_compact"]
    else "F1, then labelled cells"
)
st.caption(
    f"In each cell, with room: {written}. Grey: fewer than 20 cells. Empty: no labelled cell. "
    "A click leads to the cells."
)
if points:
    cells = cells_in_a_donor(points[0], scores, scope.with_(cell_types=()))
    with answer.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{plain(points[0]['cell_type'])} cells of {plain(points[0]['donor_name'])}:")
        open_buttons(cells, name="donors", configuration=configuration)
else:
    page_links()
tables.show(
    scores,
    name="f1-by-donor",
    alt_text="F1 per donor and cell type with the number of cells",
    columns=("donor", "timepoint", "cell_type", "f1", "n_cells", "is_small"),
    folded="The same numbers as a table",
)

composition = frames.with_donor_names(view.composition)
figure.draw(
    partial(
        heatmap.heatmap, composition,
        **laid_out(donor_order(composition), frames.in_order(composition.cell_type, "cell_type")),
        with_n=(), value="difference", diverging=True,
    ),
    name="composition-by-donor",
    title=f"Predicted minus labelled share of cells, {models[configuration]}",
    alt_text="Heatmap of the predicted minus the labelled share of each cell type per donor, in "
    "percentage points; orange where the model finds too many, blue where too few.",
)  # fmt: skip
st.caption(
    "Percentage points of a donor's labelled cells. Orange: the model calls more cells of this "
    "type than are labelled; blue: fewer."
)
tables.show(
    composition,
    name="composition-by-donor",
    alt_text="Labelled and predicted share of every cell type per donor",
    columns=(
        "donor", "timepoint", "cell_type", "labelled_share", "predicted_share", "difference",
        "n_cells",
    ),
    folded="The same numbers as a table",
)  # fmt: skip
st.markdown("##### Donors in all")
tables.show(
    view.totals,
    name="donors",
    alt_text=f"{metric.title} and cells of every donor",
    columns=("donor", "timepoint", "value", "n_cells", "n_types"),
)
provenance.caption(cache.provenance(scope))
