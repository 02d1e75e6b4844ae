"""Entry of the dashboard: page frame, shared filters, navigation."""

import streamlit as st

from app import address, cache, filters, header, identity, nav, state
from app.components import errors, export, figure
from app.sections.evaluate import unlabelled
from backend.evaluation.wording import prose

st.set_page_config(page_title="Faultline", page_icon=str(nav.ICON), layout="wide")

st.logo(str(nav.WORDMARKS[figure.is_dark()]), size="large", icon_image=str(nav.ICON))
body, footer = st.container(), st.container()
footer.divider()
footer.caption(export.FOOTER)
with body:
    identity.gate()
page, info = nav.navigation()
st.set_page_config(page_title=f"{info.title} · Faultline")

with body, errors.shown_to_user():
    choices = cache.scope_choices(identity.identity().owner)
    if notice := cache.store_notice():
        st.caption(f":material/info: {prose(notice)} All results are complete.")
    if choices.empty and info.needs_results:
        st.title(info.title, anchor=False)
        st.info(
            "There are no results yet. Fit a model with `python -m backend run --help`, or start "
            "with the shipped results in `precomputed/`.",
            icon=":material/info:",
        )
        st.stop()
    if not choices.empty:
        with st.sidebar:
            filters.sidebar_scope(
                choices,
                cache.configurations,
                cache.timepoints,
                lambda scope: cache.provenance(scope).n_cells,
                drawn=info.filters,
                needs_labels=info.needs_labels,
            )
            filters.sidebar_metric(is_drawn=info.has_metric and state.current_source().is_scored)
    with st.sidebar:
        identity.sign_out_button()
    if target := state.pop_target():
        st.switch_page(nav.page_file(target[0]), query_params=target[1])
    shows_results = info.needs_results
    header.draw(info, cache.provenance(state.current_scope()).cautions if shows_results else ())
    address.say_what_is_not_here()
    if shows_results and info.needs_labels and not state.current_source().is_scored:
        unlabelled.draw()
    else:
        page.run()
