"""What a training job is asked to do: checked when it is queued, and again when it runs."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from backend.config import project_root
from backend.errors import InputError
from backend.types import INITS, LABEL_LEVELS, PROTOCOLS, Series

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RunRequest", "SweepRequest", "find_plan", "list_plans"]

_BUDGET: Final = re.compile(r"full|equal|cap[1-9]\d{0,5}")
_PLAN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\.toml")


def _of(kind: type, values: Any) -> Any:
    """Return a request from plain data, whatever that holds."""
    known = {each.name: each for each in dataclasses.fields(kind)}
    if not isinstance(values, dict) or set(values) - set(known):
        msg = "The request does not name what a training job needs."
        raise InputError(msg, f"It has: {', '.join(known)}.")
    return kind(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One series to fit.

    dataset   : name in `backend.data.uploads.server_files`
    fits      : `folds` (all of them), `final` (on all cells, saved for predictions), or `both`
    is_shared : results are seen by everybody on this server and kept; else by the owner, for the
                days that uploads are kept
    """

    dataset: str
    model: str
    preset: str | None = None
    init: str = "scratch"
    checkpoint: str | None = None
    protocol: str = "donor"
    folds: int = 5
    fits: str = "folds"
    split_seed: int = 0
    budget: str = "equal"
    label_level: str = "lineage"
    fraction: float = 1.0
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    is_shared: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("init", self.init, INITS),
            ("protocol", self.protocol, PROTOCOLS),
            ("label level", self.label_level, LABEL_LEVELS),
            ("choice of fits", self.fits, ("folds", "final", "both")),
        ):
            if value not in known:
                msg = f'There is no {name} "{str(value)[:40]}".'
                raise InputError(msg, f"Choose one of: {', '.join(known)}.")
        for name, number, low, high in (
            ("The number of folds", self.folds, 2, 20),
            ("The seed of the split", self.split_seed, 0, 2**31),
            ("The seed of the fit", self.seed, 0, 2**31),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
                msg = f"{name} is {number!r}."
                raise InputError(msg, f"Give a whole number from {low} to {high}.")
        if not isinstance(self.fraction, int | float) or not 0 < self.fraction <= 1:
            msg = f"The share of training cells is {self.fraction!r}."
            raise InputError(msg, "Give a number above 0, up to 1.")
        if not _BUDGET.fullmatch(str(self.budget)):
            msg = f'There is no budget "{str(self.budget)[:40]}".'
            raise InputError(msg, "Choose equal, full, or capN for N cells a donor, as cap500.")
        if not isinstance(self.settings, dict):
            msg = f"The settings are {self.settings!r}."
            raise InputError(msg, "Give them as NAME=VALUE.")

    @classmethod
    def of(cls, values: Any) -> RunRequest:
        """Return a request from plain data, or raise `InputError`."""
        request: RunRequest = _of(cls, values)
        return request

    def series(self, dataset_id: str) -> Series:
        """Return the series that this asks for on a dataset."""
        return Series(
            dataset_id=dataset_id, protocol=self.protocol, folds=self.folds,
            split_seed=self.split_seed, budget=self.budget, model=self.model, preset=self.preset,
            init=self.init,  # type: ignore[arg-type]  # one of INITS, checked above
            checkpoint=self.checkpoint, label_level=self.label_level, fraction=self.fraction,
            settings=self.settings, seed=self.seed,
        )  # fmt: skip

    @property
    def wanted_folds(self) -> list[Any]:
        """The folds to fit, `final` last."""
        folds: list[Any] = [] if self.fits == "final" else list(range(self.folds))
        return folds if self.fits == "folds" else [*folds, "final"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """Every run of a plan that lies in `plans/`, on one dataset."""

    dataset: str
    plan: str
    is_shared: bool = False

    @classmethod
    def of(cls, values: Any) -> SweepRequest:
        """Return a request from plain data, or raise `InputError`."""
        request: SweepRequest = _of(cls, values)
        return request


def list_plans() -> list[str]:
    """Return the names of the plans that a sweep may follow."""
    return sorted(path.name for path in (project_root() / "plans").glob("*.toml"))


def find_plan(name: str) -> Path:
    """Return the path of a plan, or raise `InputError`."""
    if _PLAN.fullmatch(str(name)) and name in list_plans():
        return project_root() / "plans" / name
    msg = f'There is no plan "{str(name)[:60]}".'
    raise InputError(msg, f"Choose one of: {', '.join(list_plans())}.")
