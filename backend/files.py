"""Writing files so that they are complete or absent."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["complete_or_absent"]


@contextmanager
def complete_or_absent(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it when the block ends without an error.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        msg = f'There is no folder "{path.parent}" to write "{path.name}" to.'
        raise InputError(msg, "Make the folder first, or choose another place.")
    if path.is_dir():
        msg = f'"{path}" is a folder, not a file.'
        raise InputError(msg, "Give the name of the file to write.")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        msg = f'Cannot write to the folder "{path.parent}" ({error.strerror}).'
        raise InputError(msg, "Choose a folder that you may write to.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
