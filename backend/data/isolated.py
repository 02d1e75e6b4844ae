"""Check a file in a child process, because bytes made to harm can crash the HDF5 library itself."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.data.check import CheckReport, check
from backend.data.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from backend.data.roles import Roles

__all__ = ["check_isolated"]


def check_isolated(
    path: str | Path,
    *,
    quick: bool = False,
    roles: Roles | None = None,
    purpose: str = "train",
    progress: AbstractContextManager[Callable[[int, int, str], None]] | None = None,
) -> CheckReport:
    """Do what `check` does; a crash of the reader is a verdict and not the end of this process.

    `progress` is entered in the child, which draws it. Where processes cannot fork, the check
    runs here.
    """

    def work() -> CheckReport:
        if progress is None:
            return check(path, quick=quick, roles=roles, purpose=purpose)
        with progress as update:
            return check(path, quick=quick, roles=roles, purpose=purpose, progress=update)

    if not hasattr(os, "fork"):
        return work()
    answer, code = _in_child(lambda: json.dumps(work().to_json()))
    if answer:
        return _report(Path(path), json.loads(answer))
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    problem = Problem(
        "damaged",
        f'"{Path(path).name}" is damaged: reading it crashed the HDF5 library ({how}).',
        "Copy or download the file again.",
    )
    return CheckReport(
        path=Path(path),
        mode="quick" if quick else "full",
        purpose=purpose,
        problems=(problem,),
        notes=(),
        facts={},
        seconds=0.0,
    )


def _report(path: Path, values: dict[str, Any]) -> CheckReport:
    return CheckReport(
        path=path,
        mode=values["check"],
        purpose=values["purpose"],
        problems=tuple(Problem(**problem) for problem in values["problems"]),
        notes=tuple(values["notes"]),
        facts=values["facts"],
        seconds=values["seconds"],
    )


def _in_child(work: Callable[[], str]) -> tuple[str, int]:
    """Return what `work` gave in a child, and the child's exit code (negative: a signal)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                pipe.write(work())
            code = 0
        finally:
            # Nothing of the parent (buffers, exit handlers, tests) may run a second time.
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return (answer if code == 0 else ""), code
