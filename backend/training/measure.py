"""Wall seconds and peak memory of a block."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final, Self

__all__ = ["Measured", "resident_mib"]

_SECONDS_BETWEEN_LOOKS: Final = 0.1


class Measured:
    """Measure a `with` block.

    Attributes
    ----------
    wall_seconds
        Time from the block's start to its end, or so far.
    peak_memory_mib
        Largest resident memory of this process and its workers seen in the block, looked at ten
        times a second; where `/proc` is missing, the peak of this process since its start.
    """

    peak_memory_mib: float = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._ended: float | None = None
        self._stop = threading.Event()
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
        self.peak_memory_mib = max(self.peak_memory_mib, resident_mib())


def resident_mib() -> float:
    """Return the resident memory of this process and its workers in MiB; see `Measured`."""
    own = Path("/proc/self")
    if not (own / "status").exists():
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Bytes on macOS, KiB elsewhere.
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    total, waiting = 0.0, [own]
    while waiting:
        process = waiting.pop()
        try:
            status = (process / "status").read_text(encoding="utf-8", errors="replace")
            for task in (process / "task").iterdir():
                children = (task / "children").read_text(encoding="utf-8").split()
                waiting += [Path("/proc", child) for child in children]
        except OSError:
            # A worker may end between two looks.
            continue
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) / 2**10
    return total
