"""A worker in a process of its own, with the handlers and the short patience of the tests."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from backend.jobs import handlers
from backend.jobs.handlers import Kind
from backend.jobs.worker import Worker

KINDS = {
    name: Kind(f"tests.backend.jobs.work:{name}", memory_gib=2.0, hours=0.1)
    for name in ("echo", "write_once", "sleep", "cling", "refuse", "crash", "die", "hog")
} | {"short": Kind("tests.backend.jobs.work:sleep", hours=3 / 3600)}

if __name__ == "__main__":
    handlers.KINDS.update(KINDS)
    worker = Worker(Path(sys.argv[1]), grace_seconds=1.0, heartbeat_seconds=0.3, stale_seconds=1.0)
    signal.signal(signal.SIGTERM, worker.stop)
    worker.run(once="--once" in sys.argv)
