"""The selections that a person saved: what each is, its link, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import streamlit as st

from app import cache, state
from app.components.selection_links import SELECTION
from app.identity import identity, readers
from backend.config import home, keep_days
from backend.evaluation.cells.selection import delete_selection, list_selections, scope_of
from backend.evaluation.wording import plain, plural
from backend.jobs.expiry import expires_at
from backend.types import TRUTHS

if TYPE_CHECKING:
    from backend.evaluation.cells.selection import KeptSelection, SavedSelection

__all__ = ["link", "show"]

_PAGE: Final = "failure_map"
"""The page that shows any selection."""
_ASKED: Final = "selections.asked"
_SHOWN: Final = 50
_FILTERS: Final = {
    "dataset_id": state.DATASET, "label_level": state.LABEL_LEVEL, "protocol": state.PROTOCOL,
    "budget": state.BUDGET, "truth": state.TRUTH, "timepoints": state.TIMEPOINT,
    "configuration": state.CONFIGURATION,
}  # fmt: skip
"""Field of a selection's scope to the filter that it is."""


def _filters(selection: SavedSelection) -> dict[str, Any]:
    scope = selection.scope
    neutral = {"truth": "all"}
    return {
        key: scope[field]
        for field, key in _FILTERS.items()
        if scope.get(field) and scope[field] != neutral.get(field)
    }


def link(selection_id: str, selection: SavedSelection, owner: str) -> str:
    """Return the address of the page that shows a selection with the filters that it was made in."""
    asked = _filters(selection)
    if state.TRUTH in asked:
        asked[state.TRUTH] = TRUTHS[asked[state.TRUTH]]
    if state.CONFIGURATION in asked:
        models = cache.configurations(scope_of(selection, owner))
        names = dict(zip(models["configuration"], models["display_name"], strict=True))
        # An address names a model as the page does; without it the page opens on its own choice.
        asked[state.CONFIGURATION] = names.get(asked[state.CONFIGURATION], ())
    query = urlencode(asked | {SELECTION: selection_id}, doseq=True)
    # The page that is open is the last part of its own address.
    root = (st.context.url or "").rstrip("/").removesuffix("/runs")
    return f"{root}/{_PAGE}?{query}"


def show() -> None:
    """List the selections of the person who looks, newest first."""
    who = identity()
    found = list_selections(home(), who.owner)
    if not found:
        st.info("No saved selections. “Save as link” beside selected cells keeps them here.")
        return
    choices = cache.scope_choices(who.owner).drop_duplicates("dataset_id")
    names = dict(zip(choices["dataset_id"], choices["name"], strict=True))
    st.markdown(f"{plural(len(found), 'selection')}, seen by {readers()}.")
    for kept in found[:_SHOWN]:
        with st.container(border=True):
            _row(kept, names)
    if len(found) > _SHOWN:
        st.caption(f"The {_SHOWN} newest are shown; older ones are deleted by themselves.")


def _row(kept: KeptSelection, names: dict[str, str]) -> None:
    until = expires_at(keep_days(), kept.kept_at.isoformat())
    kept_words = f"saved {kept.kept_at:%Y-%m-%d %H:%M} UTC, kept until {until:%d %B %Y}"
    selection = kept.selection
    if selection is None:
        st.markdown(f"**Damaged selection** `{kept.selection_id}`")
        st.caption(f"Its file cannot be read; {kept_words}.")
    else:
        st.markdown(
            f"**{plain(selection.name or 'Without a name')}**: {plain(selection.describe())}"
        )
        dataset = names.get(selection.dataset_id)
        if dataset is None:
            st.caption(f"Its dataset is not here any more; {kept_words}.")
        else:
            st.caption(f"Of {plain(dataset)}; {kept_words}.")
            st.code(
                link(kept.selection_id, selection, identity().owner), language=None, wrap_lines=True
            )
    with st.container(horizontal=True, gap="small"):
        if selection is not None and selection.dataset_id in names:
            st.button(
                "Open", icon=":material/open_in_new:", type="tertiary", on_click=_open,
                args=(kept.selection_id, selection), key=f"selections.open.{kept.selection_id}",
            )  # fmt: skip
        _end(kept.selection_id)


def _open(selection_id: str, selection: SavedSelection) -> None:
    # `go` puts a name into the address that no widget has held in this session.
    st.session_state.pop(SELECTION, None)
    state.go(_PAGE, **_filters(selection), **{SELECTION: selection_id})


def _end(selection_id: str) -> None:
    """Draw the button that deletes a selection; it asks once."""
    who = identity()
    if st.session_state.get(_ASKED) != selection_id:
        st.button(
            "Delete", icon=":material/delete:", type="tertiary", on_click=_ask, help=who.reason,
            args=(selection_id,), disabled=not who.may_write,
            key=f"selections.delete.{selection_id}",
        )  # fmt: skip
        return
    st.markdown("Delete it? Its links lead nowhere then.", width="content")
    st.button(
        "Delete", icon=":material/delete_forever:", on_click=_delete, args=(selection_id,),
        key=f"selections.sure.{selection_id}",
    )  # fmt: skip
    st.button("Keep", type="tertiary", on_click=_ask, args=("",), key="selections.keep")


def _ask(selection_id: str) -> None:
    st.session_state[_ASKED] = selection_id


def _delete(selection_id: str) -> None:
    who = identity()
    st.session_state.pop(_ASKED, None)
    if who.may_write:
        delete_selection(home(), who.owner, selection_id)
