"""Check a file in a child process.

Bytes made to harm can crash the HDF5 library itself, keep it in a loop, or make it ask for all the
memory there is. In a child, each of these is a verdict.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.data.check import CheckReport, check
from backend.data.problems import Problem
from backend.processes import ChildEnded, Limits, ask_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from backend.data.roles import Roles
    from backend.processes import Channel

__all__ = ["check_isolated"]

_TARGET: Final = "backend.data.isolated:check_in_child"
_LIMITS: Final = Limits(silence=300.0, spare_space=4 << 30)


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
    than it starts with. `progress` is entered here, and told how far the child is.
    """
    path = Path(path)
    mode = "quick" if quick else "full"
    with progress or nullcontext(lambda *_: None) as update:
        try:
            values = ask_child(
                _TARGET, path, mode, roles, purpose,
                limits=_LIMITS, tell=lambda words: update(*words["progress"]), is_quiet=True,
            )  # fmt: skip
        except ChildEnded as end:
            how = f"the process that read it {end}"
            if end.exceeded:
                how = f"reading it came to no end (stopped after {_LIMITS.silence:g} s of silence)"
            return CheckReport(
                path=path,
                mode=mode,
                purpose=purpose,
                problems=(
                    Problem(
                        "damaged",
                        f'"{path.name}" is damaged: {how}.',
                        "Copy or download the file again.",
                    ),
                ),
                notes=(),
                facts={},
                seconds=0.0,
            )
    return CheckReport(
        path=path,
        mode=values["check"],
        purpose=values["purpose"],
        problems=tuple(Problem(**problem) for problem in values["problems"]),
        notes=tuple(values["notes"]),
        facts=values["facts"],
        seconds=values["seconds"],
    )


def check_in_child(
    channel: Channel, path: Path, mode: str, roles: Roles | None, purpose: str
) -> dict[str, Any]:
    """Check a file, and say how far it is."""

    def tell(done: int, total: int, what: str) -> None:
        channel.say(progress=[int(done), int(total), what])

    return check(path, quick=mode == "quick", roles=roles, purpose=purpose, progress=tell).to_json()
