"""Processes of this machine: who is alive, what they use, how they are ended."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import signal

__all__ = ["Process", "end_group", "host", "is_alive", "myself", "resident_bytes", "started"]

_PROC = Path("/proc")


class Process(NamedTuple):
    """One process; `started` tells it from a later one with the same number ("" if unknown)."""

    host: str
    pid: int
    started: str


@cache
def host() -> str:
    """Return the name of this machine or container."""
    return socket.gethostname()


def _fields(pid: int | str) -> list[str]:
    """Return the fields of `/proc/<pid>/stat` after the name, or nothing."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return []
    return text.rpartition(")")[2].split()


def started(pid: int) -> str:
    """Return when a process started, in ticks since the machine did; "" where that is unknown."""
    fields = _fields(pid)
    return fields[19] if fields else ""


def myself() -> Process:
    """Return this process."""
    return Process(host(), os.getpid(), started(os.getpid()))


def is_alive(process: Process) -> bool:
    """Say whether a process of this machine still runs; an ended one that nobody reaped does not."""
    if process.pid <= 0:
        return False
    if _PROC.is_dir() and process.started:
        fields = _fields(process.pid)
        return bool(fields) and fields[0] not in "ZX" and fields[19] == process.started
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def resident_bytes(session: int) -> int:
    """Return the resident memory of all processes of a session; 0 where that is unknown."""
    if not _PROC.is_dir():
        return 0
    page = os.sysconf("SC_PAGESIZE")
    total = 0
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            fields = _fields(entry.name)
            if fields and fields[3] == str(session):
                total += int(fields[21]) * page
    return total


def end_group(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process group; return False when nobody is left in it."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
