"""Writing: files and folders that are complete or absent, locks, claims, and a disk that is full."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.errors import FaultlineError, InputError, JobFailed, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "DiskFull",
    "check_room",
    "complete_or_absent",
    "explained",
    "full_disk_explained",
    "is_disk_full",
    "link_first",
    "locked",
    "published",
    "remove_folder",
    "remove_leftovers",
    "replaced",
    "write_text",
]

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_NEW, _OLD = ".tmp-", ".old-"
_LEFTOVER_SECONDS: Final = 24 * 3600
"""What killed writers left is removed once it is this old: no living writer can still own it."""


class DiskFull(JobFailed):
    """There was no room left for what was to be written."""


def is_disk_full(error: OSError) -> bool:
    """Say whether an error means that there is no room left."""
    # Libraries in C++ keep the system's words and lose its number.
    return error.errno in _NO_SPACE or "No space left on device" in str(error)


def explained(error: OSError) -> FaultlineError | None:
    """Return what a refusal of the system means to a person, or None where that is not known.

    Full disks, read-only folders and missing permissions are nobody's fault in the code.
    """
    name = f"`{error.filename}`" if error.filename else "a file"
    if isinstance(error, FaultlineError):
        return error
    if is_disk_full(error):
        msg = f"The disk is full: there is no room for {name}."
        return DiskFull(
            msg, "Free some space and start again: finished runs and snapshots are kept."
        )
    if error.errno in _NOT_ALLOWED:
        msg = f"{name} may not be used ({error.strerror})."
        hint = "Give a folder that you may write to. FAULTLINE_HOME names the one of Faultline."
        return InputError(msg, hint)
    if error.errno is not None and error.filename:
        return InputError(f"{name} cannot be used ({error.strerror}).", "Check the path.")
    return None


def check_room(folder: Path, n_bytes: int, what: str) -> None:
    """Refuse before a library that does not survive a full disk writes `n_bytes`.

    Raises
    ------
    DiskFull
        If there is less room in the folder.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        msg = f"The disk is full: {what} may need {n_bytes / 2**20:,.0f} MiB, {free / 2**20:,.0f} are free."
        raise DiskFull(msg, "Free some space, or write to another folder.")


@contextmanager
def full_disk_explained(what: str) -> Iterator[None]:
    """Raise `DiskFull` in the place of the system's error when there is no room for `what`."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        msg = f"The disk is full: there is no room for {what}."
        hint = "Free some space and start again: finished runs and snapshots are kept."
        raise DiskFull(msg, hint) from error


def _mark(name: str) -> str:
    """Return a name that no other writer of `name` uses."""
    return f"{name}-{os.getpid()}-{secrets.token_hex(4)}"


def _sync_to_disk(path: Path) -> None:
    """Flush a file or folder, so that a rename is never seen before what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replaced(path: Path, *, what: str | None = None, is_durable: bool = False) -> Iterator[Path]:
    """Yield a new path beside `path` that takes its name when the block ends without an error.

    Readers see the old file or the new one, and after an error the old one stays.

    Parameters
    ----------
    what
        The file in words, for the message when the disk is full.
    is_durable
        Flush the file before it is renamed: it outlives a power cut.

    Raises
    ------
    DiskFull
        If there is no room for the file.
    """
    # With the ending of the name, which some writers ask for or add.
    draft = path.with_name(f".{_mark(path.stem)}{path.suffix}")
    with full_disk_explained(what or f"`{path.name}`"):
        try:
            yield draft
            if is_durable:
                _sync_to_disk(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, is_durable: bool = False) -> None:
    """Write a file of text as `replaced` does."""
    with replaced(path, is_durable=is_durable) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def complete_or_absent(path: str | Path) -> Iterator[Path]:
    """Do what `replaced` does for a file that a person named.

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
    with replaced(path) as draft:
        try:
            draft.touch()
        except OSError as error:
            msg = f'Cannot write to the folder "{path.parent}" ({error.strerror}).'
            raise InputError(msg, "Choose a folder that you may write to.") from error
        yield draft


@contextmanager
def published(
    target: Path,
    *,
    keep: Callable[[Path], bool] = lambda _: False,
    what: str | None = None,
    is_durable: bool = False,
    mode: int = 0o777,
) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the block ends without an error.

    Parameters
    ----------
    target
        Complete or absent, whenever the process is killed; the folders above it are made.
    keep
        Says whether a `target` that is already there stays; otherwise it is replaced.
    what, is_durable
        See `replaced`.

    Raises
    ------
    DiskFull
        If there is no room for the folder.
    """
    parent = target.parent
    mark = _mark(target.name)
    new, old = parent / f"{_NEW}{mark}", parent / f"{_OLD}{mark}"
    with full_disk_explained(what or f"`{target.name}`"):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(parent)
            new.mkdir(mode)
            yield new
            if is_durable:
                for path in [*sorted(new.rglob("*"), reverse=True), new]:
                    _sync_to_disk(path)
            with locked(parent):
                if target.exists():
                    if keep(target):
                        return
                    target.rename(old)
                new.rename(target)
                if is_durable:
                    _sync_to_disk(parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that it holds, at once for readers; nothing when there is none."""
    doomed = path.with_name(f"{_OLD}{_mark(path.name)}")
    with suppress(FileNotFoundError):
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder."""
    limit = time.time() - _LEFTOVER_SECONDS
    for path in [*folder.glob(f"{_NEW}*"), *folder.glob(f"{_OLD}*")]:
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < limit:
                shutil.rmtree(path, ignore_errors=True)


def link_first(path: Path, text: str) -> bool:
    """Make a file unless it is there; return whether this process made it.

    A hard link fails when the name is taken, on network file systems too. Unlike a lock it is seen
    by other machines and outlives its maker. When the folder has vanished nothing is made.

    Raises
    ------
    StoreError
        If the file system has no hard links.
    """
    draft = path.with_name(f".{_mark(path.name)}")
    try:
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            # A server may answer "exists" to the repeat of a request that it had granted.
            return draft.stat().st_nlink == 2
        except OSError as error:
            if not path.parent.is_dir():
                return False
            msg = f"`{path.name}` lies on a file system without hard links ({error.strerror})."
            raise StoreError(msg, "Use a folder on a local disk or on NFS.") from error
    except FileNotFoundError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time look at and change the names in a folder.

    The lock is the kernel's, so a killed process leaves none behind.
    """
    # Most that import this module never lock.
    from filelock import FileLock

    path = folder / ".lock"
    # Whoever may write to the folder may take the lock.
    with FileLock(path, mode=0o666):
        try:
            yield
        finally:
            # One that waits for the removed file notices, and takes the new one.
            path.unlink(missing_ok=True)
