"""A folder of jobs, the tests' own kinds of jobs, and workers in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from backend.config import environment, project_root
from backend.jobs import handlers
from backend.jobs.directory import all_jobs
from backend.jobs.worker import Worker
from tests.backend.jobs.quick_worker import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backend.jobs.directory import JobStatus


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in KINDS.items():
        monkeypatch.setitem(handlers.KINDS, name, kind)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def run_all(home: Path) -> Callable[..., int]:
    """Return a function that runs all waiting jobs in this process's own worker."""

    def ran(**options: float) -> int:
        settings = {"grace_seconds": 1.0, "heartbeat_seconds": 0.3, "stale_seconds": 1.0}
        return Worker(home, **settings | options).run(once=True)

    return ran


@pytest.fixture
def start_worker(home: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.backend.jobs.quick_worker", str(home), *words]
        started.append(
            subprocess.Popen(
                command, cwd=project_root(), env=environment(), stderr=subprocess.DEVNULL
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


@pytest.fixture
def wait_for(home: Path) -> Callable[..., JobStatus]:
    """Return a function that waits until a job is in one of some states."""

    def wait(job_id: str, *states: str, attempt: int = 1, seconds: float = 20) -> JobStatus:
        deadline = time.monotonic() + seconds
        status = None
        while time.monotonic() < deadline:
            status = next(found for found in all_jobs(home) if found.job_id == job_id)
            if status.state in states and status.attempt >= attempt:
                return status
            time.sleep(0.05)
        pytest.fail(f"not {states} within {seconds} s: {status}")

    return wait
