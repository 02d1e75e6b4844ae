"""Where things are: the only module that reads the environment."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["golden_dir", "home", "precomputed_dir", "project_root"]


def project_root() -> Path:
    """Return the folder that holds `app/`, `backend/` and `precomputed/`."""
    return Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder of store, runs, jobs and uploads (`FAULTLINE_HOME`, default ~/.faultline)."""
    return Path(os.environ.get("FAULTLINE_HOME") or Path.home() / ".faultline").expanduser()


def precomputed_dir() -> Path:
    """Return the folder of shipped bundles (`FAULTLINE_PRECOMPUTED`, default `precomputed/`)."""
    return Path(os.environ.get("FAULTLINE_PRECOMPUTED") or project_root() / "precomputed")


def golden_dir() -> Path:
    """Return the folder of golden fixtures (`FAULTLINE_GOLDEN`, default `tests/golden/fixtures`)."""
    return Path(
        os.environ.get("FAULTLINE_GOLDEN") or project_root() / "tests" / "golden" / "fixtures"
    )
