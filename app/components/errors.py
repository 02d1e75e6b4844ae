"""Refusals become a message and a hint on the page; faults stay faults."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import streamlit as st

from backend.errors import FaultlineError
from backend.evaluation.wording import prose
from backend.files import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["shown_to_user"]

_log = logging.getLogger(__name__)


def _of_the_system(error: OSError) -> FaultlineError | None:
    """Explain a full disk or a missing permission without the server's paths."""
    name = Path(str(error.filename)).name if error.filename else None
    return explained(type(error)(error.errno, error.strerror, name) if error.errno else error)


@contextmanager
def shown_to_user() -> Iterator[None]:
    """Show a `FaultlineError` as message and hint and stop the page; let others pass."""
    try:
        yield
    except (FaultlineError, OSError) as refused:
        error = refused if isinstance(refused, FaultlineError) else _of_the_system(refused)
        if error is None:
            raise
        reference = uuid4().hex[:8]
        _log.warning("page refused [%s]", reference, exc_info=refused)
        st.error(f"{prose(error.message)}\n\n{prose(error.hint)}".strip(), icon=":material/error:")
        st.caption(f"Reference for the log: {reference}")
        st.stop()
