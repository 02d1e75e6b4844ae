"""Jobs that train: the folds of one series, or every run of a plan."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Final

from backend.config import keep_days
from backend.data.inspect_upload import roles_from
from backend.data.uploads import find_upload
from backend.errors import InputError, JobFailed
from backend.jobs.curves import CURVE
from backend.jobs.directory import check_owner
from backend.jobs.expiry import expires_at
from backend.jobs.requests import RunRequest, SweepRequest
from backend.training.progress import Outcome, ProgressEvent, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backend.jobs.handlers import JobContext
    from backend.studies.plan import Plan
    from backend.studies.prepare import Study

__all__ = ["results_folder", "run", "sweep"]


_READING: Final = 0.05
"""Share of a job's progress that reading its data is given."""


def results_folder(home: Path, owner: str, *, is_shared: bool) -> Path:
    """Return where bundles go: everybody's folder, or the owner's own."""
    return home if is_shared else home / "users" / check_owner(owner)


class _Follower:
    """Turns what an executor tells into progress, log lines and, of one series, curves.

    Parameters
    ----------
    texts
        What each task is called, by key.
    """

    def __init__(self, context: JobContext, texts: Mapping[str, str], *, has_curve: bool) -> None:
        self.context, self.texts, self.tally = context, texts, Tally()
        self._curve = (context.folder / CURVE).open("a", encoding="utf-8") if has_curve else None

    def close(self) -> None:
        if self._curve is not None:
            self._curve.close()

    def _add_to_curve(self, event: ProgressEvent) -> None:
        if self._curve is None:
            return
        row = {"fold": event.fold, "state": event.state, "at": round(time.time(), 1)}
        row |= {"epoch": event.epoch, "step": event.step, "share": event.share}
        # NaN is no JSON: a reader in another language would stop there.
        text = json.dumps(row | dict(event.row or {}), allow_nan=True).replace("NaN", "null")
        self._curve.write(text + "\n")
        self._curve.flush()

    def __call__(self, event: ProgressEvent | Outcome) -> None:
        n_before = self.tally.n_ended
        self.tally.add(event)
        is_over = self.tally.n_ended > n_before
        text = self.texts[event.key]
        if isinstance(event, Outcome):
            words, more = f"{text}: {event.status}", event.reason
        else:
            words, more = f"{text}: {event.state}", event.text
        words += f", {more}" if more else ""
        share = self.tally.done / max(1, len(self.texts))
        self.context.progress(_READING + (1 - _READING) * min(share, 1.0), words)
        if isinstance(event, ProgressEvent):
            if event.step is not None or is_over:
                self._add_to_curve(event)
            if event.step is None:
                self.context.log(words)
        elif is_over:
            # A run that was refused, or whose worker died: nothing else told of its end.
            self.context.log(words)


def _checked_file(request: RunRequest | SweepRequest, context: JobContext) -> Path:
    """Return the path of a dataset that passes the full check."""
    from backend.data.check import check

    path = request.path(context.home, context.owner)
    context.progress(0.0, "Checking the file")
    report = check(path, roles=roles_from(request.roles), purpose="train")
    for problem in report.problems:
        context.log(f"refused: {problem.message}")
    if report.problems:
        first = report.problems[0]
        raise InputError(first.message, first.hint)
    for note in report.notes:
        context.log(note)
    return path


def _facts(request: RunRequest | SweepRequest, context: JobContext) -> dict[str, Any]:
    """Return what pages say of a dataset that somebody brought; nothing of the server's files."""
    if not request.upload:
        return {}
    upload = find_upload(context.home, context.owner, request.upload)
    return {
        "name": request.dataset,
        "source": f"file {upload.name}",
        "file_name": upload.name,
        "uploaded": True,
        "upload_id": upload.upload_id,
        "expires_at": expires_at(keep_days()).isoformat(timespec="seconds"),
    }


def _prepared(
    plan: Plan, out: Path, request: RunRequest | SweepRequest, context: JobContext
) -> Study:
    from backend.studies.costs import check_disk
    from backend.studies.prepare import prepare

    study = prepare(
        plan,
        out,
        is_written=True,
        facts=_facts(request, context),
        say=lambda text: context.progress(0.01, text),
    )
    check_disk(out, study.bytes_needed(jobs=1))
    for warning in study.warnings:
        context.log(f"split: {warning}")
    return study


def _check_any_done(outcomes: list[Outcome], what: str) -> int:
    """Return how many failed; raise when nothing else happened."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed and len(failed) == len(outcomes):
        msg = f"All {len(failed)} {what} failed: {failed[0].reason}"
        raise JobFailed(msg, "Each is listed with its reason on the Runs page.")
    return len(failed)


def run(values: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Fit the folds of one series on a dataset of the server, or on an upload."""
    request = RunRequest.of(values)
    path = _checked_file(request, context)

    from backend.studies.executors.common import InProcess

    out = results_folder(context.home, context.owner, is_shared=request.is_shared)
    study = _prepared(request.plan(path), out, request, context)
    texts = {each.key: f"fold {each.fold}" for each in study.runs}
    with contextlib.closing(_Follower(context, texts, has_curve=True)) as follow:
        for each in study.runs:
            if each.is_done:
                follow(ProgressEvent("skipped", "finished before", key=each.key, fold=each.fold))
        results = study.results(study.execute(InProcess(), follow))
    n_failed = _check_any_done(results, "fits")
    return {
        "series_id": study.runs[0].series.series_id,
        "runs": [{"fold": r.fold, "run_id": r.run_id, "status": r.status} for r in results],
        "n_failed": n_failed,
    }


def sweep(values: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Do every run of a plan on a dataset of the server, or on an upload, once."""
    request = SweepRequest.of(values)
    path = _checked_file(request, context)

    from backend.studies.executors.local import LocalExecutor, gpu_names
    from backend.studies.lock import SweepLock

    plan = request.read(path)
    out = results_folder(context.home, context.owner, is_shared=request.is_shared)
    with SweepLock(out, plan.name) as lock:
        if lock.notice:
            context.log(lock.notice)
        study = _prepared(plan, out, request, context)
        texts = {each.key: each.text for each in study.checkpoints if not each.is_done}
        texts |= {each.key: each.text for each in study.waiting()}
        executor = LocalExecutor(jobs=1, threads=plan.threads, gpus=gpu_names())
        with contextlib.closing(_Follower(context, texts, has_curve=False)) as follow:
            outcomes = study.execute(executor, follow)
    n_failed = _check_any_done(outcomes, "runs")
    return {"n_runs": len(study.runs), "n_done": len(outcomes) - n_failed, "n_failed": n_failed}
