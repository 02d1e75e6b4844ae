"""Jobs that train: the folds of one series, or every run of a plan."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Final

from backend.data.uploads import find_server_file
from backend.errors import InputError, JobFailed
from backend.jobs.curves import CURVE
from backend.jobs.directory import check_owner
from backend.jobs.requests import RunRequest, SweepRequest, find_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backend.jobs.handlers import JobContext
    from backend.studies.executors.common import Outcome, TaskEvent
    from backend.training.runs import RunEvent, RunResult

__all__ = ["results_folder", "run", "sweep"]


_READING: Final = 0.05
"""Share of a job's progress that reading its data is given."""


def results_folder(home: Path, owner: str, *, is_shared: bool) -> Path:
    """Return where bundles go: everybody's folder, or the owner's own."""
    return home if is_shared else home / "users" / check_owner(owner)


class _Follower:
    """Turns the events of `run_series` into progress, log lines and curves."""

    def __init__(self, context: JobContext, folds: list[Any]) -> None:
        self.context = context
        self.folds = folds
        self.n_over = 0
        self._curve = (context.folder / CURVE).open("a", encoding="utf-8")

    def close(self) -> None:
        self._curve.close()

    def _line(self, event: RunEvent) -> None:
        row: dict[str, Any] = {
            "fold": event.fold,
            "state": event.state,
            "at": round(time.time(), 1),
        }
        row |= {"epoch": event.epoch, "step": event.step, "share": event.share}
        row |= event.row or {}
        text = json.dumps(row, allow_nan=True)
        # NaN is no JSON: a reader in another language would stop there.
        self._curve.write(text.replace("NaN", "null") + "\n")
        self._curve.flush()

    def __call__(self, event: RunEvent) -> None:
        is_over = event.state in ("done", "failed", "skipped")
        self.n_over += is_over
        part = 0.0 if is_over else (event.share or 0.0)
        share = _READING + (1 - _READING) * (self.n_over + part) / len(self.folds)
        words = f"fold {event.fold}: {event.state}{', ' if event.text else ''}{event.text}"
        self.context.progress(min(share, 1.0), words)
        if event.step is not None or is_over:
            self._line(event)
        if event.step is None:
            self.context.log(words)


def _checked_file(name: str, context: JobContext) -> Path:
    """Return the path of a dataset that passes the full check."""
    from backend.data.check import check

    path = find_server_file(name)
    context.progress(0.0, "Checking the file")
    report = check(path, purpose="train")
    for problem in report.problems:
        context.log(f"refused: {problem.message}")
    if report.problems:
        first = report.problems[0]
        raise InputError(first.message, first.hint)
    for note in report.notes:
        context.log(note)
    return path


def _ended(results: list[RunResult], series_id: str) -> dict[str, Any]:
    """Return what the job gives back; raise when no fold was fitted."""
    failed = [result for result in results if result.status == "failed"]
    if len(failed) == len(results):
        msg = f"All {len(results)} fits failed: {failed[0].reason}"
        raise JobFailed(msg, "Each is listed with its reason on the Runs page.")
    return {
        "series_id": series_id,
        "runs": [{"fold": r.fold, "run_id": r.run_id, "status": r.status} for r in results],
        "n_failed": len(failed),
    }


def run(values: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Fit the folds of one series on a dataset of the server."""
    request = RunRequest.of(values)
    path = _checked_file(request.dataset, context)

    from backend.data import cells_table, describe, load
    from backend.splits.stored import stored_split
    from backend.training.runs import build_typer, has_dataset, run_series

    build_typer(request.series("0" * 16))
    context.progress(0.01, "Reading the dataset")
    adata = load(path)
    info = describe(adata)
    out = results_folder(context.home, context.owner, is_shared=request.is_shared)
    split = stored_split(
        out / "splits", adata.obs, request.protocol, dataset_id=info.dataset_id,
        folds=request.folds, seed=request.split_seed, budget=request.budget,
    )  # fmt: skip
    for warning in split.warnings:
        context.log(f"split: {warning}")
    cells = None
    if not has_dataset(out, info.dataset_id):
        context.progress(0.02, "Placing cells on a map")
        cells = cells_table(adata)
    series = request.series(info.dataset_id)
    folds = request.wanted_folds
    with contextlib.closing(_Follower(context, folds)) as follow:
        results = run_series(
            adata, info, cells, split, series, out=out, folds=folds, progress=follow
        )
    return _ended(results, series.series_id)


@contextlib.contextmanager
def _only_sweep(out: Path, plan: str, context: JobContext) -> Iterator[None]:
    from backend.studies.lock import SweepLock

    with SweepLock(out, plan) as lock:
        if lock.notice:
            context.log(lock.notice)
        yield


def sweep(values: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Do every run of a plan on a dataset of the server, once."""
    request = SweepRequest.of(values)
    plan_path = find_plan(request.plan)
    path = _checked_file(request.dataset, context)

    from backend.studies.costs import check_disk
    from backend.studies.executors.common import Outcome, Tally
    from backend.studies.executors.local import LocalExecutor, gpu_names
    from backend.studies.plan import read_plan
    from backend.studies.sweep import prepare

    plan = read_plan(plan_path, dataset=path)
    out = results_folder(context.home, context.owner, is_shared=request.is_shared)
    out.mkdir(parents=True, exist_ok=True)
    gpus = gpu_names()
    tally = Tally()
    with _only_sweep(out, plan_path.name, context):
        planned = prepare(plan, out, is_written=True, say=lambda text: context.progress(0, text))
        check_disk(out, planned.bytes_needed(jobs=1))
        for warning in planned.warnings:
            context.log(f"split: {warning}")
        texts = {each.key: each.text for each in planned.checkpoints if not each.is_done}
        texts |= {each.key: each.text for each in planned.waiting()}

        def show(event: TaskEvent | Outcome) -> None:
            tally.add(event)
            text = texts[event.key]
            if isinstance(event, Outcome):
                reason = f": {event.reason}" if event.reason else ""
                context.log(f"{event.status} {text}{reason}")
                words = f"{tally.n_ended} of {len(texts)} done; {text} {event.status}"
            else:
                words = f"{text}: {event.state} {event.text}".strip()
            share = tally.done / max(1, len(texts))
            context.progress(_READING + (1 - _READING) * share, words)

        outcomes = planned.execute(LocalExecutor(jobs=1, threads=plan.threads, gpus=gpus), show)
    n_failed = sum(outcome.status == "failed" for outcome in outcomes)
    if outcomes and n_failed == len(outcomes):
        msg = f"All {n_failed} runs failed: {outcomes[0].reason}"
        raise JobFailed(msg, "Each is listed with its reason on the Runs page.")
    return {"n_runs": len(planned.runs), "n_done": len(outcomes) - n_failed, "n_failed": n_failed}
