"""A disk that is full: one message for everything that training writes."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from backend.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DiskFull", "full_disk_explained", "is_disk_full"]

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(JobFailed):
    """There was no room left for what a run writes."""


def is_disk_full(error: OSError) -> bool:
    """Say whether an error means that there is no room left."""
    return error.errno in _NO_SPACE


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
