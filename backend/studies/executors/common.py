"""What every executor runs: one task a process, its outcome, and how a dead worker is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from backend.store.roots import Location
    from backend.training.pretrain import PretrainEvent
    from backend.training.runs import Fold, RunEvent
    from backend.types import Series

__all__ = [
    "ATTEMPTS",
    "Executor",
    "FitTask",
    "Outcome",
    "PretrainTask",
    "Tally",
    "Task",
    "TaskEvent",
    "execute",
    "leave_failure",
]

ATTEMPTS: Final = 2
"""A task whose worker died is tried once more; it goes on from its last checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTask:
    """One fold of a series.

    split : local path of the frozen split, readable wherever the task runs
    out   : folder or URL of the bundles
    """

    key: str
    text: str
    display_name: str
    dataset: Path
    any_genes: bool = False
    split: Path
    out: Location
    series: Series
    fold: Fold
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainTask:
    """The checkpoint of one fold, made on that fold's training cells."""

    key: str
    text: str
    dataset: Path
    any_genes: bool = False
    split: Path
    home: Path
    model: str
    preset: str
    name: str
    fold: Fold
    settings: Mapping[str, Any]
    seed: int


Task = FitTask | PretrainTask


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """A task entered a state, such as `started`, `fitting`, `predicting` or `retried`.

    share : part of the task that is over (0–1), with the events of a fit under way
    """

    key: str
    state: str
    text: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended; `skipped` means that its result was already there."""

    key: str
    status: Literal["done", "failed", "skipped"]
    reason: str | None = None
    wall_seconds: float | None = None
    attempts: int = 1


class Tally:
    """How many tasks are over, in tasks: each that ended counts 1, one under way its share."""

    def __init__(self) -> None:
        self.n_ended = 0
        self._shares: dict[str, float] = {}

    def add(self, event: TaskEvent | Outcome) -> None:
        """Take what an executor told."""
        if isinstance(event, Outcome):
            self.n_ended += 1
            self._shares.pop(event.key, None)
        elif event.share is not None:
            self._shares[event.key] = event.share
        elif event.state in ("started", "retried"):
            self._shares.pop(event.key, None)

    @property
    def done(self) -> float:
        """Tasks that are over, with those under way in part."""
        return self.n_ended + sum(self._shares.values())


class Executor(Protocol):
    """Runs tasks somewhere; gives their outcomes as they come."""

    def run(
        self, tasks: Sequence[Task], tell: Callable[[TaskEvent | Outcome], None]
    ) -> list[Outcome]:
        """Run all tasks; a failed one never stops the others. Ends its workers if interrupted."""


@lru_cache(maxsize=1)
def _dataset(path: Path, *, any_genes: bool) -> tuple[Any, Any]:
    """Return cells and facts of a dataset; a worker keeps the last one."""
    from backend.data import describe, load

    adata = load(path, any_genes=any_genes)
    return adata, describe(adata)


def execute(task: Task, tell: Callable[[TaskEvent], None]) -> Outcome:
    """Run one task in this process.

    Refusals come back as failed outcomes; faults of this program are raised.
    """
    from backend.errors import FaultlineError
    from backend.splits import Split

    tell(TaskEvent(task.key, "started"))
    try:
        adata, info = _dataset(task.dataset, any_genes=task.any_genes)
        split = Split.load(task.split)
        if isinstance(task, PretrainTask):
            return _pretrain(task, adata, info, split, tell)
        return _fit(task, adata, info, split, tell)
    except FaultlineError as error:
        return Outcome(task.key, "failed", str(error))


def _fit(
    task: FitTask, adata: Any, info: Any, split: Any, tell: Callable[[TaskEvent], None]
) -> Outcome:
    from backend.training.runs import run_series

    def show(event: RunEvent) -> None:
        tell(TaskEvent(task.key, event.state, event.text, event.share))

    result = run_series(
        adata,
        info,
        None,
        split,
        task.series,
        # A URL is passed on as it is.
        out=cast("Path", task.out),
        folds=[task.fold],
        progress=show,
    )[0]
    return Outcome(task.key, result.status, result.reason, result.wall_seconds)


def _pretrain(
    task: PretrainTask, adata: Any, info: Any, split: Any, tell: Callable[[TaskEvent], None]
) -> Outcome:
    import importlib
    import time

    def show(event: PretrainEvent) -> None:
        tell(TaskEvent(task.key, event.state, event.text, event.share))

    started = time.perf_counter()
    pretrain_series = importlib.import_module("backend.training.pretrain").pretrain_series
    pretrain_series(
        adata,
        info,
        split,
        model=task.model,
        preset=task.preset,
        name=task.name,
        home=task.home,
        folds=[task.fold],
        settings=dict(task.settings),
        seed=task.seed,
        progress=show,
    )
    return Outcome(task.key, "done", None, time.perf_counter() - started)


def leave_failure(task: Task, reason: str) -> None:
    """Leave a `failed` bundle of a run whose worker died, so that it is seen and tried again."""
    if not isinstance(task, FitTask):
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
