"""The fits and checkpoints of a plan: what they are, and whether they are done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from backend.config import home
from backend.errors import ModelUnavailable, StoreError
from backend.store.bundle import parse_run
from backend.store.roots import open_root
from backend.studies.executors.common import FitTask, PretrainTask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backend.store.roots import Location
    from backend.studies.plan import Pretraining
    from backend.training.runs import Fold
    from backend.types import Series

__all__ = [
    "PlannedCheckpoint",
    "PlannedRun",
    "State",
    "checkpoint_key",
    "checkpoint_sha256",
    "identified",
]

State = Literal["done", "to do", "failed before"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One fit of a plan.

    key         : series and fold; the same fit is planned once
    checkpoint  : key of the planned checkpoint that it starts from, or None
    run_id      : None while that checkpoint is still to be made
    n_predicted : validation and test cells
    """

    key: str
    text: str
    series: Series
    fold: Fold
    dataset: Path
    split: Path
    display_name: str
    checkpoint: str | None
    identity: dict[str, Any]
    run_id: str | None
    state: State
    reason: str | None
    n_train: int
    n_predicted: int

    @property
    def is_done(self) -> bool:
        """Whether its bundle is there."""
        return self.state == "done"

    @property
    def name(self) -> str:
        """What is fitted, for a table."""
        return self.series.configuration

    @property
    def where(self) -> str:
        """What it is fitted on, for a table."""
        fields = (self.series.protocol, self.series.budget, self.series.label_level)
        return f"{self.dataset.stem} {' '.join(fields)}"

    @property
    def cost_key(self) -> str:
        """What its speed is known by: the preset, or the model of a baseline."""
        return self.series.preset or self.series.model

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the fit."""
        return self.series.settings

    @property
    def seed(self) -> int:
        """Seed of the fit."""
        return self.series.seed

    def task(self, out: Location, *, any_genes: bool = False) -> FitTask:
        """Return it as a task for an executor."""
        return FitTask(
            any_genes=any_genes,
            key=self.key,
            text=self.text,
            display_name=self.display_name,
            dataset=self.dataset,
            split=self.split,
            out=out,
            series=self.series,
            fold=self.fold,
            identity=self.identity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCheckpoint:
    """The checkpoint of one fold that a `[[pretrain]]` table asks for."""

    key: str
    text: str
    made: Pretraining
    fold: Fold
    dataset: Path
    split: Path
    is_done: bool
    n_train: int
    run_id: None = None

    @property
    def state(self) -> str:
        """Whether it is there, for a table."""
        return "registered" if self.is_done else "to do"

    @property
    def name(self) -> str:
        """What is made, for a table."""
        return f"{self.made.preset} → {self.made.name}"

    @property
    def where(self) -> str:
        """What it is made on, for a table."""
        return f"{self.dataset.stem} {self.made.protocol} {self.made.budget}"

    @property
    def cost_key(self) -> str:
        """What its speed is known by."""
        return self.made.preset

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of pre-training."""
        return self.made.settings

    @property
    def seed(self) -> int:
        """Seed of pre-training."""
        return self.made.seed

    def task(self, *, any_genes: bool = False) -> PretrainTask:
        """Return it as a task for an executor."""
        return PretrainTask(
            any_genes=any_genes,
            key=self.key,
            text=self.text,
            dataset=self.dataset,
            split=self.split,
            home=home(),
            model=self.made.model,
            preset=self.made.preset,
            name=self.made.name,
            fold=self.fold,
            settings=self.made.settings,
            seed=self.made.seed,
        )


def identified(run: PlannedRun, out: Location) -> PlannedRun:
    """Return a run with its id and state, as far as its checkpoint is there."""
    series, identity = run.series, dict(run.identity)
    digest = None
    if series.checkpoint is not None:
        digest = checkpoint_sha256(
            series.model, series.checkpoint, identity["split_sha256"], run.fold
        )
        if digest is None:
            return run
    identity["checkpoint_sha256"] = digest
    run_id = series.run_id(fold=run.fold, **identity)
    state, reason = _state(out, run_id)
    return replace(run, identity=identity, run_id=run_id, state=state, reason=reason)


def _state(out: Location, run_id: str) -> tuple[State, str | None]:
    content = open_root(out).read_bytes("runs", run_id, "run.json")
    if content is None:
        return "to do", None
    try:
        record = parse_run(content, run_id)
    except StoreError as error:
        return "failed before", error.message
    return ("done", None) if record.status == "done" else ("failed before", record.reason)


def checkpoint_sha256(model: str, name: str, split_sha256: str, fold: Fold) -> str | None:
    """Return the hash of the checkpoint that a run of a fold starts from, or None."""
    from backend.models.catalogue import find_checkpoint

    try:
        return find_checkpoint(model, name, split_sha256=split_sha256, fold=fold).sha256
    except ModelUnavailable:
        return None


def checkpoint_key(model: str, name: str, split_sha256: str, fold: Fold) -> str:
    """Return what a planned checkpoint is known by."""
    return f"{model}-{name}-{split_sha256[:16]}-{fold}"
