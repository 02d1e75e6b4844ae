"""Who belongs to a process that is killed, and whether anybody of them is left."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

SOON = 10.0
"""Seconds in which those whom a killed command had started must be gone."""


def session(leader):
    """Return who is left of a session."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def family(leader):
    """Return a process and all that it started, in whatever session."""
    with suppress(psutil.Error):
        return [psutil.Process(leader), *psutil.Process(leader).children(recursive=True)]
    return []


def wait_until_gone(own, leader=None, *, seconds=SOON):
    """Wait until nobody of a family runs, nor of the session of a leader."""
    until = time.monotonic() + seconds
    while any(each.is_running() and each.status() != "zombie" for each in own) or (
        leader is not None and session(leader)
    ):
        assert time.monotonic() < until, f"left behind: {own} {leader and session(leader)}"
        time.sleep(0.05)
