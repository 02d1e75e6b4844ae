"""`python -m backend jobs`: look at jobs, cancel, retry and delete them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from backend.config import home

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]

_ACTIONS = ("list", "show", "log", "cancel", "retry", "delete")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("job", nargs="?", help="id of a job; all actions but `list` need one")
    parser.add_argument("--owner", default="local", help="whose jobs (default: local)")
    parser.add_argument("--tail", type=int, default=200, help="lines of the log (default: 200)")
    parser.add_argument(
        "--home", type=Path, help="folder of jobs and runs (default: FAULTLINE_HOME)"
    )


def run(args: argparse.Namespace) -> int:
    """Do one thing with jobs."""
    from backend.errors import InputError
    from backend.jobs import directory

    where = (args.home or home()).expanduser()
    if args.action == "list":
        for status in directory.list_jobs(where, owner=args.owner):
            print(
                f"{status.job_id}  {status.created_at[:19]}  {status.kind:10}  {status.outcome:22}  "
                f"{status.progress:4.0%}  {status.message}"
            )
        return 0
    if args.job is None:
        msg = f"`jobs {args.action}` needs the id of a job."
        raise InputError(msg, "`python -m backend jobs list` shows them.")
    if args.action == "log":
        print(directory.read_log(where, args.job, owner=args.owner, tail=args.tail))
    elif args.action == "delete":
        directory.delete_job(where, args.job, owner=args.owner)
        print(f"deleted {args.job}")
    else:
        action = {
            "show": directory.read_status,
            "cancel": directory.cancel_job,
            "retry": directory.retry_job,
        }[args.action]
        print(json.dumps(dataclasses.asdict(action(where, args.job, owner=args.owner)), indent=1))
    return 0
