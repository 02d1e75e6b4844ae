"""What a training job is asked to do. Whether it can be had is for its plan to say."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from backend.config import project_root
from backend.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from backend.studies.plan import Plan
    from backend.training.progress import Folds

__all__ = ["RunRequest", "SweepRequest", "find_plan", "list_plans"]

_FOLDS: Final[dict[str, Folds]] = {"folds": ["all"], "final": ["final"], "both": ["all", "final"]}
"""What `fits` means."""
_PLAN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What both kinds of training jobs name.

    dataset   : name in `backend.data.uploads.server_files`; of an upload what pages call it
    upload    : id of an upload of the job's owner, in the place of a file of the server
    roles     : see `backend.data.inspect_upload.roles_from`; guessed when empty
    is_shared : results are seen by everybody on this server and kept; else by the owner, for the
                days that uploads are kept
    """

    dataset: str
    upload: str = ""
    roles: dict[str, Any] = field(default_factory=dict)
    is_shared: bool = False

    @classmethod
    def of(cls, values: Any) -> Self:
        """Return a request from plain data, whatever that holds, or raise `InputError`."""
        known = {each.name: each for each in dataclasses.fields(cls)}
        needed = {
            name
            for name, each in known.items()
            if dataclasses.MISSING is each.default is each.default_factory
        }
        if not isinstance(values, dict) or set(values) - set(known) or needed - set(values):
            msg = "The request does not name what a training job needs."
            raise InputError(msg, f"It has: {', '.join(known)}.")
        request = cls(**values)
        if request.upload and request.is_shared:
            msg = "What is trained on an upload is seen by its owner alone."
            raise InputError(msg, "Leave the results unshared.")
        return request

    def path(self, home: Path, owner: str) -> Path:
        """Return the file, or raise `InputError`."""
        from backend.data.uploads import find_server_file, find_upload

        if not self.upload:
            return find_server_file(self.dataset)
        upload = find_upload(home, owner, self.upload)
        if upload.kind != "cells":
            msg = f'"{upload.name}" is a table of predictions, which nothing can be trained on.'
            raise InputError(msg, "Choose a file of cells with counts.")
        return upload.path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest(_Request):
    """One series to fit; see `backend.types.Series`.

    fits : `folds` (all of them), `final` (on all donors, saved for predictions), or `both`
    """

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

    def plan(self, dataset: Path) -> Plan:
        """Return the plan of one row that this asks for, or raise as `plan_of_one`."""
        from backend.data.inspect_upload import roles_from
        from backend.studies.plan import plan_of_one

        if self.fits not in tuple(_FOLDS):
            msg = f'There is no choice of fits "{str(self.fits)[:40]}".'
            raise InputError(msg, f"Choose one of: {', '.join(_FOLDS)}.")
        others = ("dataset", "upload", "roles", "is_shared", "fits")
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in others}
        return plan_of_one(
            fields, dataset=dataset, folds=_FOLDS[self.fits], roles=roles_from(self.roles)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest(_Request):
    """Every run of a plan that lies in `plans/`, on one dataset."""

    plan: str

    def read(self, dataset: Path) -> Plan:
        """Return the plan on a file, or raise as `read_plan`."""
        from backend.data.inspect_upload import roles_from
        from backend.studies.plan import read_plan

        plan = read_plan(find_plan(self.plan), dataset=dataset)
        if plan.subset is not None and self.upload:
            msg = f"{plan.name} draws a subset, and that copy would outlive your upload."
            hint = "Draw it yourself (`data subset`) and upload that, or choose another plan."
            raise InputError(msg, hint)
        return dataclasses.replace(plan, roles=roles_from(self.roles) or plan.roles)


def list_plans() -> list[str]:
    """Return the names of the plans that a sweep may follow."""
    return sorted(path.name for path in (project_root() / "plans").glob("*.toml"))


def find_plan(name: str) -> Path:
    """Return the path of a plan, or raise `InputError`."""
    if _PLAN.fullmatch(str(name)) and name in list_plans():
        return project_root() / "plans" / name
    msg = f'There is no plan "{str(name)[:60]}".'
    raise InputError(msg, f"Choose one of: {', '.join(list_plans())}.")
