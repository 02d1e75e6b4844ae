"""Check many files in one process: `python -m tests.backend.hostile.checks FOLDER FIRST`.

Prints a line a file: the code of the first problem, or "read". A file that ends the process is the
one after the last line.
"""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

from backend.data.h5ad import check

SECONDS = 8.0


def main() -> None:
    """Check the files of a folder from a place on."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, path in enumerate(sorted(Path(sys.argv[1]).glob("*.h5ad"))):
        if number >= int(sys.argv[2]):
            # Time of the processor: a busy machine does not make a file bad.
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            report = check(path, quick=number % 2 == 0)
            print(report.problems[0].code if report.problems else "read", flush=True)


if __name__ == "__main__":
    main()
