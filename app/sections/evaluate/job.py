"""A job of Evaluate: its progress, and the way to its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app import cache
from app.components import export
from app.identity import identity
from app.sections.evaluate import beside, outside
from app.state import DATASET, LABEL_LEVEL, Source, go
from backend.config import home, keep_days
from backend.data.uploads import delete_upload, user_folder
from backend.errors import FaultlineError
from backend.evaluation.wording import plain, plural, prose
from backend.jobs.directory import (
    cancel_job,
    create_job,
    delete_job,
    read_log,
    read_request,
    read_status,
)
from backend.jobs.expiry import expires_at
from backend.jobs.workers import list_workers
from backend.store.bundle import delete_dataset
from backend.types import EXTERNAL, Scope

if TYPE_CHECKING:
    import pandas as pd

    from backend.jobs.directory import JobStatus

__all__ = ["JOB", "start", "watch"]

JOB: Final = "job"
"""URL parameter: the job that the page is about."""
_PAGES: Final = {
    "timepoints": "Timepoints",
    "cell_types": "Cell types",
    "donors": "Donors",
    "confusions": "Confusions",
    "failure_map": "Failure map",
}
"""Where the answer leads beside Overview."""
_SIMULATED: Final = (
    "This sample is simulated: its expression is made up, and models trained on real cells know "
    "nothing like it. The scores show how this page works; they say nothing about the models."
)
_WORDS: Final = (
    "F1 weighs the cells of a type that are missed against those wrongly called so, from 0 to 1; "
    "macro-F1 is its mean over the types with at least 20 labelled cells."
)


def start(request: dict[str, Any]) -> None:
    """Put the request into the queue and watch it."""
    st.query_params[JOB] = create_job(home(), "evaluate", request, owner=identity().owner)
    st.rerun()


def watch() -> None:
    """Show the job of the URL: its progress while it is open, then its results."""
    status = read_status(home(), st.query_params[JOB], owner=identity().owner)
    if status.is_open:
        _progress()
    elif status.state == "done":
        _results(status)
    else:
        _ended(status)


@st.fragment(run_every=1.0)
def _progress() -> None:
    owner, job_id = identity().owner, st.query_params[JOB]
    status = read_status(home(), job_id, owner=owner)
    if not status.is_open:
        cache.refresh()
        st.rerun()
    st.progress(status.progress, text=plain(status.message) or "Working")
    if status.state == "queued" and not list_workers(home()):
        st.warning(
            "No worker is running, so the job waits. Start one with `python -m backend worker`, or "
            "start the dashboard with `python -m backend serve`."
        )
    st.caption("You can close this tab: the address of this page leads back to the job.")
    if st.button("Cancel", key="evaluate.cancel"):
        cancel_job(home(), job_id, owner=owner)
    _log(job_id, owner)


def _log(job_id: str, owner: str) -> None:
    with st.expander("Log"):
        st.code(read_log(home(), job_id, owner=owner) or "nothing yet", language=None)


def _again() -> None:
    for name in (JOB, "upload", "file", "path"):
        st.query_params.pop(name, None)


def _ended(status: JobStatus) -> None:
    text = "The job was cancelled." if status.state == "cancelled" else status.message
    st.error(prose(f"{text} {status.hint}"), icon=":material/error:")
    _log(status.job_id, status.owner)
    st.button("Start again", on_click=_again, key="evaluate.again")


def _results(status: JobStatus) -> None:
    result = status.result or {}
    dataset_id = str(result["dataset_id"])
    choices = cache.scope_choices(status.owner)
    if dataset_id not in set(choices["dataset_id"]):
        cache.refresh()
        choices = cache.scope_choices(status.owner)
    if dataset_id not in set(choices["dataset_id"]):
        st.warning("The results were deleted or have expired.")
        st.button("Evaluate another file", on_click=_again, key="evaluate.again")
        return
    own = choices[choices["dataset_id"] == dataset_id]
    if own["simulated"].iloc[0]:
        st.warning(_SIMULATED, icon=":material/science:")
    st.markdown("\n".join(f"- {sentence}" for sentence in _sentences(result)))
    if notes := _notes(result):
        with st.expander(f"What was changed, lost or assumed ({len(notes)})"):
            st.markdown("\n".join(f"- {note}" for note in notes))
    # Before the answer, which is long with many models; at the label level that was scored.
    target = {DATASET: dataset_id, LABEL_LEVEL: str(result["label_level"])}
    with st.container(horizontal=True):
        st.button(
            "Open the results",
            type="primary",
            icon=":material/overview:",
            on_click=go,
            args=("overview",),
            kwargs=target,
            key="evaluate.open",
        )
        for page, label in _PAGES.items():
            st.button(
                label,
                type="tertiary",
                on_click=go,
                args=(page,),
                kwargs=target,
                key=f"evaluate.to.{page}",
            )
        st.button("Evaluate another file", on_click=_again, key="evaluate.again")
        with st.popover("Delete", icon=":material/delete:"):
            st.markdown("This deletes the file and its results. It cannot be undone.")
            st.button(
                "Delete file and results now",
                type="primary",
                on_click=_delete,
                args=(status.job_id,),
                key="evaluate.delete",
            )
    _answer(status, result, own)
    until = expires_at(keep_days(), status.ended_at).strftime("%d %B %Y")
    st.caption(f"The results open on every page. They are stored until {until}.")
    is_simulated = bool(own["simulated"].iloc[0])
    _own_labels(status, result, is_simulated=is_simulated)
    if any(share is not None for share in result.get("outside", {}).values()):
        _outside(status, result, is_simulated=is_simulated)
    _log(status.job_id, status.owner)


def _answer(status: JobStatus, result: dict[str, Any], choices: pd.DataFrame) -> None:
    """Say how each model did on the file, before any other page is opened."""
    choices = choices[choices["label_level"] == result["label_level"]]
    # A model that joined a known dataset has its own protocol among that dataset's.
    own = choices[choices["protocol"] == result.get("protocol", EXTERNAL)]
    row = (choices if own.empty else own).iloc[0]
    scope = Scope(
        dataset_id=str(result["dataset_id"]),
        owner=status.owner,
        label_level=row["label_level"],
        protocol=row["protocol"],
        budget=row["budget"],
    )
    source = _source(result, is_simulated=bool(row["simulated"]))
    if not source.is_scored:
        beside.expected(scope, source)
        beside.composition(scope, source)
        return
    runs = cache.runs_of(status.owner, scope.dataset_id)
    away = result.get("outside", {})
    st.markdown("##### How the models did on this file")
    found = beside.in_order(cache.answers(scope), scope)
    if found:
        expected = outside.EXPECTED if any(share is not None for share in away.values()) else ""
        st.caption(f"{found[0].about()} {_WORDS} {expected}")
    for answer in found:
        mine = runs.loc[runs["series_id"].isin(answer.series), "run_id"]
        shares = [away[run_id] for run_id in mine if away.get(run_id) is not None]
        first, *told = answer.sentences()
        told += [f"{outside.share_text(share)}." for share in shares]
        st.markdown(
            f"**{plain(answer.display_name)}.** {first}\n\n"
            + "\n".join(f"- {sentence}" for sentence in told)
        )
    beside.scores(scope, source)


def _own_labels(status: JobStatus, result: dict[str, Any], *, is_simulated: bool) -> None:
    """Offer the file's own labels with what became of each, where some could not be mapped."""
    if not result.get("n_unmapped"):
        return
    labels = cache.own_labels(status.owner, str(result["run_ids"][0]))
    source = _source(result, is_simulated=is_simulated)
    st.download_button(
        "Labels of the file and what they count as (CSV)",
        export.csv_bytes(labels, source),
        file_name=export.file_name(source, "own-labels", "csv"),
        mime="text/csv",
        icon=":material/download:",
        key="evaluate.own_labels",
        help="Cells that are not mapped keep their own label here.",
    )


def _source(result: dict[str, Any], *, is_simulated: bool) -> Source:
    """Return what pictures and files of the job's page say of the upload."""
    return Source(
        dataset=str(result["name"]),
        simulated=is_simulated,
        label_level=str(result["label_level"]),
        protocol=EXTERNAL,
        truth="all",
        is_upload=True,
        is_scored=_is_scored(result),
    )


def _is_scored(result: dict[str, Any]) -> bool:
    """Say whether any cell has a score; an import counts its labelled cells only."""
    return bool(result.get("n_scored", result["n_cells"] - result["n_unlabelled"]))


def _sentences(result: dict[str, Any]) -> list[str]:
    n = result["n_cells"]
    if "n_scored" not in result:
        models = ", ".join(plain(str(name)) for name in result["models"])
        lost = result["n_unlabelled"]
        told = [f"{plural(n, 'cell')} with predictions of {models}, imported and not run here."]
        if lost:
            told.append(f"{plural(lost, 'cell')} without a label: not scored.")
        return told
    if result["n_unlabelled"] == n:
        return [f"{plural(n, 'cell')} named. The file has no labels, so nothing is scored."]
    said = [f"{plural(n, 'cell')} predicted, {result['n_scored']:,} of them scored."]
    for count, what in (
        ("n_unlabelled", "without a label"),
        ("n_unmapped", "with a label that the models cannot output"),
        ("n_in_training", "in training"),
        ("n_empty", "without counts, which get no call"),
    ):
        if result.get(count):
            verb = "was" if result[count] == 1 else "were"
            were = f" {verb}" if count == "n_in_training" else ""
            said.append(f"{plural(result[count], 'cell')}{were} {what}: predicted, not scored.")
    return said


def _notes(result: dict[str, Any]) -> list[str]:
    """Return what was changed, lost or assumed, as sentences."""
    return [
        prose(note[:1].upper() + note[1:].rstrip(".") + ".") for note in result.get("notes", [])
    ]


def _outside(status: JobStatus, result: dict[str, Any], *, is_simulated: bool) -> None:
    """Show which cells do not belong to what the models know."""
    dataset_id = str(result["dataset_id"])
    names = _names(status.owner, dataset_id)
    shares = {run: share for run, share in result["outside"].items() if share is not None}
    st.markdown("##### Does the file belong to what the models know?")
    source = _source(result, is_simulated=is_simulated)
    if not source.is_scored:
        # Beside a score it stands in the answer.
        said = [(plain(names.get(run_id, run_id)), share) for run_id, share in shares.items()]
        st.markdown(f"{outside.shares_text(said)} {outside.EXPECTED}")
    outside.draw(status.owner, dataset_id, {run: names.get(run, run) for run in shares}, source)


def _names(owner: str, dataset_id: str) -> dict[str, str]:
    runs: pd.DataFrame = cache.runs_of(owner, dataset_id)
    return dict(zip(runs["run_id"], runs["display_name"], strict=True))


def _delete(job_id: str) -> None:
    """Remove the upload, its results and its job; only for callbacks."""
    owner = identity().owner
    status = read_status(home(), job_id, owner=owner)
    request = read_request(home(), job_id, owner=owner)
    try:
        delete_dataset(user_folder(home(), owner), str((status.result or {}).get("dataset_id")))
    except FaultlineError as error:
        st.session_state["evaluate.message"] = prose(error.message)
    if request.get("upload"):
        delete_upload(home(), owner, str(request["upload"]))
    delete_job(home(), job_id, owner=owner)
    _again()
    cache.refresh()
