"""The work folder of a fit: what can be made again, and makes going on cheap."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.config import home
from backend.training.token_cache import TokenCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from backend.training.progress import ProgressEvent

__all__ = [
    "CHECKPOINT_MINUTES",
    "DatasetWorkspace",
    "FitWorkspace",
    "clean_workspace",
    "is_workspace",
    "open_workspace",
    "workspace_folder",
]

CHECKPOINT_MINUTES: Final = 5.0
"""Between two snapshots of a fit; one is also written at the end of every epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitWorkspace:
    """Where a fit works, and whom it tells. Nothing of it changes a result.

    tokens
        Cache of the dataset's tokens; None tokenises in memory.
    run_id, snapshots
        Name of the fit, and the folder of its snapshots; None writes none.
    checkpoint_minutes
        Between two snapshots; 0 writes one after every step.
    workers
        Threads that make batches in advance; None is none on a CPU and some on a GPU.
    progress
        Called every few steps.
    """

    tokens: TokenCache | None = None
    run_id: str = ""
    snapshots: Path | None = None
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    workers: int | None = None
    progress: Callable[[ProgressEvent], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetWorkspace:
    """The work folder of the runs over one dataset.

    folder
        Holds `tokens/` and `fits/`; made when a fit first needs it.
    adata, dataset_id
        Every cell of the dataset, and its id.
    checkpoint_minutes, workers
        See `FitWorkspace`.
    """

    folder: Path
    adata: AnnData
    dataset_id: str
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    workers: int | None = None

    def of_run(self, run_id: str, progress: Callable[[ProgressEvent], None]) -> FitWorkspace:
        """Return the workspace of one fit."""
        open_workspace(self.folder)
        return FitWorkspace(
            tokens=TokenCache.of(self.folder / "tokens", self.dataset_id, self.adata),
            run_id=run_id,
            snapshots=self._fit_folder(run_id),
            checkpoint_minutes=self.checkpoint_minutes,
            workers=self.workers,
            progress=progress,
        )

    def remove_snapshots(self, run_id: str) -> None:
        """Remove the snapshots of a run."""
        shutil.rmtree(self._fit_folder(run_id), ignore_errors=True)

    def _fit_folder(self, run_id: str) -> Path:
        return self.folder / "fits" / run_id


def workspace_folder(out: Path | str, work: Path | None = None) -> Path:
    """Return the folder to work in: `work`, or one below `out`.

    Where bundles go to a URL, work stays on this machine (`FAULTLINE_HOME`).
    """
    if work is not None:
        return work
    return home() / "work" if "://" in str(out) else Path(out) / "work"


def open_workspace(folder: Path) -> Path:
    """Make a work folder that version control leaves alone, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


def is_workspace(folder: Path) -> bool:
    """Say whether a folder was made by `open_workspace`."""
    return (folder / ".gitignore").is_file()


def clean_workspace(folder: Path) -> int:
    """Remove cached tokens and snapshots; return how many bytes that freed."""
    freed = 0
    for name in ("tokens", "fits"):
        part = folder / name
        freed += sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        shutil.rmtree(part, ignore_errors=True)
    return freed
