"""Workers in real processes: results, limits, cancel, and what is left when one is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from backend.jobs import workers
from backend.jobs.directory import (
    cancel_job,
    create_job,
    now,
    read_log,
    read_status,
    seconds_since,
    win,
    write_status,
)
from backend.jobs.recovery import recover
from backend.processes import Process, host, is_alive, started


def outcome(home, job_id):
    return read_status(home, job_id, owner="local")


def test_job_is_done_with_result_progress_and_log(home, run_all):
    job_id = create_job(home, "echo", {"n": 1}, owner="local")
    assert run_all() == 1
    status = outcome(home, job_id)
    assert (status.state, status.progress, status.pid) == ("done", 1.0, None)
    assert status.result == {"echo": {"n": 1}, "owner": "local", "home": str(home)}
    log = read_log(home, job_id, owner="local")
    assert "started, attempt 1" in log
    assert "said hello" in log
    assert workers.list_workers(home) == []


def test_refusal_keeps_message_and_hint(home, run_all):
    job_id = create_job(home, "refuse", {}, owner="local")
    run_all()
    status = outcome(home, job_id)
    assert (status.state, status.message) == ("failed", 'No column "donor".')
    assert status.hint == "Map the donor first."


def test_fault_shows_a_reference_and_no_path(home, run_all, capfd):
    job_id = create_job(home, "crash", {}, owner="local")
    run_all()
    status = outcome(home, job_id)
    assert status.state == "failed"
    shown = f"{status.message} {status.hint} {read_log(home, job_id, owner='local')}"
    assert str(home) not in shown
    assert "Traceback" not in shown
    reference = status.message.rpartition("reference ")[2].rstrip(").")
    worker_log = capfd.readouterr().err
    assert reference in worker_log
    assert "KeyError" in worker_log


def test_process_that_dies_leaves_a_failed_job(home, run_all):
    job_id = create_job(home, "die", {}, owner="local")
    run_all()
    status = outcome(home, job_id)
    assert (status.state, status.attempt) == ("failed", 1)
    assert "SIGKILL" in status.message


def test_address_space_is_limited(home, run_all):
    job_id = create_job(home, "hog", {"mib": 4096}, owner="local")
    run_all()
    status = outcome(home, job_id)
    assert status.state == "failed"
    assert "more memory" in status.message


@pytest.mark.slow
def test_resident_memory_is_watched_where_address_space_is_not(home, run_all, monkeypatch):
    from backend.jobs import handlers
    from backend.jobs.handlers import Kind

    monkeypatch.setitem(
        handlers.KINDS,
        "hog",
        Kind("tests.backend.jobs.work:hog", memory_gib=0.15, hours=0.1, uses_gpu=True),
    )
    monkeypatch.setattr(workers, "find_gpus", lambda: ("a GPU",))
    job_id = create_job(home, "hog", {"mib": 300}, owner="local")
    run_all()
    status = outcome(home, job_id)
    assert status.state == "failed"
    assert "0.1 GiB" in status.message or "0.2 GiB" in status.message


@pytest.mark.slow
def test_wall_clock_is_limited(home, run_all):
    job_id = create_job(home, "short", {}, owner="local")
    run_all()
    status = outcome(home, job_id)
    assert status.state == "failed"
    assert "longer than" in status.message
    assert (home / "jobs" / job_id / "left").exists()


def test_running_job_is_cancelled_and_cleans_up(home, start_worker, wait_for):
    job_id = create_job(home, "sleep", {}, owner="local")
    start_worker()
    status = wait_for(job_id, "running")
    assert status.host == host()
    deadline = time.monotonic() + 10
    while not (home / "jobs" / job_id / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    cancel_job(home, job_id, owner="local")
    status = wait_for(job_id, "cancelled")
    assert (home / "jobs" / job_id / "left").exists()
    assert status.attempt == 1


@pytest.mark.slow
def test_job_that_ignores_the_request_is_killed_with_all_it_started(home, start_worker, wait_for):
    job_id = create_job(home, "cling", {}, owner="local")
    start_worker()
    pids = home / "jobs" / job_id / "pids"
    deadline = time.monotonic() + 10
    while not pids.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    family = [Process(host(), pid, started(pid)) for pid in json.loads(pids.read_text())]
    assert all(is_alive(process) for process in family)
    cancel_job(home, job_id, owner="local")
    wait_for(job_id, "cancelled")
    deadline = time.monotonic() + 5
    while any(map(is_alive, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, family))


def kill_worker_of(home, job_id, worker, wait_for, attempt):
    """Kill a worker while its job runs; return the process that did the work."""
    status = wait_for(job_id, "running", attempt=attempt)
    child = Process(host(), status.pid, status.pid_started)
    worker.kill()
    worker.wait()
    return child


def test_killed_worker_costs_one_requeue_and_then_the_job(home, start_worker, wait_for):
    job_id = create_job(home, "sleep", {}, owner="local")
    first = kill_worker_of(home, job_id, start_worker(), wait_for, attempt=1)
    second = kill_worker_of(home, job_id, start_worker(), wait_for, attempt=2)
    assert read_status(home, job_id, owner="local").requeues == 1
    start_worker()
    status = wait_for(job_id, "failed", attempt=2)
    assert status.attempt == 2
    assert "lost twice" in status.message
    assert not is_alive(first)
    assert not is_alive(second)


def test_stopped_worker_gives_its_job_back(home, start_worker, wait_for):
    job_id = create_job(home, "sleep", {}, owner="local")
    worker = start_worker()
    wait_for(job_id, "running")
    worker.terminate()
    assert worker.wait(20) == 0
    status = read_status(home, job_id, owner="local")
    assert (status.state, status.attempt, status.requeues) == ("queued", 2, 0)


def test_workers_never_do_a_job_twice(home, start_worker, wait_for):
    file = home / "done.txt"
    jobs = [create_job(home, "write_once", {"file": str(file)}, owner="local") for _ in range(12)]
    workers = [start_worker("--once") for _ in range(3)]
    for worker in workers:
        assert worker.wait(60) == 0
    assert sorted(file.read_text().split()) == sorted(jobs)
    assert all(wait_for(job_id, "done").attempt == 1 for job_id in jobs)


def lost(home, *, on: str, silent: str, pid: int = 0):
    """A job that says it runs, on some machine, and has been silent since some time."""
    job_id = create_job(home, "echo", {}, owner="local")
    folder = home / "jobs" / job_id
    assert win(folder, "claim-1")
    status = outcome(home, job_id).with_(
        state="running", host=on, worker_pid=pid, worker_started="1", heartbeat_at=silent
    )
    write_status(folder, status)
    return job_id


LONG_AGO = "2020-01-01T00:00:00+00:00"


def test_living_worker_is_left_alone(home):
    fresh = lost(home, on="elsewhere", silent=now())
    alive = lost(home, on=host(), silent=LONG_AGO, pid=os.getpid())
    status = outcome(home, alive).with_(worker_started=started(os.getpid()))
    write_status(home / "jobs" / alive, status)
    assert recover(home) == []
    assert {outcome(home, job).state for job in (fresh, alive)} == {"running"}


@pytest.mark.parametrize("days", [-3650, -1, 0, 1, 3650])
def test_dead_worker_of_this_machine_is_seen_whatever_the_clock_said(home, days):
    silent = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    job_id = lost(home, on=host(), silent=silent)
    assert [status.attempt for status in recover(home)] == [2]
    assert outcome(home, job_id).state == "queued"


def test_worker_that_died_is_not_listed_whatever_the_clock_said(home):
    (home / "workers").mkdir()
    for number, (days, name) in enumerate([(0, host()), (3650, host()), (3650, "elsewhere")]):
        said = (datetime.now(UTC) + timedelta(days=days)).isoformat()
        values = {"host": name, "pid": 2**22 + 1, "heartbeat_at": said, "gpus": []}
        (home / "workers" / f"{number}.json").write_text(json.dumps(values))
    (home / "workers" / "broken.json").write_text("{")
    assert [info.host for info in workers.list_workers(home)] == ["elsewhere"]


def test_times_to_come_are_now():
    assert seconds_since("2999-01-01T00:00:00+00:00") == 0.0


def test_who_won_the_end_and_died_here_is_replaced_at_once(home):
    job_id = lost(home, on=host(), silent=now())
    dead = json.dumps(Process(host(), 2**22 + 1, "1")._asdict())
    (home / "jobs" / job_id / "end-1").write_text(dead)
    assert [status.attempt for status in recover(home)] == [2]


def test_number_of_a_dead_worker_that_another_process_has_now_does_not_count(home):
    job_id = lost(home, on=host(), silent=LONG_AGO, pid=os.getpid())
    assert [status.job_id for status in recover(home)] == [job_id]


def test_silence_of_another_machine_must_last_longer(home):
    silent = (datetime.now(UTC) - timedelta(seconds=120)).isoformat()
    job_id = lost(home, on="elsewhere", silent=silent)
    assert recover(home) == []
    assert [status.job_id for status in recover(home, stale_seconds=10)] == [job_id]


def test_attempt_is_ended_by_one_only(home):
    job_id = lost(home, on=host(), silent=LONG_AGO)
    folder = home / "jobs" / job_id
    # Another process has just won the right to end it.
    assert win(folder, "end-1")
    assert recover(home) == []
    # It died before it wrote what it had decided.
    os.utime(folder / "end-1", (0, 0))
    assert [status.attempt for status in recover(home)] == [2]


def test_job_whose_claimer_died_before_a_word_is_recovered(home, start_worker, wait_for):
    job_id = create_job(home, "echo", {}, owner="local")
    folder = home / "jobs" / job_id
    text = json.dumps(Process(host(), 2**22 + 1, "1")._asdict())
    (folder / "claim-1").write_text(text)
    os.utime(folder / "claim-1", (0, 0))
    assert [status.attempt for status in recover(home)] == [2]
    start_worker("--once")
    assert wait_for(job_id, "done").attempt == 2


def test_cancelled_job_of_a_lost_worker_is_cancelled(home):
    job_id = lost(home, on=host(), silent=LONG_AGO)
    cancel_job(home, job_id, owner="local")
    assert [status.state for status in recover(home)] == ["cancelled"]
    assert outcome(home, job_id).state == "cancelled"


@pytest.mark.slow
def test_attempt_that_was_taken_away_stops_and_writes_nothing(home, start_worker, wait_for):
    job_id = create_job(home, "sleep", {}, owner="local")
    start_worker()
    status = wait_for(job_id, "running")
    child = Process(host(), status.pid, status.pid_started)
    folder = home / "jobs" / job_id
    assert win(folder, "end-1")
    write_status(folder, status.with_(state="failed", message="ended elsewhere"))
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)
    time.sleep(0.5)
    assert outcome(home, job_id).message == "ended elsewhere"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_orphan_ends_with_its_worker(home, start_worker, wait_for, number):
    job_id = create_job(home, "sleep", {}, owner="local")
    worker = start_worker()
    status = wait_for(job_id, "running")
    child = Process(host(), status.pid, status.pid_started)
    worker.send_signal(number)
    if number == signal.SIGSTOP:
        # A worker that only sleeps is alive: its job stays its own.
        time.sleep(1.5)
        assert recover(home, stale_seconds=1.0) == []
        assert is_alive(child)
        worker.send_signal(signal.SIGCONT)
        return
    worker.wait()
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def test_worker_says_that_it_lives_and_on_what(home, start_worker, monkeypatch):
    worker = start_worker()
    deadline = time.monotonic() + 10
    while not (found := workers.list_workers(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [info.pid for info in found] == [worker.pid]
    worker.terminate()
    worker.wait(20)
    assert workers.list_workers(home) == []


def test_gpus_are_asked_of_the_driver(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200'\necho 'NVIDIA H200'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert workers.find_gpus() == ("NVIDIA H200", "NVIDIA H200")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert workers.find_gpus() == ()
