"""Jobs whose worker is gone: one more try, then failed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from backend.jobs.directory import (
    JobStatus,
    add_log,
    all_jobs,
    is_cancel_asked,
    job_folder,
    now,
    seconds_since,
    seconds_since_won,
    win,
    winner,
    write_status,
)
from backend.processes import Process, end_group, host, is_alive

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STALE_SECONDS", "recover"]

STALE_SECONDS: Final = 60.0
_FAR: Final = 10
"""The processes of another machine cannot be looked at: its silence must last this much longer."""


def recover(home: Path, *, stale_seconds: float = STALE_SECONDS) -> list[JobStatus]:
    """Requeue or end every job whose worker is gone; return their new states."""
    changed = []
    for status in all_jobs(home):
        if not status.is_open:
            continue
        folder = job_folder(home, status.job_id)
        if _is_lost(folder, status, stale_seconds) and _may_end(folder, status, stale_seconds):
            changed.append(_end(folder, status))
    return changed


def _is_lost(folder: Path, status: JobStatus, stale_seconds: float) -> bool:
    """Say whether an attempt was begun by a process that is gone."""
    if status.state == "queued":
        # Claimed, and its worker died before it could say so.
        holder = winner(folder, f"claim-{status.attempt}")
        silence = seconds_since_won(folder, f"claim-{status.attempt}")
    else:
        holder = Process(status.host or "", status.worker_pid or 0, status.worker_started)
        silence = seconds_since(status.heartbeat_at)
    if holder is None:
        return False
    if holder.host != host():
        return silence > _FAR * stale_seconds
    # Whatever the clock says: it may have been set, and a process cannot come back.
    return not is_alive(holder)


def _may_end(folder: Path, status: JobStatus, stale_seconds: float) -> bool:
    """Win the right to end the attempt, or take it from one who won it and died."""
    name = f"end-{status.attempt}"
    if win(folder, name):
        return True
    holder = winner(folder, name)
    is_dead = holder is not None and holder.host == host() and not is_alive(holder)
    return is_dead or seconds_since_won(folder, name) > stale_seconds


def _end(folder: Path, status: JobStatus) -> JobStatus:
    child = Process(status.host or "", status.pid or 0, status.pid_started)
    if child.host == host() and is_alive(child):
        end_group(child.pid, signal.SIGKILL)
    idle = {
        "pid": None, "pid_started": "", "worker_pid": None, "worker_started": "", "host": None,
        "heartbeat_at": None,
    }  # fmt: skip
    if is_cancel_asked(folder, status.attempt):
        after = status.with_(state="cancelled", message="Cancelled", ended_at=now(), **idle)
    elif status.requeues == 0:
        after = status.with_(
            state="queued", attempt=status.attempt + 1, requeues=1, progress=0.0,
            message="Its worker was lost; waiting for another one", **idle,
        )  # fmt: skip
    else:
        after = status.with_(
            state="failed", ended_at=now(), message="Its worker was lost twice.",
            hint="The machine may have too little memory for it. Retry, or ask the administrator.",
            **idle,
        )  # fmt: skip
    write_status(folder, after)
    add_log(folder, after.message)
    return after
