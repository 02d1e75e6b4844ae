"""Where things are: the only module that reads the environment."""

from __future__ import annotations

import math
import os
from pathlib import Path

from backend.errors import InputError, is_utf8, not_utf8

__all__ = [
    "allows_anonymous_write",
    "data_dirs",
    "environment",
    "golden_dir",
    "home",
    "is_behind_proxy",
    "job_hours",
    "job_memory_gib",
    "keep_days",
    "precomputed_dir",
    "project_root",
    "served_by",
]


def project_root() -> Path:
    """Return the folder that holds `app/`, `backend/` and `precomputed/`."""
    return Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder of store, runs, jobs and uploads (`FAULTLINE_HOME`, default ~/.faultline)."""
    try:
        return _folder("FAULTLINE_HOME") or Path.home() / ".faultline"
    except RuntimeError:
        msg = "There is no home folder."
        raise InputError(msg, "Set FAULTLINE_HOME to a folder that you may write to.") from None


def precomputed_dir() -> Path:
    """Return the folder of shipped bundles (`FAULTLINE_PRECOMPUTED`, default `precomputed/`)."""
    return _folder("FAULTLINE_PRECOMPUTED") or project_root() / "precomputed"


def golden_dir() -> Path:
    """Return the folder of golden fixtures (`FAULTLINE_GOLDEN`, default `tests/golden/fixtures`)."""
    return Path(
        os.environ.get("FAULTLINE_GOLDEN") or project_root() / "tests" / "golden" / "fixtures"
    )


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a child process: ours, the root importable, and `changes`."""
    return dict(os.environ) | {"PYTHONPATH": str(project_root())} | changes


def allows_anonymous_write() -> bool:
    """Say whether visitors without sign-in may write (`FAULTLINE_ANONYMOUS_WRITE=1`)."""
    return os.environ.get("FAULTLINE_ANONYMOUS_WRITE") == "1"


def is_behind_proxy() -> bool:
    """Say whether visitors come through a proxy (`FAULTLINE_BEHIND_PROXY`, anything but empty or 0)."""
    return os.environ.get("FAULTLINE_BEHIND_PROXY", "") not in ("", "0")


def served_by() -> int | None:
    """Return the process that started this one to serve (`FAULTLINE_SERVED_BY`), or None."""
    text = os.environ.get("FAULTLINE_SERVED_BY", "")
    return int(text) if text.isdecimal() else None


def data_dirs() -> tuple[Path, ...]:
    """Return the server's data folders that users may choose files from (`FAULTLINE_DATA_DIRS`)."""
    words = _text("FAULTLINE_DATA_DIRS").split(os.pathsep)
    return tuple(Path(word).expanduser() for word in words if word.strip())


def keep_days() -> float:
    """Return how long uploads, jobs and selections are kept (`FAULTLINE_KEEP_DAYS`, default 7)."""
    return _positive("FAULTLINE_KEEP_DAYS") or 7.0


def job_memory_gib() -> float | None:
    """Return the memory that one job may use (`FAULTLINE_JOB_MEMORY_GIB`), None for its kind's."""
    return _positive("FAULTLINE_JOB_MEMORY_GIB")


def job_hours() -> float | None:
    """Return how long one job may run (`FAULTLINE_JOB_HOURS`), None for its kind's own limit."""
    return _positive("FAULTLINE_JOB_HOURS")


def _text(name: str) -> str:
    text = os.environ.get(name, "")
    if not is_utf8(text):
        raise not_utf8(name, text)
    return text


def _folder(name: str) -> Path | None:
    text = _text(name)
    return Path(text).expanduser() if text else None


def _positive(name: str) -> float | None:
    """Return a number above 0 from the environment, or None when it is not set."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        msg = f'{name} is "{text}".'
        raise InputError(msg, "Set it to a number above 0, or leave it out.")
    return value
