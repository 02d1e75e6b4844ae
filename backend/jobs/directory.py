"""Job folders: `jobs/<job_id>/{request.json, status.json, log.txt}` is all there is of a job.

Every process and machine that shares the folder sees the same. A file is replaced as a whole, so
that readers never see half of one. What only one may do (claim an attempt, end an attempt) is won
by a hard link: see `backend.jobs.claims`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from backend.errors import InputError, JobFailed, JobNotFound, StoreError
from backend.files import link_first, published, remove_folder, write_text
from backend.jobs.handlers import kind_named
from backend.processes import Process, myself
from backend.types import ID, OWNER

__all__ = [
    "JobStatus",
    "State",
    "add_log",
    "all_jobs",
    "cancel_job",
    "create_job",
    "delete_job",
    "is_cancel_asked",
    "is_won",
    "job_folder",
    "jobs_folder",
    "list_jobs",
    "read_log",
    "read_request",
    "read_status",
    "retry_job",
    "seconds_since",
    "seconds_since_won",
    "win",
    "winner",
    "write_status",
]

State = Literal["queued", "running", "done", "failed", "cancelled"]

_MAX_REQUEST: Final = 1 << 20
_MAX_OPEN: Final = 20
"""Jobs that one owner may have waiting or running."""
_CANCEL: Final = "cancel"


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What `status.json` says.

    attempt      : from 1; a requeue and a retry each add one
    requeues     : attempts lost with their worker since the job was made or retried
    pid, host    : the process that does the work; `worker_pid` watches over it
    pid_started, worker_started : tell a process from a later one with the same number
    heartbeat_at : when the worker last said that it lives (ISO 8601, UTC)
    progress     : 0–1
    result       : what the handler returned, when done
    hint         : what to do, when failed
    """

    job_id: str
    kind: str
    state: State
    attempt: int
    owner: str
    pid: int | None = None
    host: str | None = None
    heartbeat_at: str | None = None
    created_at: str
    progress: float = 0.0
    message: str = ""
    result: dict[str, Any] | None = None
    hint: str = ""
    requeues: int = 0
    worker_pid: int | None = None
    pid_started: str = ""
    worker_started: str = ""
    started_at: str | None = None
    ended_at: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the job still waits or runs."""
        return self.state in ("queued", "running")

    @property
    def n_failed(self) -> int:
        """How many parts of a job that has ended failed, such as folds."""
        return int((self.result or {}).get("n_failed") or 0) if self.state == "done" else 0

    @property
    def outcome(self) -> str:
        """The state in words; a job of which parts failed is not simply done."""
        return "finished with failures" if self.n_failed else self.state

    def with_(self, **changes: Any) -> JobStatus:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def now() -> str:
    """Return the time as it is written in job files."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_since(moment: str | None) -> float:
    """Return the seconds since a time of a job file; infinite when it is None.

    A time to come, by a clock that was set back since, is now.
    """
    if moment is None:
        return math.inf
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def jobs_folder(home: Path) -> Path:
    """Return the folder that holds all jobs."""
    return Path(home) / "jobs"


def _not_found() -> JobNotFound:
    return JobNotFound("Job not found.", "It may have expired or been deleted; see the Runs page.")


def job_folder(home: Path, job_id: str) -> Path:
    """Return the folder of a job, or raise `JobNotFound` for what is not an id."""
    if not isinstance(job_id, str) or not ID.fullmatch(job_id):
        raise _not_found()
    return jobs_folder(home) / job_id


def win(folder: Path, name: str) -> bool:
    """Win `name` in a job's folder; return whether this process was the first.

    A job that vanishes meanwhile is not won.
    """
    return link_first(folder / name, json.dumps(myself()._asdict()))


def is_won(folder: Path, name: str) -> bool:
    """Say whether somebody has won `name`."""
    return (folder / name).exists()


def winner(folder: Path, name: str) -> Process | None:
    """Return the process that won `name`, or None."""
    try:
        return Process(**json.loads((folder / name).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def seconds_since_won(folder: Path, name: str) -> float:
    """Return the seconds since `name` was won; 0 when nobody has."""
    try:
        return max(0.0, time.time() - (folder / name).stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def write_status(folder: Path, status: JobStatus) -> None:
    """Replace `status.json`."""
    text = json.dumps(dataclasses.asdict(status), indent=1, allow_nan=False)
    write_text(folder / "status.json", text + "\n")


def _read(folder: Path) -> JobStatus | None:
    """Return the status in a job folder, or None when the job is gone."""
    try:
        values = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        msg = f"The status of job {folder.name} cannot be read."
        raise StoreError(msg, "Delete the job's folder below `jobs/`.") from error
    known = {field.name for field in dataclasses.fields(JobStatus)}
    try:
        status = JobStatus(**{name: value for name, value in values.items() if name in known})
    except (AttributeError, TypeError) as error:
        msg = f"The status of job {folder.name} was written by another version."
        raise StoreError(msg, "Delete the job's folder below `jobs/`.") from error
    if status.state not in get_args(State):
        msg = f'Job {folder.name} has the state "{status.state}".'
        raise StoreError(msg, "Delete the job's folder below `jobs/`.")
    return status


def check_owner(owner: str) -> str:
    """Return an owner's name when it can name a folder; raise `InputError` otherwise."""
    if isinstance(owner, str) and OWNER.fullmatch(owner):
        return owner
    msg = f"{str(owner)[:60]!r} is not the name of an owner."
    raise InputError(msg, "Owners are made at sign-in; never by hand.")


def create_job(home: Path, kind: str, request: dict[str, Any], *, owner: str) -> str:
    """Put a job into the queue; return its id.

    Raises
    ------
    InputError
        If the request is not plain data.
    JobFailed
        If there is no such kind of job, or too many of the owner's jobs are open.
    """
    check_owner(owner)
    kind_named(kind)
    try:
        text = json.dumps(request, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"The request of a {kind} job is not plain data: {error}."
        raise InputError(msg, "Give numbers, texts, lists and dicts.") from error
    if not isinstance(request, dict) or len(text) > _MAX_REQUEST:
        msg = f"The request of a {kind} job is no dict, or longer than 1 MiB ({len(text):,} bytes)."
        raise InputError(msg, "Put large data into a file and name it in the request.")
    n_open = sum(status.is_open for status in list_jobs(home, owner=owner))
    if n_open >= _MAX_OPEN:
        msg = f"{n_open} jobs of yours wait or run already."
        raise JobFailed(msg, "Wait for one to end, or cancel one on the Runs page.")
    job_id = secrets.token_hex(8)
    status = JobStatus(
        job_id=job_id, kind=kind, state="queued", attempt=1, owner=owner, created_at=now(),
        message="Waiting for a worker",
    )  # fmt: skip
    with published(jobs_folder(home) / job_id, what="the job", mode=0o700) as folder:
        write_text(folder / "request.json", text + "\n")
        (folder / "log.txt").touch()
        write_status(folder, status)
    return job_id


def read_status(home: Path, job_id: str, *, owner: str) -> JobStatus:
    """Return the state of a job of `owner`.

    Raises
    ------
    JobNotFound
        If there is none, it belongs to someone else, or `job_id` is no id: all read the same.
    """
    status = _read(job_folder(home, job_id))
    if status is None or status.owner != owner:
        raise _not_found()
    return status


def read_request(home: Path, job_id: str, *, owner: str) -> dict[str, Any]:
    """Return what a job of `owner` was asked to do."""
    read_status(home, job_id, owner=owner)
    path = job_folder(home, job_id) / "request.json"
    request: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return request


def all_jobs(home: Path) -> list[JobStatus]:
    """Return the jobs of all owners, oldest first; for workers only. Damaged ones are left out."""
    found = []
    try:
        names = [entry.name for entry in os.scandir(jobs_folder(home))]
    except FileNotFoundError:
        return []
    for name in names:
        if ID.fullmatch(name):
            try:
                status = _read(jobs_folder(home) / name)
            except StoreError:
                continue
            if status is not None:
                found.append(status)
    return sorted(found, key=lambda status: (status.created_at, status.job_id))


def list_jobs(home: Path, *, owner: str) -> list[JobStatus]:
    """Return the jobs of an owner, newest first."""
    return [status for status in reversed(all_jobs(home)) if status.owner == owner]


def is_cancel_asked(folder: Path, attempt: int) -> bool:
    """Say whether somebody asked to cancel this attempt."""
    return (folder / f"{_CANCEL}-{attempt}").exists()


def cancel_job(home: Path, job_id: str, *, owner: str) -> JobStatus:
    """Cancel a job that waits at once, one that runs within seconds; an ended one is left alone."""
    status = read_status(home, job_id, owner=owner)
    folder = job_folder(home, job_id)
    if not status.is_open:
        return status
    (folder / f"{_CANCEL}-{status.attempt}").touch()
    if status.state == "queued" and win(folder, f"claim-{status.attempt}"):
        status = status.with_(state="cancelled", message="Cancelled", ended_at=now())
        write_status(folder, status)
        add_log(folder, "cancelled before it started")
    return read_status(home, job_id, owner=owner)


def retry_job(home: Path, job_id: str, *, owner: str) -> JobStatus:
    """Put an ended job into the queue again, with the same request.

    Raises
    ------
    JobFailed
        If the job still waits or runs.
    """
    status = read_status(home, job_id, owner=owner)
    folder = job_folder(home, job_id)
    if status.is_open:
        msg = f"The job is {status.state}."
        raise JobFailed(msg, "Cancel it first, or wait for its end.")
    if win(folder, f"retry-{status.attempt}"):
        fresh = JobStatus(
            job_id=job_id, kind=status.kind, state="queued", attempt=status.attempt + 1,
            owner=owner, created_at=status.created_at, message="Waiting for a worker",
        )  # fmt: skip
        write_status(folder, fresh)
        add_log(folder, f"queued again, attempt {fresh.attempt}")
    return read_status(home, job_id, owner=owner)


def delete_job(home: Path, job_id: str, *, owner: str) -> None:
    """Remove a job that has ended or still waits, with its log and files.

    Raises
    ------
    JobFailed
        If the job runs.
    """
    status = cancel_job(home, job_id, owner=owner)
    if status.is_open:
        msg = "The job is running and is being cancelled."
        raise JobFailed(msg, "Delete it when it has ended, in a few seconds.")
    remove_job(home, job_id)


def remove_job(home: Path, job_id: str) -> None:
    """Remove the folder of a job, at once for readers."""
    remove_folder(job_folder(home, job_id))


def add_log(folder: Path, text: str) -> None:
    """Add lines to the log that the job's owner reads, each with the time."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    lines = "".join(f"{stamp}  {line}\n" for line in text.splitlines() if line.strip())
    # One write of few bytes at the end of a file: lines of two processes do not mix.
    with (folder / "log.txt").open("ab", buffering=0) as log:
        log.write(lines.encode("utf-8", errors="replace"))


def read_log(home: Path, job_id: str, *, owner: str, tail: int = 200) -> str:
    """Return the last `tail` lines of a job's log."""
    read_status(home, job_id, owner=owner)
    path = job_folder(home, job_id) / "log.txt"
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - 400 * tail))
        text = log.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-tail:])
