"""`python -m backend worker`: run the jobs that wait."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from backend.config import home, served_by

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--once", action="store_true", help="run what waits, then stop")
    parser.add_argument(
        "--home", type=Path, help="folder of jobs and runs (default: FAULTLINE_HOME)"
    )


def run(args: argparse.Namespace) -> int:
    """Run jobs until SIGTERM or SIGINT; the job at work then goes back to the queue."""
    from backend.jobs.worker import Worker
    from backend.processes import end_with

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    worker = Worker((args.home or home()).expanduser().resolve())
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    end_with(served_by())
    worker.run(once=args.once)
    return 0
