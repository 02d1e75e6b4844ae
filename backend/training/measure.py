"""Wall seconds and peak memory of a block."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Measured", "resident_mib"]

_SECONDS_BETWEEN_LOOKS: Final = 0.1
_SECONDS_BETWEEN_SEARCHES: Final = 2.0
"""Workers are searched for less often: it takes a look at every process of the machine."""


class Measured:
    """Measure a `with` block.

    Attributes
    ----------
    wall_seconds
        Time from the block's start to its end, or so far.
    peak_memory_mib
        Largest resident memory of this process and its workers seen in the block, looked at ten
        times a second.
    """

    peak_memory_mib: float = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._ended: float | None = None
        self._stop = threading.Event()
        self._workers: list[psutil.Process] = []
        self._search_due = 0.0
        self._look()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        self._ended = time.perf_counter()

    @property
    def wall_seconds(self) -> float:
        """Seconds since the start, up to the end of the block."""
        return (self._ended or time.perf_counter()) - self._started

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        if time.perf_counter() >= self._search_due:
            self._workers = psutil.Process().children(recursive=True)
            self._search_due = time.perf_counter() + _SECONDS_BETWEEN_SEARCHES
        self.peak_memory_mib = max(self.peak_memory_mib, resident_mib(self._workers))


def resident_mib(workers: Sequence[psutil.Process] = ()) -> float:
    """Return the resident memory of this process, and of some others that may have ended, in MiB."""
    total = 0
    for process in (psutil.Process(), *workers):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20
