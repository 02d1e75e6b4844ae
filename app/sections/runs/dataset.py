"""The dataset to train on: a file of the server, or one's own upload with its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app.identity import identity, readers
from app.sections.evaluate import check
from app.sections.evaluate.upload import Chosen
from backend.config import home, keep_days
from backend.data.uploads import find_upload, list_uploads, server_files
from backend.evaluation.wording import prose

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["choices", "choose"]


def choices(owner: str) -> dict[tuple[str, str], str]:
    """Return (kind, name or id) → label: the server's files, then the uploads of an owner."""
    found = {("file", name): name for name in server_files()}
    for upload in list_uploads(home(), owner):
        if upload.kind == "cells":
            size, day = f"{upload.size / 1e6:,.1f} MB", upload.created_at[:10]
            found["upload", upload.upload_id] = f"{upload.name} (your upload, {size}, {day})"
    return found


def choose(found: Mapping[tuple[str, str], str]) -> dict[str, Any] | None:
    """Draw the choice of a dataset; return its part of a request, None where it cannot be used."""
    kind, name = st.selectbox(
        "Dataset", list(found), format_func=found.__getitem__, key="runs.dataset"
    )
    if kind == "file":
        return {"dataset": name}
    upload = find_upload(home(), identity().owner, name)
    request = {"upload": upload.upload_id, "name": upload.name}
    chosen = Chosen(upload.kind, upload.name, upload.size, upload.path, request)
    seen = check.look(chosen, {})
    if seen["problems"]:
        problem = seen["problems"][0]
        st.error(prose(f"{problem['message']} {problem['hint']}"), icon=":material/error:")
        return None
    with st.expander("Columns", expanded=not {"cell_type", "donor"} <= set(seen["facts"]["roles"])):
        roles = check.choose_roles(chosen, seen)
        timepoints = check.map_timepoints(seen, str(request))
    st.caption(
        f"What is trained on an upload is kept {keep_days():g} days, seen by {readers()}, and can be "
        "deleted at once on this page."
    )
    return {
        "dataset": check.name_of(chosen, seen),
        "upload": upload.upload_id,
        "roles": roles | {"timepoints": timepoints},
    }
