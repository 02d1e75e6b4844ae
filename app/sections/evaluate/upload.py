"""The first step of Evaluate: a file from the user, from the server, or brought earlier."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Final

import streamlit as st
from streamlit.runtime import get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.identity import identity, readers
from backend.config import data_dirs, home, keep_days
from backend.data.example import bring_example
from backend.data.uploads import (
    delete_upload,
    find_own_file,
    find_server_file,
    find_upload,
    keep_mapping,
    kept_mapping,
    list_uploads,
    save_upload,
    server_files,
)
from backend.errors import FaultlineError, InputError
from backend.evaluation.wording import plain, prose
from backend.jobs.expiry import expires_at
from backend.store.imports import template

if TYPE_CHECKING:
    from pathlib import Path

    from streamlit.runtime.uploaded_file_manager import UploadedFile

__all__ = ["Chosen", "choose", "forget", "keep", "kept", "plain", "privacy", "show"]

UPLOAD: Final = "upload"
"""URL parameter: the id of the upload that the page is about."""
SERVER_FILE: Final = "file"
"""URL parameter: the name of a file of the server."""
OWN_FILE: Final = "path"
"""URL parameter: a path on the machine of the local visitor."""
_ROUND: Final = "evaluate.round"
_MESSAGE: Final = "evaluate.message"

# Short enough for one line on a narrow page; the uploader names the kinds of files.
_CELLS, _TABLE = "Cells with counts", "Predictions of a model"


class Chosen:
    """The file that the page is about.

    kind : "cells" or "table"
    request : what names the file to a job
    """

    def __init__(self, kind: str, name: str, size: int, path: Path, request: dict[str, Any]):
        self.kind, self.name, self.size, self.path, self.request = kind, name, size, path, request


def privacy() -> None:
    """Say what must not be uploaded and how long the rest is kept, before any upload."""
    until = expires_at(keep_days()).strftime("%d %B %Y")
    st.info(
        "Do not upload identifiable patient data. Cell and donor names are stored until "
        f"{until}, readable by {readers()}, and you can delete them at once.",
        icon=":material/privacy_tip:",
    )


def choose() -> Chosen | None:
    """Draw the choice of a file; return it once it lies on the server."""
    owner = identity().owner
    if message := st.session_state.pop(_MESSAGE, None):
        st.error(message, icon=":material/error:")
    if upload_id := st.query_params.get(UPLOAD):
        try:
            upload = find_upload(home(), owner, upload_id)
        except FaultlineError as error:
            del st.query_params[UPLOAD]
            st.error(prose(f"{error.message} {error.hint}"), icon=":material/error:")
        else:
            request = {"upload": upload.upload_id, "name": upload.name}
            return Chosen(upload.kind, upload.name, upload.size, upload.path, request)
    if name := st.query_params.get(SERVER_FILE):
        path = find_server_file(name)
        return Chosen("cells", name, path.stat().st_size, path, {"server_file": name})
    if text := st.query_params.get(OWN_FILE):
        try:
            path = _own_file(text)
        except FaultlineError as error:
            del st.query_params[OWN_FILE]
            st.error(prose(f"{error.message} {error.hint}"), icon=":material/error:")
        else:
            return Chosen(
                "cells",
                path.name,
                path.stat().st_size,
                path,
                {"own_file": str(path), "name": path.name},
            )
    _bring(owner)
    return None


def _bring(owner: str) -> None:
    kind = st.segmented_control(
        "What do you have?", [_CELLS, _TABLE], default=_CELLS, required=True, key="evaluate.kind"
    )
    is_table = kind == _TABLE
    number = st.session_state.setdefault(_ROUND, 0)
    limit = st.get_option("server.maxUploadSize")
    file = st.file_uploader(
        f"Upload a file (up to {limit:,} MB)",
        type=["csv", "tsv", "txt", "gz", "parquet", "xlsx"] if is_table else ["h5ad", "h5", "h5mu"],
        key=f"evaluate.file-{number}",
    )
    if file is not None:
        _keep(owner, file, "table" if is_table else "cells")
    if is_table:
        st.download_button(
            "Template (CSV)",
            template(),
            file_name="faultline-predictions-template.csv",
            mime="text/csv",
            icon=":material/download:",
            help="Needed: cell_id, label, predicted. Everything else is optional.",
        )
    else:
        _offer_large_files(limit)
        if data_dirs():
            _offer_server_files()
        if st.button(
            "Try it with an example",
            icon=":material/science:",
            key="evaluate.example",
            help="Two simulated people, labelled. Nothing of it is a finding.",
        ):
            with st.spinner("Simulating two people …"):
                st.query_params[UPLOAD] = bring_example(home(), owner).upload_id
            st.rerun()
    earlier = [u for u in list_uploads(home(), owner) if (u.kind == "table") == is_table]
    if earlier:
        names = {
            u.upload_id: f"{u.name} ({u.size / 1e6:,.1f} MB, {u.created_at[:10]})" for u in earlier
        }
        again = st.selectbox(
            "Or a file that you uploaded earlier",
            list(names),
            index=None,
            format_func=names.__getitem__,
            placeholder="Choose one",
            key="evaluate.earlier",
        )
        if again:
            st.query_params[UPLOAD] = again
            st.rerun()


def _own_file(text: str) -> Path:
    """Return the file of a path, for a visitor at this machine only."""
    if identity().role != "local":
        msg = "A path is read only for the person who sits at this machine."
        raise InputError(msg, "Upload the file instead.")
    return find_own_file(text)


def _offer_large_files(limit: int) -> None:
    """Say what to do with a file above the limit; offer a path to who sits at this machine."""
    larger = "set FAULTLINE_DATA_DIRS to its folder, or raise the limit with --server.maxUploadSize"
    if identity().role != "local":
        st.caption(f"Larger than {limit:,} MB: whoever runs this server can {larger} (in MB).")
        return
    text = st.text_input(
        f"Or its path on this machine, of any size (above {limit:,} MB this is the way)",
        placeholder="/data/sample.h5ad",
        key="evaluate.own_file",
        help=f"The file is read where it lies, not copied. Or {larger} (in MB).",
    )
    if text:
        try:
            path = _own_file(text)
        except FaultlineError as error:
            st.error(prose(f"{error.message} {error.hint}"), icon=":material/error:")
        else:
            st.query_params[OWN_FILE] = str(path)
            st.rerun()


def _offer_server_files() -> None:
    name = st.selectbox(
        "Or a file on this server",
        server_files(),
        index=None,
        placeholder="Choose one",
        key="evaluate.server_file",
        help="Files in the folders that the administrator listed; any size.",
    )
    if name:
        st.query_params[SERVER_FILE] = name
        st.rerun()


def _keep(owner: str, file: UploadedFile, kind: Any) -> None:
    """Copy an uploaded file to disk, free its memory, and go on with the copy."""
    try:
        upload = save_upload(home(), owner, file, name=file.name, kind=kind)
    except FaultlineError as error:
        st.session_state[_MESSAGE] = prose(f"{error.message} {error.hint}")
    else:
        st.query_params[UPLOAD] = upload.upload_id
    _free(file)
    st.session_state[_ROUND] += 1
    st.rerun()


def _free(file: UploadedFile) -> None:
    """Let go of the bytes now; by itself Streamlit keeps them until the session ends."""
    context = get_script_run_ctx()
    file.close()
    if context is not None:
        # The web server holds what it received; the widget's next number holds nothing.
        manager = get_instance()._uploaded_file_mgr
        manager.remove_file(session_id=context.session_id, file_id=file.file_id)
    gc.collect()


def kept(chosen: Chosen) -> dict[str, str | None]:
    """Return what the user said before of the labels of this upload."""
    upload_id = chosen.request.get("upload")
    return kept_mapping(home(), identity().owner, upload_id) if upload_id else {}


def keep(chosen: Chosen, labels: dict[str, str | None]) -> None:
    """Keep what the user says of the labels with the upload."""
    if upload_id := chosen.request.get("upload"):
        keep_mapping(home(), identity().owner, upload_id, labels)


def show(chosen: Chosen) -> None:
    """Name the file that was chosen, and offer another."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(chosen.name)}** ({chosen.size / 1e6:,.1f} MB)", width="content")
        is_own = "upload" in chosen.request
        words = "Delete it and choose another" if is_own else "Choose another"
        if st.button(words, key="evaluate.other"):
            forget(chosen)


def forget(chosen: Chosen, message: str = "") -> None:
    """Remove the upload, its name from the URL, and start again with a message."""
    if upload_id := chosen.request.get("upload"):
        delete_upload(home(), identity().owner, upload_id)
    if message:
        st.session_state[_MESSAGE] = message
    for name in (UPLOAD, SERVER_FILE, OWN_FILE, "job"):
        st.query_params.pop(name, None)
    st.rerun()
