"""The worker: claims jobs, one at a time, and watches over the process that does each."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from backend.config import job_hours, job_memory_gib, keep_days
from backend.errors import JobFailed
from backend.jobs import expiry, workers
from backend.jobs.directory import (
    JobStatus,
    add_log,
    all_jobs,
    is_cancel_asked,
    is_won,
    job_folder,
    now,
    win,
    write_status,
)
from backend.jobs.handlers import Kind, kind_named
from backend.jobs.recovery import STALE_SECONDS, recover
from backend.processes import Child, Limits, machine_memory, myself, started

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Worker"]

_LOG: Final = logging.getLogger(__name__)
_TICK: Final = 0.2
_NEWS_SECONDS: Final = 1.0
_NICE: Final = 5
"""The web process beside a job stays quick."""
_ANNOUNCE_SECONDS: Final = 10.0
_RECOVER_SECONDS: Final = 5.0
_EXPIRE_SECONDS: Final = 3600.0
_RESIDENT_SHARE: Final = 0.9
"""Of the machine's memory; beyond, the system itself would end some process or other."""


class Worker:
    """Runs the jobs below `home` until it is stopped.

    Parameters
    ----------
    grace_seconds
        Between asking a job's process to end and ending it.
    heartbeat_seconds, stale_seconds
        How often a running job is said to live, and after what silence it is looked after.
    """

    def __init__(
        self,
        home: Path,
        *,
        grace_seconds: float = 10.0,
        heartbeat_seconds: float = 5.0,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self.home = home
        self.grace_seconds = grace_seconds
        self.heartbeat_seconds = heartbeat_seconds
        self.stale_seconds = stale_seconds
        self.gpus = workers.find_gpus()
        self.is_stopping = False
        self._due: dict[str, float] = {}

    def stop(self, *_: object) -> None:
        """Ask the worker to end; its job goes back to the queue. Also a signal handler."""
        self.is_stopping = True

    def run(self, *, once: bool = False) -> int:
        """Run jobs as they come, or those that wait; return how many were run."""
        n_run = 0
        try:
            while not self.is_stopping:
                self.look_after_others()
                status = self._claim()
                if status is not None:
                    self._run_job(status)
                    n_run += 1
                elif once:
                    break
                else:
                    time.sleep(2 * _TICK)
        finally:
            workers.withdraw(self.home)
        return n_run

    def _is_due(self, what: str, seconds: float) -> bool:
        if time.monotonic() < self._due.get(what, 0.0):
            return False
        self._due[what] = time.monotonic() + seconds
        return True

    def look_after_others(self, job_id: str | None = None) -> None:
        """Say that this worker lives; care for lost jobs and for what has expired."""
        if self._is_due("announce", _ANNOUNCE_SECONDS):
            workers.announce(self.home, self.gpus, job_id)
        if self._is_due("recover", min(_RECOVER_SECONDS, self.stale_seconds)):
            for status in recover(self.home, stale_seconds=self.stale_seconds):
                _LOG.warning("job %s had lost its worker: %s", status.job_id, status.state)
        if self._is_due("expire", _EXPIRE_SECONDS):
            n_removed = expiry.expire(self.home, days=keep_days())
            if n_removed:
                _LOG.info("removed %d expired jobs, uploads and selections", n_removed)

    def _claim(self) -> JobStatus | None:
        """Win the job that has waited longest, or nothing."""
        for status in all_jobs(self.home):
            if status.state == "queued":
                folder = job_folder(self.home, status.job_id)
                name = f"claim-{status.attempt}"
                if not is_won(folder, name) and win(folder, name):
                    return status
        return None

    def _run_job(self, status: JobStatus) -> None:
        folder = job_folder(self.home, status.job_id)
        try:
            kind = kind_named(status.kind)
        except JobFailed as error:
            ended = {"error": error.message, "hint": "It was made by another version."}
            _finish(folder, status, _after(status, ended, stopped_by=None))
            return
        _LOG.info("job %s (%s) starts, attempt %d", status.job_id, status.kind, status.attempt)
        add_log(folder, f"started, attempt {status.attempt}")
        with _Attempt(self, folder, status, kind) as attempt:
            after = attempt.watch()
        if after is not None and _finish(folder, status, after):
            _LOG.info("job %s is %s: %s", after.job_id, after.state, after.message)
            add_log(folder, f"{after.state}: {after.message}" if after.message else after.state)


def _finish(folder: Path, status: JobStatus, after: JobStatus) -> bool:
    """Write how an attempt ended, unless somebody else ended it."""
    if not win(folder, f"end-{status.attempt}"):
        return False
    write_status(folder, after)
    return True


def _after(status: JobStatus, ended: dict[str, Any], *, stopped_by: str | None) -> JobStatus:
    """Return the state after an attempt, from what its process said or why it was stopped."""
    status = status.with_(pid=None, pid_started="", heartbeat_at=None, ended_at=now())
    if stopped_by == "cancel":
        return status.with_(state="cancelled", message="Cancelled")
    if stopped_by == "shutdown":
        return status.with_(
            state="queued", attempt=status.attempt + 1, progress=0.0, ended_at=None,
            message="Its worker was stopped; waiting for another one", host=None,
            worker_pid=None, worker_started="",
        )  # fmt: skip
    if "result" in ended:
        return status.with_(state="done", progress=1.0, message="Done", result=ended["result"])
    return status.with_(
        state="failed", message=ended.get("error", "It ended without a result."),
        hint=ended.get("hint", ""),
    )  # fmt: skip


class _Attempt:
    """One process at work: started, watched, and always ended."""

    def __init__(self, worker: Worker, folder: Path, status: JobStatus, kind: Kind) -> None:
        self.worker = worker
        self.folder = folder
        self.kind = kind
        memory = int((job_memory_gib() or kind.memory_gib) * 2**30)
        # Address space says nothing about a process that maps a GPU's memory.
        on_gpu = kind.uses_gpu and bool(worker.gpus)
        self.limits = Limits(
            address_space=None if on_gpu else memory,
            resident=min(memory, int(_RESIDENT_SHARE * machine_memory())),
            seconds=3600.0 * (job_hours() or kind.hours),
            nice=_NICE,
        )
        self.ended: dict[str, Any] = {}
        self._is_news = False
        self._due = {"beat": 0.0, "news": 0.0}
        me = myself()
        self.status = status.with_(
            state="running", host=me.host, worker_pid=me.pid, worker_started=me.started,
            heartbeat_at=now(), started_at=now(), message="Starting", progress=0.0,
        )  # fmt: skip

    def __enter__(self) -> _Attempt:
        home = str(self.worker.home)
        self.child = Child(
            "backend.jobs.child:work", str(self.folder), home, self.status.owner, self.kind.target,
            limits=self.limits, env={"FAULTLINE_HOME": home},
        )  # fmt: skip
        self.status = self.status.with_(pid=self.child.pid, pid_started=started(self.child.pid))
        write_status(self.folder, self.status)
        return self

    def __exit__(self, *_: object) -> None:
        self.child.end()

    def watch(self) -> JobStatus | None:
        """Wait for the end; return the state after it, or None when the job is no longer ours."""
        stopped_by, reason = None, ""
        while not self.child.has_ended:
            self._listen()
            if not self._is_ours():
                return None
            stopped_by, reason = self._must_stop()
            if stopped_by is not None:
                self._stop()
                break
            self._beat()
            time.sleep(_TICK)
        self._listen()
        if stopped_by == "limit":
            self.ended = {
                "error": reason,
                "hint": "Choose less data, or ask the administrator for a higher limit.",
            }
        elif not self.ended:
            self.ended = {"error": f"Its process {self.child.how_it_ended}, without a result."}
        return _after(self.status, self.ended, stopped_by=stopped_by)

    def _listen(self) -> None:
        """Take what the process has said so far."""
        for words in self.child.heard():
            if "answer" in words:
                self.ended = words["answer"]
            else:
                self.status = self.status.with_(**words)
                self._is_news = True

    def _is_ours(self) -> bool:
        """Say whether nobody has taken the job for lost, or removed it."""
        return self.folder.is_dir() and not is_won(self.folder, f"end-{self.status.attempt}")

    def _must_stop(self) -> tuple[str | None, str]:
        """Return why the process must end now, if it must."""
        if is_cancel_asked(self.folder, self.status.attempt):
            return "cancel", ""
        if self.worker.is_stopping:
            return "shutdown", ""
        exceeded = self.child.exceeded()
        if exceeded == "seconds":
            hours = (self.limits.seconds or 0) / 3600
            return "limit", f"It took longer than the {hours:g} hours that it may."
        if exceeded == "resident":
            gib = (self.limits.resident or 0) / 2**30
            return "limit", f"It needed more than the {gib:.1f} GiB of memory that it may use."
        return None, ""

    def _is_due(self, what: str, seconds: float) -> bool:
        if time.monotonic() < self._due[what]:
            return False
        self._due[what] = time.monotonic() + seconds
        return True

    def _beat(self) -> None:
        """Write progress and the sign of life."""
        self.worker.look_after_others(self.status.job_id)
        is_news = self._is_news and self._is_due("news", _NEWS_SECONDS)
        if self._is_due("beat", self.worker.heartbeat_seconds) or is_news:
            self._is_news = False
            self.status = self.status.with_(heartbeat_at=now())
            # A folder that is gone ends the attempt at the next look.
            with contextlib.suppress(FileNotFoundError):
                write_status(self.folder, self.status)

    def _stop(self) -> None:
        """Ask the whole process group to end, then end it."""
        self.child.ask_to_end()
        patience = time.monotonic() + self.worker.grace_seconds
        while time.monotonic() < patience and not self.child.wait(_TICK):
            self._listen()
            self._beat()
        self.child.end()
