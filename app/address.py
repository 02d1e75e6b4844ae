"""Filters in the address: what a link asks for, and what it says of the page that is shown.

A link that is sent must show the same a year later, so it holds the dataset's id and every choice
that could be another one by default elsewhere, not only those that differ from today's defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from backend.evaluation.wording import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ask", "check_listed", "not_here", "say_what_is_not_here", "write"]

_WRITTEN: Final = "faultline.address"
_NOT_HERE: Final = "faultline.not_here"
_LONGEST: Final = 60
_MOST_NAMED: Final = 5


def ask(key: str, options: Mapping[str, str], default: str, word: str) -> None:
    """Set a widget's state to what the address asks for, before the widget is drawn.

    The address is asked when it says something else than this page wrote into it: at the first
    visit, or after somebody followed a link. Otherwise the widget keeps what was chosen.

    Parameters
    ----------
    key
        URL name, and key of the widget.
    options
        Value to label; a link may name either, as older ones have labels.
    word
        What the value is, for the sentence that says it is not here.
    """
    asked = st.query_params.get(key)
    written = st.session_state.setdefault(_WRITTEN, {}).get(key)
    if asked is not None and asked != written:
        found = next((v for v, label in options.items() if asked in (v, label)), None)
        if found is None:
            not_here(word, [asked])
        st.session_state[key] = default if found is None else found
    elif st.session_state.get(key) not in options:
        # A widget forgets its value when another page is opened from code.
        st.session_state[key] = written if written in options else default


def write(key: str, value: str) -> None:
    """Keep a value in the address."""
    st.session_state.setdefault(_WRITTEN, {})[key] = value
    if st.query_params.get(key) != value:
        st.query_params[key] = value


def check_listed(key: str, labels: Iterable[str], word: str) -> None:
    """Note what a link asks of a widget that has not been drawn yet, and is not among its labels."""
    if key in st.session_state:
        return
    known = set(labels)
    if lost := [name for name in st.query_params.get_all(key) if name not in known]:
        not_here(word, lost)


def not_here(word: str, values: Iterable[str]) -> None:
    """Note what a link asked for and does not get."""
    noted: dict[str, list[Any]] = st.session_state.setdefault(_NOT_HERE, {})
    noted[word] = [str(value)[:_LONGEST] for value in values]


def say_what_is_not_here() -> None:
    """Say what a link asked for that is not here, on the page that it opened."""
    for word, values in st.session_state.pop(_NOT_HERE, {}).items():
        names = ", ".join(f"“{plain(value)}”" for value in values[:_MOST_NAMED])
        more = f" and {len(values) - _MOST_NAMED:,} more" if len(values) > _MOST_NAMED else ""
        st.info(
            f"This link asked for {word} {names}{more}, which is not here. What is shown is "
            "something else.",
            icon=":material/link_off:",
        )
