"""Check a file in a child process.

Bytes made to harm can crash the HDF5 library itself, keep it in a loop, or make it ask for all the
memory there is. In a child, each of these is a verdict.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.data.check import CheckReport, check
from backend.data.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from backend.data.roles import Roles

__all__ = ["check_isolated", "limit_process"]

_PATIENCE: Final = 300
_SPARE_MEMORY: Final = 4 << 30


def check_isolated(
    path: str | Path,
    *,
    quick: bool = False,
    roles: Roles | None = None,
    purpose: str = "train",
    progress: AbstractContextManager[Callable[[int, int, str], None]] | None = None,
) -> CheckReport:
    """Do what `check` does in a child process.

    The child is ended when it makes no progress for five minutes, and may use 4 GiB more memory
    than it starts with. `progress` is entered in the child, which draws it. Where processes cannot
    fork, the check runs here.
    """

    def work() -> CheckReport:
        with progress or nullcontext(lambda *_: None) as update:

            def alive(done: int, total: int, what: str) -> None:
                signal.alarm(_PATIENCE)
                update(done, total, what)

            return check(path, quick=quick, roles=roles, purpose=purpose, progress=alive)

    if not hasattr(os, "fork"):
        return check(path, quick=quick, roles=roles, purpose=purpose)
    answer, code = _in_child(lambda: json.dumps(work().to_json()))
    if answer:
        return _report(Path(path), json.loads(answer))
    if code == -signal.SIGALRM:
        how = f"reading it came to no end (stopped after {_PATIENCE} s without progress)"
    else:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        how = f"reading it crashed the HDF5 library ({how})"
    problem = Problem(
        "damaged",
        f'"{Path(path).name}" is damaged: {how}.',
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


def limit_process() -> None:
    """End a child that hangs, even inside the library, and refuse it memory without bounds."""
    import resource  # like fork, only where POSIX is

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_PATIENCE)
    statm = Path("/proc/self/statm")
    if statm.is_file():
        in_use = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = in_use + _SPARE_MEMORY
        if most == resource.RLIM_INFINITY or wanted < most:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


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
            limit_process()
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
