"""`python -m backend clean`: remove cached tokens and the snapshots of unfinished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import InputError

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="the folder of runs that holds work/")
    where.add_argument("--work", type=Path, help="the work folder itself")


def run(args: argparse.Namespace) -> int:
    """Clean the folder, and say how much room that made."""
    from backend.training.fit_workspace import clean_workspace, is_workspace, workspace_folder

    work = args.work or workspace_folder(args.out)
    if not is_workspace(work):
        msg = f"{work} is no work folder: it was not made by a run."
        raise InputError(msg, "Name the folder that runs were given as --out or --work.")
    print(f"{clean_workspace(work) / 2**20:,.1f} MiB removed from {work}; results were not touched")
    return 0
