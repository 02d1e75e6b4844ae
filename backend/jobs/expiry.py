"""What users left is removed after some days, or at once when they ask."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from backend.errors import JobFailed
from backend.files import remove_folder, remove_leftovers
from backend.jobs.directory import (
    all_jobs,
    cancel_job,
    check_owner,
    jobs_folder,
    list_jobs,
    remove_job,
    seconds_since,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["delete_all", "expire", "expires_at"]

_DAY: Final = 24 * 3600.0
_UPLOADS_FIRST: Final = ("runs", "datasets")
"""Bundles are looked at in this order: a dataset goes when no run of it is left."""
_OWNED: Final = ("selections", "marks")
"""Folders of `home` that hold one folder an owner, beside `users`."""


def expires_at(days: float, since: str | None = None) -> datetime:
    """Return when what is made now, or was made at `since` (ISO 8601), is removed."""
    start = datetime.now(UTC) if since is None else datetime.fromisoformat(since)
    return start + timedelta(days=days)


def _age(path: Path) -> float:
    """Return the seconds since a file, or a folder and what lies directly in it, was changed."""
    try:
        newest = path.stat(follow_symlinks=False).st_mtime
        if path.is_dir() and not path.is_symlink():
            for entry in os.scandir(path):
                newest = max(newest, entry.stat(follow_symlinks=False).st_mtime)
    except FileNotFoundError:
        return 0.0
    return max(0.0, time.time() - newest)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _datasets_of_runs(owned: Path) -> set[str]:
    """Return the datasets that the runs left below a user's folder refer to."""
    found = set()
    for record in owned.glob("runs/*/run.json"):
        try:
            found.add(str(json.loads(record.read_text(encoding="utf-8")).get("dataset_id")))
        except (FileNotFoundError, ValueError, AttributeError):
            continue
    return found


def expire(home: Path, *, days: float) -> int:
    """Remove jobs, uploads with their bundles, and selections older than `days`; count them.

    A running job stays, and so does all that its owner uploaded.
    """
    oldest = days * _DAY
    n_removed = 0
    busy = set()
    for status in all_jobs(home):
        if status.is_open:
            busy.add(status.owner)
        elif seconds_since(status.ended_at or status.created_at) > oldest:
            remove_job(home, status.job_id)
            n_removed += 1
    remove_leftovers(jobs_folder(home))
    for owned in _children(home / "users"):
        if owned.name in busy:
            continue
        kinds = [kind for kind in _children(owned) if kind.is_dir()]
        kinds.sort(key=lambda kind: (kind.name in _UPLOADS_FIRST, kind.name == "datasets"))
        for kind in kinds:
            needed = _datasets_of_runs(owned) if kind.name == "datasets" else set()
            for path in _children(kind):
                if path.name not in needed and _age(path) > oldest:
                    _remove(path)
                    n_removed += 1
    for name in _OWNED:
        for owned in _children(home / name):
            for path in _children(owned):
                if _age(path) > oldest:
                    _remove(path)
                    n_removed += 1
    return n_removed


def delete_all(home: Path, *, owner: str) -> None:
    """Remove at once what an owner has here: jobs, uploads with their bundles, selections, marks.

    Raises
    ------
    JobFailed
        If a job runs; it has been asked to end, and nothing is removed yet.
    """
    check_owner(owner)
    open_jobs = [
        cancel_job(home, status.job_id, owner=owner) for status in list_jobs(home, owner=owner)
    ]
    n_running = sum(status.is_open for status in open_jobs)
    if n_running:
        msg = f"{n_running} of your jobs are running and are being cancelled."
        raise JobFailed(msg, "Ask again when they have ended, in a few seconds.")
    for status in open_jobs:
        remove_job(home, status.job_id)
    for name in ("users", *_OWNED):
        _remove(home / name / owner)
