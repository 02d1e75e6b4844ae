"""The head of every page: what it answers, on which data, and a link to what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import filters
from app.components.copy_link import copy_link
from app.state import BUDGET, LABEL_LEVEL, PROTOCOL, current_models, current_scope, current_source
from backend.evaluation.wording import (
    budget_meaning,
    budget_text,
    level_text,
    plain,
    protocol_sentence,
)
from backend.protocols import tested_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.nav import PageInfo

__all__ = ["draw"]


def draw(info: PageInfo, cautions: Sequence[str] = ()) -> None:
    """Draw title, question, data and link of a page.

    Parameters
    ----------
    cautions
        What every score on these labels must carry; a short mark opens them.
    """
    left, right = st.columns(2, vertical_alignment="center")
    left.title(info.title, anchor=False)
    with right.container(
        horizontal=True, horizontal_alignment="right", vertical_alignment="center"
    ):
        if cautions:
            with st.popover("Labels", type="tertiary", icon=":material/info:"):
                st.markdown("\n\n".join(cautions))
        copy_link()
    st.caption(info.question)
    if not info.needs_results:
        return
    _facts(info)
    if current_source().simulated:
        st.warning("Simulated data, not a finding. For a tour and for tests.")
    if words := filters.narrowed(current_scope(), current_models()):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/filter_alt: Only: {plain('; '.join(words))}", width="content")
            st.button("Reset", on_click=filters.reset, type="tertiary", key="filters.reset")


def _facts(info: PageInfo) -> None:
    """Say on one line which data, labels, test and training size are shown; exactly in the help."""
    source = current_source()
    facts, exact = [f"**{plain(source.dataset)}**"], []
    if not source.is_scored:
        facts.append("no cell is scored")
        if not info.needs_labels:
            facts.append(f"types {level_text(source.label_level)}")
        st.markdown(" · ".join(facts))
        return
    if LABEL_LEVEL in info.filters:
        facts.append(f"labels {level_text(source.label_level)}")
        exact.append(f"Labels at level `{source.label_level}`.")
    if PROTOCOL in info.filters:
        facts.append(f"tested on {tested_on(source.protocol)}")
        exact.append(f"{protocol_sentence(source.protocol)}.")
    if BUDGET in info.filters and source.budget:
        facts.append(budget_text(source.budget))
        exact.append(f"Training size `{source.budget}`: {budget_meaning(source.budget)}.")
    st.markdown(" · ".join(facts), help="\n\n".join(exact))
