"""Genes: which genes separate the cells that fail?"""

import streamlit as st

from app import cache
from app.components import errors, provenance
from app.sections.genes import page
from app.state import choose_model, current_models, current_scope
from backend.evaluation.wording import plain

scope = current_scope()
models = current_models()

with errors.shown_to_user():
    expression = cache.expression_of(scope)
if expression is None:
    page.without_counts(scope)
    st.stop()

above = st.container()
with st.container(horizontal=True, vertical_alignment="bottom"):
    configuration = choose_model(models, width=page.MODEL_WIDTH)
    with above:
        chosen = page.choose_cells(configuration)
    with errors.shown_to_user():
        pairs = cache.pairs_of_failures(scope, configuration, chosen)
    if pairs.empty:
        st.info("No labelled cell fails for this choice. Widen the timepoints or the types.")
        st.stop()
    pair = page.choose_pair(pairs)
    against = page.choose_against(pair)
    adjust_for_depth = page.choose_depth()

with errors.shown_to_user():
    view = cache.separating_genes(
        scope, configuration, expression, label=pair.label, predicted=pair.predicted, against=against,
        adjust_for_depth=adjust_for_depth, chosen=chosen,
    )  # fmt: skip

st.markdown(plain(" ".join(view.sentences)))
page.pictures(view)
page.numbers(view)
provenance.caption(cache.provenance(scope))
