"""An upload without labels, on pages that speak of scores: what can be said, and what to do."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app import cache, nav
from app.sections.evaluate import beside, outside
from app.state import current_scope, current_source
from backend.errors import FaultlineError
from backend.evaluation.wording import plain

__all__ = ["draw"]


def draw() -> None:
    """Show what needs no label: accuracy to expect, composition by donor, share outside."""
    scope, source = current_scope(), current_source()
    runs = cache.runs_of(scope.owner, scope.dataset_id)
    # At the level of the models, as the answer of the evaluation: by lineage there is neither an
    # expected accuracy nor a malignant type.
    level = str(runs["label_level"].iloc[0])
    scope, source = scope.with_(label_level=level), replace(source, label_level=level)
    st.info(
        f"No cell of {plain(source.dataset)} is scored, and this page is about scores. To have them, "
        "evaluate the file with a column of cell types. What needs no labels stands below.",
        icon=":material/label_off:",
    )
    with st.container(horizontal=True):
        for page, label, icon in (
            ("failure_map", "See the cells on the map", ":material/scatter_plot:"),
            ("evaluate", "Evaluate a file with labels", ":material/upload_file:"),
        ):
            st.page_link(nav.page_file(page), label=label, icon=icon)
    beside.expected(scope, source)
    beside.composition(scope, source)
    names = {}
    for row in runs.itertuples():
        try:
            cache.outside(scope.owner, scope.dataset_id, row.run_id, "donor")
        except FaultlineError:
            # Imported predictions come without a model that could know.
            continue
        names[row.run_id] = row.display_name
    if names:
        st.markdown("##### Does the file belong to what the models know?")
        outside.draw(scope.owner, scope.dataset_id, names, source)
