"""Failure map: which cells fail?"""

from functools import partial

import streamlit as st

from app import cache
from app.components import cell_map, errors, figure, frames, provenance, tables
from app.state import CELL_TYPE, choose_model, current_models, current_scope

WIDTH = 215

scope = current_scope()
models = current_models()

with st.container(horizontal=True, vertical_alignment="bottom"):
    configuration = choose_model(models, width=WIDTH)
    with errors.shown_to_user():
        view = cache.failures(scope, configuration)
    colour_by = st.selectbox(
        "Colour by", cell_map.COLOUR_BY, key="colour", bind="query-params", width=WIDTH
    )
    cell_types = st.multiselect(
        "Labelled as",
        frames.labels_of(view.cells),
        key=CELL_TYPE,
        bind="query-params",
        placeholder="All types",
        width=WIDTH,
    )
    facet = st.toggle("A map per timepoint", key="facet", bind="query-params")

if cell_types:
    view = cache.failures(scope.with_(cell_types=tuple(cell_types)), configuration)
cells = view.cells
if cells.empty:
    st.info("No cells for this choice. Widen the timepoints, the types or the truth.")
    st.stop()

counts = frames.with_share(view.counts)
sentence = frames.outcome_sentence(counts, view.display_name, view.threshold)
st.markdown(sentence)

drawn = cell_map.choose_cells(cells)
figure.draw(
    partial(
        cell_map.cell_map,
        drawn.cells,
        colour_by=colour_by,
        counts=frames.counts_of(cells, colour_by),
        families=frames.families_of(cells),
        facet_by_timepoint=facet,
        timepoints=frames.in_order(cells.timepoint.dropna(), "timepoint"),
    ),
    name=f"failure-map-by-{colour_by}",
    title=f"Cells of {models[configuration]} by {colour_by}",
    alt_text=f"Map of cells coloured by {colour_by}, failures on top; the sentence above and the "
    "tables below say the same.",
)
st.caption(
    f"{drawn.words} Failures are drawn larger: triangles wrong, diamonds confidently wrong. "
    "UMAP is for display only; distances between groups are not evidence."
)

st.markdown("##### Outcomes")
tables.show(
    counts,
    name="outcomes",
    alt_text="Cells and donors per outcome",
    columns=("outcome", "n_cells", "n_donors", "share"),
)
st.markdown("##### Failures, most confident first")
failed = frames.failures_first(cells)
tables.show(
    failed,
    name="failures",
    alt_text="Cells whose predicted type differs from the label, most confident first",
    columns=(
        "cell_id", "label", "predicted", "confidence", "outcome", "donor", "timepoint", "sample",
        "genotype", "label_source",
    ),
    height=420,
)  # fmt: skip
provenance.caption(cache.provenance(scope))
