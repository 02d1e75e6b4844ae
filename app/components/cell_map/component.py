"""The map in the browser: what is sent to it, and what it sends back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app.components import selection_links
from backend.evaluation.cells.message import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from backend.evaluation.cells.coordinates import Coordinates

__all__ = ["BUNDLE", "Columns", "heard", "mount", "mount_answer", "send_again"]

BUNDLE: Final = Path(__file__).parent / "frontend" / "dist"

_ANSWER_CSS: Final = """
p {
  margin: 0; min-height: 1.4em; font: 14px/1.4 var(--st-font, sans-serif);
  color: var(--st-text-color); overflow-wrap: anywhere;
}
"""

_map = st.components.v2.component(
    "faultline_cell_map",
    css=(BUNDLE / "cell_map_style.css").read_text(encoding="utf-8"),
    js=(BUNDLE / "cell_map.js").read_text(encoding="utf-8"),
)
_answer = st.components.v2.component(
    "faultline_cell_answer",
    css=_ANSWER_CSS,
    js=(BUNDLE / "cell_answer.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, eq=False)
class Columns:
    """One byte a cell each, as `message.encode` takes them."""

    category: np.ndarray
    continuous: np.ndarray
    facet: np.ndarray
    flags: np.ndarray


@dataclass(slots=True)
class _Sent:
    """What the browser got last: the version of the content, and whether x and y went along."""

    version: str
    with_coordinates: bool


def _heard_key(key: str) -> str:
    return f"cell_map.{key}.heard"


def _hear(key: str) -> None:
    state = st.session_state.get(key)
    event = state.get("event") if state else None
    if event is None:
        return
    st.session_state[_heard_key(key)] = event
    if isinstance(event, dict) and event.get("kind") in {"lasso", "box"}:
        # The address would go on naming the cells of before.
        selection_links.drop_link()


def heard(key: str) -> Any:
    """Return what the map of this key sent since the last call, as it came; None for nothing."""
    return st.session_state.pop(_heard_key(key), None)


def send_again(key: str, coordinates: Coordinates) -> None:
    """Send x and y with the next message: the browser does not have them."""
    st.session_state.pop(f"cell_map.{key}.sent", None)
    held = st.session_state.get("cell_map.held", ())
    st.session_state["cell_map.held"] = tuple(t for t in held if t != coordinates.token)


def _version(columns: Columns, header: Mapping[str, Any], token: str) -> str:
    digest = hashlib.blake2b(repr((sorted(header.items()), token)).encode(), digest_size=8)
    for column in (columns.category, columns.continuous, columns.facet, columns.flags):
        digest.update(memoryview(column))
    return digest.hexdigest()


def mount(key: str, coordinates: Coordinates, columns: Columns, header: dict[str, Any]) -> int:
    """Put the map on the page; return the size of its message in bytes.

    The browser keeps coordinates by token, so they go along only with the first message of a
    session that needs them. A message that did not change is built as it was before: Streamlit
    then sends its hash alone.
    """
    version = _version(columns, header, coordinates.token)
    sent: _Sent | None = st.session_state.get(f"cell_map.{key}.sent")
    held: tuple[str, ...] = st.session_state.get("cell_map.held", ())
    if sent is None or sent.version != version:
        sent = _Sent(version, coordinates.token not in held)
        st.session_state[f"cell_map.{key}.sent"] = sent
        # As many as the browser keeps.
        others = [t for t in held if t != coordinates.token]
        st.session_state["cell_map.held"] = (*others, coordinates.token)[-3:]
    message = encode(
        coordinates,
        category=columns.category,
        continuous=columns.continuous,
        facet=columns.facet,
        flags=columns.flags,
        header={**header, "version": version},
        with_coordinates=sent.with_coordinates,
    )
    _map(key=key, data=message, on_event_change=partial(_hear, key))
    return len(message)


def mount_answer(key: str, answer: Mapping[str, Any]) -> None:
    """Put the line on the page that says what the cell under the pointer is."""
    _answer(key=key, data=dict(answer))
