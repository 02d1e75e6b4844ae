"""Failure map: which cells fail?"""

import streamlit as st

from app import cache
from app.components import errors, provenance, tables
from app.sections.failure_map import page
from app.state import choose_model, current_models, current_scope

scope = current_scope()
models = current_models()

with st.container(horizontal=True, vertical_alignment="bottom"):
    configuration = choose_model(models, width=page.MODEL_WIDTH)
    with errors.shown_to_user():
        cells = cache.cells_on_map(scope, configuration)
    colour_by = page.choose_colour(cells)
    scope = page.choose_types(scope, cells)
    facet_by = page.choose_panels()

in_scope = cells.in_scope(scope)
if not in_scope.any():
    st.info("No cells for this choice. Widen the timepoints, the types or the labels counted.")
    st.stop()

counts = page.counts(cells, in_scope)
st.markdown(page.headline(cells, in_scope, counts))
page.open_link(cells)

with errors.shown_to_user():
    maps = page.maps(scope, cells, in_scope, models, colour_by=colour_by, facet_by=facet_by)
answer, place_of_map = st.container(), st.container()
if map_first := page.is_coloured_anew(colour_by, facet_by):
    page.draw(place_of_map, maps, colour_by=colour_by, models=models)
page.numbers_of_selected(scope, cells, in_scope, configuration, answer=answer)

if page.has_labels(cells):
    st.markdown("##### Outcomes")
    tables.show(
        counts,
        name="outcomes",
        alt_text="Cells and donors per outcome",
        columns=("outcome", "n_cells", "n_donors", "share"),
    )
page.failure_table(scope, cells, in_scope)
provenance.caption(cache.provenance(scope))
if not map_first:
    page.draw(place_of_map, maps, colour_by=colour_by, models=models)
