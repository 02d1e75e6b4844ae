"""Jobs on pages: their state, progress, log and curves, and what their owner may do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app import cache, nav
from app.components import training_curves
from app.identity import identity, readers
from app.state import Source
from backend.config import home, keep_days
from backend.errors import FaultlineError, InputError
from backend.evaluation.wording import plain, plural, prose
from backend.jobs.curves import live_curves
from backend.jobs.directory import (
    cancel_job,
    create_job,
    delete_job,
    list_jobs,
    read_log,
    read_request,
    read_status,
    retry_job,
)
from backend.jobs.expiry import delete_all, expires_at
from backend.jobs.workers import list_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.jobs.directory import JobStatus

__all__ = [
    "JOB",
    "VIEW",
    "VIEWS",
    "all_of_owner",
    "apply_view",
    "device_sentence",
    "leave",
    "one_job",
    "start",
    "your_data",
]

JOB: Final = "job"
"""URL parameter: the job that the page is about."""
VIEWS: Final = ("Runs", "Jobs", "Start a run", "Saved selections")
VIEW: Final = "runs_view"
"""URL parameter: which of them the Runs page shows."""
_MESSAGE: Final = "jobs.message"
_NEXT_VIEW: Final = "jobs.next_view"
_NAMES: Final = {
    "evaluate": "Evaluation of a file", "place": "Compute a map", "run": "Training",
    "sweep": "Sweep",
}  # fmt: skip
_OUTCOMES: Final = {
    "queued": ("gray", "schedule"), "running": ("blue", "play_circle"),
    "done": ("green", "check_circle"), "finished with failures": ("orange", "warning"),
    "failed": ("red", "error"), "cancelled": ("gray", "cancel"),
}  # fmt: skip
"""Colour and icon of a job's outcome."""
_SECONDS: Final = 2.0
"""Between two looks at a job that is open."""


def device_sentence() -> str:
    """Say what the living workers would compute on."""
    workers = list_workers(home())
    if not workers:
        return (
            "No worker is running, so jobs wait. Start one with `python -m backend worker`, or the "
            "dashboard with `python -m backend serve`."
        )
    gpus = sorted({gpu for worker in workers for gpu in worker.gpus})
    found = f"GPU found: {', '.join(gpus)}." if gpus else "No GPU was found: fits run on the CPU."
    return f"{plural(len(workers), 'worker')} running. {found}"


def _check_writer() -> str:
    """Return the owner when they may write; asked again at every action, not only when drawn."""
    who = identity()
    if not who.may_write:
        raise InputError(who.reason or "You may not change anything here.")
    return who.owner


def start(kind: str, request: dict[str, Any]) -> None:
    """Put a job into the queue and lead the page to it."""
    st.query_params[JOB] = create_job(home(), kind, request, owner=_check_writer())
    # The choice of the view is drawn already, so it can only be changed before the next time.
    st.session_state[_NEXT_VIEW] = "Jobs"
    st.rerun()


def apply_view() -> None:
    """Change the view of the Runs page when something asked for it; before it is drawn."""
    view = st.session_state.pop(_NEXT_VIEW, None)
    if JOB in st.query_params and VIEW not in st.query_params and VIEW not in st.session_state:
        view = "Jobs"
    if view:
        st.session_state[VIEW] = view


def leave() -> None:
    """Go from one job back to all; for callbacks."""
    st.query_params.pop(JOB, None)


def _open(job_id: str) -> None:
    st.query_params[JOB] = job_id


def _do(action: Callable[..., Any], job_id: str) -> None:
    """Do something with a job from a button; keep a refusal for the next run of the page."""
    try:
        action(home(), job_id, owner=_check_writer())
    except FaultlineError as error:
        st.session_state[_MESSAGE] = str(error)
        return
    if action is delete_job and st.query_params.get(JOB) == job_id:
        del st.query_params[JOB]


def _message() -> None:
    if text := st.session_state.pop(_MESSAGE, None):
        st.warning(text)


def _title(status: JobStatus) -> str:
    request = read_request(home(), status.job_id, owner=status.owner)
    words = [_NAMES.get(status.kind, status.kind)]
    words += [str(request[name]) for name in ("preset", "plan") if request.get(name)]
    if not request.get("preset") and request.get("model"):
        words.append(str(request["model"]))
    fields = ("configuration", "protocol", "dataset", "name")
    words += [str(request[name]) for name in fields if request.get(name)]
    return plain(" · ".join(words))


def _buttons(status: JobStatus) -> None:
    """Draw what may be done with a job in its state."""
    may = identity().may_write
    actions = (
        ("Cancel", cancel_job, status.is_open, ":material/cancel:"),
        ("Retry", retry_job, not status.is_open, ":material/refresh:"),
        ("Delete", delete_job, status.state != "running", ":material/delete:"),
    )
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if status.kind == "evaluate":
            st.page_link(
                nav.page_file("evaluate"), label="Open", icon=":material/open_in_new:",
                query_params={JOB: status.job_id},
            )  # fmt: skip
        elif status.job_id != st.query_params.get(JOB):
            # A link to the page itself would leave the browser's address as it is.
            st.button(
                "Open", icon=":material/open_in_new:", type="tertiary", on_click=_open,
                args=(status.job_id,), key=f"jobs.open.{status.job_id}",
            )  # fmt: skip
        for label, action, is_possible, icon in actions:
            if is_possible:
                st.button(
                    label, icon=icon, type="tertiary", disabled=not may,
                    help=identity().reason, on_click=_do, args=(action, status.job_id),
                    key=f"jobs.{label.lower()}.{status.job_id}",
                )  # fmt: skip


def _head(status: JobStatus) -> None:
    colour, icon = _OUTCOMES[status.outcome]
    badge = f":{colour}-badge[:material/{icon}: {status.outcome}]"
    st.markdown(f"{badge} **{_title(status)}**")
    words = [f"Made {status.created_at[:16].replace('T', ' ')} UTC"]
    if status.attempt > 1:
        words.append(f"attempt {status.attempt}")
    if status.host:
        words.append(f"on {plain(status.host)}")
    if status.ended_at:
        until = expires_at(keep_days(), status.ended_at)
        words.append(f"kept until {until:%d %B %Y}")
    st.caption(", ".join(words))
    if status.is_open:
        st.progress(status.progress, text=plain(status.message) or "Working")
    elif status.state == "failed":
        st.error(prose(f"{status.message} {status.hint}"), icon=":material/error:")


def one_job(job_id: str) -> None:
    """Show the job of the URL: followed while it is open, then as it ended."""
    status = read_status(home(), job_id, owner=identity().owner)
    with st.container(border=True):
        if status.is_open:
            _follow(job_id)
        else:
            _ended(status)


@st.fragment(run_every=_SECONDS)
def _follow(job_id: str) -> None:
    status = read_status(home(), job_id, owner=identity().owner)
    if not status.is_open:
        cache.refresh()
        st.rerun()
    _message()
    _head(status)
    if status.state == "queued" and not list_workers(home()):
        st.warning(device_sentence())
    st.caption("You can close this tab: the address of this page leads back to the job.")
    _details(status)


def _ended(status: JobStatus) -> None:
    _message()
    _head(status)
    result = status.result or {}
    if "runs" in result:
        st.markdown(
            f"{plural(len(result['runs']), 'fit')} of series {plain(result['series_id'])}, "
            f"{result['n_failed']} failed."
        )
    elif "n_runs" in result:
        st.markdown(
            f"{plural(result['n_runs'], 'run')} in the plan: {result['n_done']} done now, "
            f"{result['n_failed']} failed."
        )
    if status.n_failed:
        st.warning(
            "A series with a failed fit has no headline number. The log has the reasons; Retry does "
            "only what failed.",
            icon=":material/warning:",
        )
    _details(status)


def _details(status: JobStatus) -> None:
    _buttons(status)
    request = read_request(home(), status.job_id, owner=status.owner)
    if status.kind == "run":
        curves = live_curves(home(), status.job_id, owner=status.owner)
        source = Source(
            str(request.get("dataset")), False, str(request.get("label_level")),  # noqa: FBT003
            str(request.get("protocol")), "all",
        )  # fmt: skip
        training_curves.draw(curves, name="live", source=source)
    with st.expander("Log", expanded=status.state == "failed" or bool(status.n_failed)):
        log = read_log(home(), status.job_id, owner=status.owner)
        st.code(log or "nothing yet", language=None)


def all_of_owner() -> None:
    """List the owner's jobs, newest first; looked at again while one is open."""
    found = list_jobs(home(), owner=identity().owner)
    _message()
    st.caption(device_sentence())
    if not found:
        st.info("No jobs. Training and evaluations that you start are listed here.")
    elif any(status.is_open for status in found):
        _follow_all()
    else:
        _rows(found)


@st.fragment(run_every=_SECONDS)
def _follow_all() -> None:
    found = list_jobs(home(), owner=identity().owner)
    if not any(status.is_open for status in found):
        cache.refresh()
        st.rerun()
    _message()
    _rows(found)


def _rows(found: list[JobStatus]) -> None:
    n_open = sum(status.is_open for status in found)
    st.markdown(f"{plural(len(found), 'job')}, {n_open} waiting or running.")
    for status in found:
        with st.container(border=True):
            _head(status)
            _buttons(status)


def _forget_all() -> None:
    try:
        delete_all(home(), owner=_check_writer())
    except FaultlineError as error:
        st.session_state[_MESSAGE] = str(error)
        return
    st.query_params.pop(JOB, None)
    cache.refresh()


def your_data() -> None:
    """Say how long things are kept, and let their owner delete all of them at once."""
    who = identity()
    with st.expander("Your data on this server"):
        st.markdown(
            f"Jobs, uploads with their results, and saved selections can be seen by {readers()}. "
            f"They are deleted {keep_days():g} days after they were made or last used."
        )
        st.checkbox("Delete all of it now", key="jobs.sure", disabled=not who.may_write)
        st.button(
            "Delete", icon=":material/delete_forever:", on_click=_forget_all, help=who.reason,
            key="jobs.delete_all", disabled=not st.session_state.get("jobs.sure"),
        )  # fmt: skip
