"""Kinds of jobs: which function does the work, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from backend.errors import JobFailed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KINDS", "JobContext", "Kind", "kind_named"]


class JobContext(Protocol):
    """What a handler `run(request, context) -> dict` gets beside its request.

    folder : the job's own folder, for files that live as long as the job
    home   : the folder of store, runs, jobs and uploads
    owner  : whose job it is; what it writes for that owner goes below `home/users/<owner>`
    """

    folder: Path
    home: Path
    owner: str

    def progress(self, share: float, message: str = "") -> None:
        """Say how far the work is, from 0 to 1, and what it does now."""

    def log(self, text: str) -> None:
        """Add a line to the log that the owner reads; no paths, no tracebacks."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of job is run.

    target     : `module:function`, imported only in the job's own process
    memory_gib : address space without a GPU, resident memory of all its processes with one
    hours      : wall clock
    uses_gpu   : whether the function takes a GPU where there is one
    """

    target: str
    memory_gib: float = 16.0
    hours: float = 6.0
    uses_gpu: bool = False


KINDS: Final[dict[str, Kind]] = {
    "evaluate": Kind("backend.jobs.evaluate:run", uses_gpu=True),
    "place": Kind("backend.jobs.compute_map:run"),
    "run": Kind("backend.jobs.training:run", memory_gib=64.0, hours=7 * 24.0, uses_gpu=True),
    "sweep": Kind("backend.jobs.training:sweep", memory_gib=64.0, hours=14 * 24.0, uses_gpu=True),
}


def kind_named(name: str) -> Kind:
    """Return a kind of job, or raise `JobFailed` with the known ones."""
    if name not in KINDS:
        msg = f'There is no job of the kind "{name[:40]}".'
        raise JobFailed(msg, f"Kinds: {', '.join(sorted(KINDS))}.")
    return KINDS[name]


Result = dict[str, Any]
"""What a handler returns: small and plain, it becomes part of the job's status."""
