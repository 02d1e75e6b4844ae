"""`python -m backend serve`: the dashboard and its workers, started and stopped together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--port", type=int, default=8501, help="port of the dashboard")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--workers", type=int, default=1, help="job workers (0: none here)")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the web process's exit code if that ended by itself."""
    from backend.jobs.serving import serve

    return serve(port=args.port, host=args.host, workers=args.workers)
