"""What the Methods page shows of files and of the packages in use."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from backend.config import project_root

__all__ = ["document", "package_versions"]

_PACKAGES = ("streamlit", "altair", "duckdb", "pandas", "numpy", "scikit-learn", "celltypist")


def document(name: str) -> str | None:
    """Return a page of `docs/` as Markdown, or None when it is missing."""
    path = project_root() / "docs" / Path(name).name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that this process computes and draws with."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
