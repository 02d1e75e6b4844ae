"""Handlers of the tests: what a job may do, good and bad. Each runs in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import InputError

if TYPE_CHECKING:
    from backend.jobs.handlers import JobContext


def echo(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    context.progress(0.5, "half way")
    context.log("said hello")
    return {"echo": request, "owner": context.owner, "home": str(context.home)}


def write_once(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Leave a line for each time that this job was done."""
    with Path(request["file"]).open("a", encoding="utf-8") as file:
        file.write(f"{context.folder.name}\n")
    return {}


def sleep(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    (context.folder / "pid").write_text(str(os.getpid()))
    context.progress(0.25, "sleeping")
    try:
        time.sleep(request.get("seconds", 60))
    finally:
        (context.folder / "left").touch()
    return {"slept": True}


def cling(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Ignore the request to end, and start a process that does so too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code])
    (context.folder / "pids").write_text(json.dumps([os.getpid(), other.pid]))
    context.progress(0.1, "clinging")
    time.sleep(60)
    return {}


def train(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Do what a job of training does, with a plain map."""
    from backend.data import cell_map
    from backend.jobs import training
    from tests.helpers import two_components

    cell_map._umap = two_components
    return training.run(request, context)


def refuse(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    msg = 'No column "donor".'
    raise InputError(msg, "Map the donor first.")


def crash(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    msg = f"secret place {context.folder}"
    raise KeyError(msg)


def die(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def hog(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Take memory and keep it."""
    held = bytearray(int(request["mib"]) << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    time.sleep(30)
    return {"held": len(held)}
