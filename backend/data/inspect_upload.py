"""Look at a file in a process of its own, for a page that must answer within seconds.

That process does the quick check under limits of memory and time, and reads what a person decides
on: columns, labels and timepoints. A file made to crash or hang the HDF5 library ends it, not the
caller.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from backend.data.roles import ROLE_NAMES, Roles
from backend.errors import InputError
from backend.processes import ChildEnded, Limits, ask_child

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["empty", "inspect_upload", "limits_of_look", "roles_from"]

_SECONDS: Final = 120.0
_SPARE_SPACE: Final = 320 << 20
"""Address space beyond what the child has after its imports: it stays below 512 MiB in all."""
_SMALL_FILE: Final = 200 << 20
_MOST_SPACE: Final = 4 << 30
_AT_ONCE: Final = threading.BoundedSemaphore(2)
_PATIENCE: Final = 60.0
"""Seconds to wait while as many other files are looked at as may be at once."""


def limits_of_look(size: int) -> Limits:
    """Return what looking at a file of `size` bytes may use; large ones have more cells."""
    space = _SPARE_SPACE + 8 * max(0, size - _SMALL_FILE)
    return Limits(seconds=_SECONDS, spare_space=min(space, _MOST_SPACE))


def roles_from(values: dict[str, Any] | None) -> Roles | None:
    """Return roles from plain values, None for none; "" is no column, unknown names are left out."""
    if not values:
        return None
    known = {name: str(values[name]) for name in ROLE_NAMES if values.get(name) is not None}
    return Roles(
        **known,
        counts=values.get("counts") or None,
        profile=values.get("profile"),
        is_rounded=bool(values.get("is_rounded")),
        timepoints=values.get("timepoints") or {},
    )


def inspect_upload(
    path: Path, *, roles: dict[str, Any] | None = None, gene_files: dict[str, str] | None = None
) -> dict[str, Any]:
    """Check a file quickly and say what is in it.

    Parameters
    ----------
    path
        The `.h5ad`.
    roles
        Column of each role as plain values; guessed when None.
    gene_files
        Name → `genes.json` of a stored model, to count the genes that it knows.

    Returns
    -------
    `problems` (list of {code, message, hint}), `notes`, `facts` as the check gives them, `columns`
    (list of {name, n_values, examples}), `labels`, `timepoints` and `donors` (value → cells), `genes` (name →
    {n_known, n_model}). Of a file that cannot be used only `problems` is filled.

    Raises
    ------
    InputError
        If too many other files are looked at.
    """
    if not _AT_ONCE.acquire(timeout=_PATIENCE):
        msg = "The server is looking at other files."
        raise InputError(msg, "Try again in a minute.")
    try:
        found: dict[str, Any] = ask_child(
            "backend.data.inspect_child:inspect_in_child", path, roles, gene_files or {},
            limits=limits_of_look(path.stat().st_size), is_quiet=True,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip
    except ChildEnded as end:
        how = f"the process that read it {end}"
        if end.exceeded:
            how = f"reading it came to no end (stopped after {_SECONDS:g} s)"
        problem = {
            "code": "damaged",
            "message": f"The file is damaged: {how}.",
            "hint": "Copy or download the file again.",
        }
        return empty() | {"problems": [problem]}
    finally:
        _AT_ONCE.release()
    return found


def empty() -> dict[str, Any]:
    """Return the answer about a file of which nothing is known."""
    return {
        "problems": [], "notes": [], "facts": {}, "columns": [], "labels": {}, "timepoints": {},
        "donors": {}, "genes": {},
    }  # fmt: skip
