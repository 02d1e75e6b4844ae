"""What every executor runs: one task, its outcome, and how a dead worker is told."""

from __future__ import annotations

import importlib
import time
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from backend.errors import FaultlineError
from backend.studies.planned_runs import PlannedCheckpoint, PlannedRun, Task
from backend.training.progress import Outcome, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from backend.data.roles import Roles

__all__ = [
    "ATTEMPTS",
    "Executor",
    "InProcess",
    "execute",
    "leave_failure",
    "read_dataset",
]

ATTEMPTS: Final = 2
"""A task whose worker died is tried once more; it goes on from its last checkpoint."""


class Executor(Protocol):
    """Runs tasks somewhere; gives their outcomes as they come."""

    def run(
        self, tasks: Sequence[Task], tell: Callable[[ProgressEvent | Outcome], None]
    ) -> list[Outcome]:
        """Run all tasks; a failed one never stops the others. Ends its workers if interrupted."""


class InProcess:
    """Runs of this process, one after the other, on the data that the plan was prepared with.

    A model that fails leaves a failed outcome; what is refused before a fit is raised.
    """

    def run(
        self, tasks: Sequence[Task], tell: Callable[[ProgressEvent | Outcome], None]
    ) -> list[Outcome]:
        """Run all tasks, those of a series together: it is checked as a whole."""
        outcomes: list[Outcome] = []
        for _, same in groupby(tasks, lambda task: task.key.partition("-")[0]):
            outcomes += _run(list(same), tell)
        for outcome in outcomes:
            tell(outcome)
        return outcomes


@lru_cache(maxsize=1)
def read_dataset(
    path: Path, *, any_genes: bool, roles: Roles | None = None
) -> tuple[Any, Any, list[str]]:
    """Return cells, facts and notes of a dataset; a process keeps the last one."""
    from backend.data import describe, load

    notes: list[str] = []
    adata = load(path, roles, any_genes=any_genes, notes=notes)
    return adata, describe(adata), notes


def execute(task: Task, tell: Callable[[ProgressEvent], None]) -> Outcome:
    """Run one task in this process.

    Refusals come back as failed outcomes; faults of this program are raised.
    """
    tell(ProgressEvent("started", key=task.key, fold=task.fold))
    try:
        return _run([task], tell)[0]
    except FaultlineError as error:
        return Outcome(task.key, "failed", str(error), fold=task.fold)


def _run(tasks: Sequence[Task], tell: Callable[[ProgressEvent], None]) -> list[Outcome]:
    """Run a checkpoint, or folds of one series."""
    from backend.splits import Split
    from backend.training.runs import run_series

    task = tasks[0]
    adata, info, _ = read_dataset(task.dataset, any_genes=task.any_genes, roles=task.roles)
    split = Split.load(task.split)
    if isinstance(task, PlannedCheckpoint):
        return [_pretrain(task, adata, info, split, tell)]
    return run_series(
        adata,
        info,
        split,
        task.series,
        # A URL is passed on as it is.
        out=cast("Path", task.out),
        folds=[each.fold for each in tasks],
        progress=tell,
        **task.options,
    )


def _pretrain(
    task: PlannedCheckpoint,
    adata: Any,
    info: Any,
    split: Any,
    tell: Callable[[ProgressEvent], None],
) -> Outcome:
    started = time.perf_counter()
    # Imports torch, which the baselines do without.
    pretrain_series = importlib.import_module("backend.training.pretrain").pretrain_series
    pretrain_series(
        adata,
        info,
        split,
        model=task.series.model,
        preset=task.series.preset,
        name=task.checkpoint_name,
        home=task.home,
        folds=[task.fold],
        settings=dict(task.series.settings),
        seed=task.series.seed,
        progress=lambda event: tell(replace(event, key=task.key)),
    )
    return Outcome(task.key, "done", None, time.perf_counter() - started, fold=task.fold)


def leave_failure(task: Task, reason: str) -> None:
    """Leave a `failed` bundle of a run whose worker died, so that it is seen and tried again."""
    if not isinstance(task, PlannedRun):
        return
    from backend.store.bundle import RunRecord, write_run

    record = RunRecord.for_series(
        task.series,
        status="failed",
        reason=reason,
        error_kind="JobFailed",
        display_name=task.display_name,
        fold=task.fold,
        **task.identity,
    )
    write_run(str(task.out), record, None, log=f"failed: {reason}\n")
