"""Confusions: what are cells mistaken for, and how bad is it?"""

import streamlit as st

from app import cache
from app.components import errors, provenance
from app.sections.confusions import page
from app.state import choose_model, current_models, current_scope

scope = current_scope()
models = current_models()

with st.container(horizontal=True, vertical_alignment="bottom"):
    configuration = choose_model(models, width=page.MODEL_WIDTH)
    beside = page.choose_beside(models, configuration)
    numbers = page.choose_numbers()
    order = page.choose_order()
    flow = page.choose_flow()

shown = [configuration] if beside is None else [configuration, beside]
with errors.shown_to_user():
    views = [cache.confusions(scope, name) for name in shown]

st.markdown("\n\n".join(" ".join(view.sentences) for view in views))
if not all(view.n_cells for view in views):
    st.info("No scored cells for this choice. Widen the timepoints or the labels counted.")
    st.stop()

# The choice of cells stands below the pictures, which outline what is chosen.
above = st.container()
chosen = page.choose_cells(scope, views, models, order)
with above:
    page.pictures(views, chosen, numbers=numbers, order=order, of=flow)
    if beside is not None:
        page.disagreement(scope, models, configuration, beside, order)
page.selected(scope, chosen, configuration)
page.tables_of(views)
provenance.caption(cache.provenance(scope))
