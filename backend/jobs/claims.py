"""Things that only one process on any machine may do, won by making a hard link.

`os.link` fails when the name is taken, on network file systems too; a lock held by a process would
not be seen by other machines, and would have to be released.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from typing import TYPE_CHECKING

from backend.errors import StoreError
from backend.processes import Process, myself

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["age", "is_won", "win", "winner"]


def win(folder: Path, name: str) -> bool:
    """Make the link `name` in a job's folder; return whether this process was the first.

    A job that vanishes meanwhile is not won.
    """
    draft = folder / f".{name}-{secrets.token_hex(8)}"
    try:
        draft.write_text(json.dumps(myself()._asdict()), encoding="utf-8")
        try:
            os.link(draft, folder / name)
        except FileExistsError:
            # A server may answer "exists" to the repeat of a request that it had granted.
            return draft.stat().st_nlink == 2
        except OSError as error:
            if not folder.is_dir():
                return False
            msg = f"The folder of jobs is on a file system without hard links ({error.strerror})."
            raise StoreError(msg, "Put FAULTLINE_HOME on a local disk or on NFS.") from error
    except FileNotFoundError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def is_won(folder: Path, name: str) -> bool:
    """Say whether somebody has won `name`."""
    return (folder / name).exists()


def winner(folder: Path, name: str) -> Process | None:
    """Return the process that won `name`, or None."""
    try:
        return Process(**json.loads((folder / name).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def age(folder: Path, name: str) -> float:
    """Return the seconds since `name` was won; 0 when nobody has."""
    try:
        return max(0.0, time.time() - (folder / name).stat().st_mtime)
    except FileNotFoundError:
        return 0.0
