"""The fits and checkpoints of a plan on its data: what they are, and whether they are done.

They are the tasks that executors run, also in other processes, so they hold no data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from backend.errors import ModelUnavailable, StoreError
from backend.models.catalogue import find_checkpoint
from backend.store.bundle import parse_run
from backend.store.roots import open_root

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backend.data.roles import Roles
    from backend.store.roots import Location
    from backend.training.progress import Fold
    from backend.types import Series

__all__ = [
    "PlannedCheckpoint",
    "PlannedRun",
    "State",
    "Task",
    "checkpoint_key",
    "checkpoint_sha256",
]

State = Literal["done", "to do", "failed before", "registered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """What a fit and a checkpoint share.

    key    : the same thing is planned once
    split  : local path of the frozen split, readable wherever the work is done
    series : model, split, settings and seed
    """

    key: str
    text: str
    dataset: Path
    any_genes: bool = False
    roles: Roles | None = None
    split: Path
    fold: Fold
    series: Series
    n_train: int

    @property
    def cost_key(self) -> str:
        """What its speed is known by: the preset, or the model of a baseline."""
        return self.series.preset or self.series.model

    @property
    def uses_gpu(self) -> bool:
        """Whether it takes a GPU where there is one."""
        return self.series.preset is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun(_Planned):
    """One fold of a series.

    out         : folder or URL of the bundles
    options     : further keywords of `run_series`
    checkpoint  : key of the planned checkpoint that it starts from, or None
    identity    : what beside series and fold makes the id
    run_id      : None while that checkpoint is still to be made
    n_predicted : validation and test cells
    """

    out: Location
    options: Mapping[str, Any] = field(default_factory=dict)
    display_name: str
    checkpoint: str | None
    identity: dict[str, Any]
    run_id: str | None = None
    state: State = "to do"
    reason: str | None = None
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
    def fitted_on(self) -> str:
        """What it is fitted on, for a table."""
        fields = (self.series.protocol, self.series.budget, self.series.label_level)
        return f"{self.dataset.stem} {' '.join(fields)}"

    def identified(self) -> Self:
        """Return it with its id and state, as far as its checkpoint is there."""
        series, identity, digest = self.series, dict(self.identity), None
        if series.checkpoint is not None:
            digest = checkpoint_sha256(
                series.model, series.checkpoint, identity["split_sha256"], self.fold
            )
            if digest is None:
                return self
        identity["checkpoint_sha256"] = digest
        run_id = series.run_id(fold=self.fold, **identity)
        state, reason = _state(self.out, run_id)
        return replace(self, identity=identity, run_id=run_id, state=state, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCheckpoint(_Planned):
    """The checkpoint of one fold that a `[[pretrain]]` table asks for.

    home            : folder whose `checkpoints/` takes it
    checkpoint_name : under which it is registered
    """

    home: Path
    checkpoint_name: str
    is_done: bool
    run_id: None = None

    @property
    def state(self) -> State:
        """Whether it is there, for a table."""
        return "registered" if self.is_done else "to do"

    @property
    def name(self) -> str:
        """What is made, for a table."""
        return f"{self.series.preset} → {self.checkpoint_name}"

    @property
    def fitted_on(self) -> str:
        """What it is made on, for a table."""
        return f"{self.dataset.stem} {self.series.protocol} {self.series.budget}"


Task = PlannedRun | PlannedCheckpoint


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
    try:
        return find_checkpoint(model, name, split_sha256=split_sha256, fold=fold).sha256
    except ModelUnavailable:
        return None


def checkpoint_key(model: str, name: str, split_sha256: str, fold: Fold) -> str:
    """Return what a planned checkpoint is known by."""
    return f"{model}-{name}-{split_sha256[:16]}-{fold}"
