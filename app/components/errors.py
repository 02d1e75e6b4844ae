"""Refusals become a message and a hint on the page; faults stay faults."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import streamlit as st

from backend.errors import FaultlineError
from backend.evaluation.wording import prose

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["shown_to_user"]

_log = logging.getLogger(__name__)


@contextmanager
def shown_to_user() -> Iterator[None]:
    """Show a `FaultlineError` as message and hint and stop the page; let others pass."""
    try:
        yield
    except FaultlineError as error:
        reference = uuid4().hex[:8]
        _log.warning("page refused [%s]", reference, exc_info=error)
        st.error(f"{prose(error.message)}\n\n{prose(error.hint)}".strip(), icon=":material/error:")
        st.caption(f"Reference for the log: {reference}")
        st.stop()
