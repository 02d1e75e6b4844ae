"""Which workers live, and on what: a small file each, below `workers/`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.files import write_text
from backend.jobs.directory import now, seconds_since
from backend.processes import Process, host, is_alive, myself

__all__ = ["WorkerInfo", "announce", "find_gpus", "list_workers", "withdraw"]

_ALIVE_SECONDS: Final = 60.0
_FORGET_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """A worker that said within the last minute that it lives."""

    host: str
    pid: int
    heartbeat_at: str
    gpus: tuple[str, ...]
    job_id: str | None = None
    started: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended, whatever its clock said."""
        own = Process(self.host, self.pid, self.started)
        return self.host == host() and not is_alive(own)


def _file(home: Path) -> Path:
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", host())
    return home / "workers" / f"{name}-{os.getpid()}.json"


def announce(home: Path, gpus: tuple[str, ...], job_id: str | None = None) -> None:
    """Say that this worker lives, on which GPUs, and what it does."""
    path = _file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    info = WorkerInfo(
        host=host(),
        pid=os.getpid(),
        heartbeat_at=now(),
        gpus=gpus,
        job_id=job_id,
        started=myself().started,
    )
    write_text(path, json.dumps(dataclasses.asdict(info)))


def withdraw(home: Path) -> None:
    """Say that this worker is gone."""
    _file(home).unlink(missing_ok=True)


def list_workers(home: Path) -> list[WorkerInfo]:
    """Return the workers that live, and forget those that have been gone for a day."""
    found = []
    for path in sorted((Path(home) / "workers").glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            info = WorkerInfo(**values | {"gpus": tuple(values["gpus"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue
        silence = seconds_since(info.heartbeat_at)
        if info.is_gone:
            path.unlink(missing_ok=True)
        elif silence < _ALIVE_SECONDS:
            found.append(info)
        elif silence > _FORGET_SECONDS:
            path.unlink(missing_ok=True)
    return found


def find_gpus() -> tuple[str, ...]:
    """Return the names of NVIDIA GPUs, asked of the driver's own tool; none when there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return ()
    if answer.returncode:
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())
