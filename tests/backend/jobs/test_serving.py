"""`serve` starts the dashboard and its workers, and stops both, whatever ends first."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from backend.config import environment, project_root
from backend.jobs.workers import list_workers
from backend.processes import Process, host, is_alive, started

pytestmark = pytest.mark.slow


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail("it did not happen in time")


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def children_of(pid):
    text = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    numbers = [int(word) for word in text.stdout.split()]
    return [Process(host(), number, started(number)) for number in numbers]


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(tmp_path, free_port):
    started_here = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "backend", "serve", "--port", str(free_port), *words],
            cwd=project_root(),
            env=environment(FAULTLINE_HOME=str(tmp_path), HOME=str(tmp_path)),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        started_here.append(process)
        return process

    yield start
    for process in started_here:
        if process.poll() is None:
            process.terminate()
            process.wait(40)


def test_serve_starts_two_processes_and_stops_both(serve, free_port, tmp_path):
    process = serve()
    until(lambda: answers(free_port))
    until(lambda: list_workers(tmp_path))
    family = children_of(process.pid)
    assert len(family) == 2
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not any(is_alive(child) for child in family)
    assert not answers(free_port)
    assert list_workers(tmp_path) == []


def test_dead_worker_is_replaced_and_stops_with_the_others(serve, free_port, tmp_path):
    process = serve("--workers", "2")
    until(lambda: len(list_workers(tmp_path)) == 2)
    victim = list_workers(tmp_path)[0].pid
    os.kill(victim, signal.SIGKILL)
    until(lambda: len({info.pid for info in list_workers(tmp_path)} - {victim}) == 2)
    until(lambda: answers(free_port))
    family = children_of(process.pid)
    assert len(family) == 3
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not any(is_alive(child) for child in family)
    assert not answers(free_port)
    assert list_workers(tmp_path) == []


def test_killed_server_and_dead_page_leave_nobody_behind(serve, free_port, tmp_path):
    process = serve()
    until(lambda: answers(free_port) and list_workers(tmp_path))
    family = children_of(process.pid)
    assert len(family) == 2
    process.kill()
    process.wait(10)
    until(lambda: not any(is_alive(child) for child in family), seconds=40)
    assert not answers(free_port)
    assert list_workers(tmp_path) == []
    # Nothing that the dead one left keeps the next one from starting.
    process = serve()
    until(lambda: answers(free_port) and list_workers(tmp_path))
    # A web process that ends takes the workers along.
    worker = list_workers(tmp_path)[0].pid
    web = next(child for child in children_of(process.pid) if child.pid != worker)
    os.kill(web.pid, signal.SIGKILL)
    assert process.wait(30) != 0
    assert list_workers(tmp_path) == []


def test_impossible_port_is_refused(serve):
    assert serve("--port", "70000").wait(30) == 2
