"""The folder that a verb writes results to: refused before any work, not left behind empty."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["results_folder"]


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make a folder for results; if nothing was written to it in the end, remove it again.

    Raises
    ------
    InputError
        If it cannot be made or written to.
    DiskFull
        If there was no room for the results.
    """
    from backend.files import full_disk_explained

    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            why = "it is a file" if folder.is_file() else (error.strerror or str(error)).lower()
            msg = f'Results cannot be written to "{folder}": {why}.'
            raise InputError(msg, "Give --out a folder that you may write to.") from error
        with full_disk_explained("the results"):
            yield
    finally:
        for path in made:
            # One that holds something stays, and so do those above it.
            with suppress(OSError):
                path.rmdir()
