"""`python -m backend runs`: list the runs of a results folder, or write the list beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from backend.config import precomputed_dir

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, help_line in (
        ("list", "print which fit each run id stands for"),
        ("index", "write that list to `index.csv` in the folder"),
    ):
        sub = actions.add_parser(action, help=help_line, description=help_line)
        sub.add_argument(
            "folder", nargs="?", help="results folder or URL (default: the shipped results)"
        )
        if action == "list":
            form = sub.add_mutually_exclusive_group()
            form.add_argument("--json", action="store_true", help="print a JSON array")
            form.add_argument("--csv", action="store_true", help="print what `index.csv` holds")


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    from backend.errors import InputError
    from backend.store.index import index_of, write_index
    from backend.store.roots import is_url

    def warn(text: str) -> None:
        print(f"not listed: {text}", file=sys.stderr)

    root = args.folder or precomputed_dir()
    root = root if is_url(root) else Path(root)
    if args.action == "index":
        if isinstance(root, str):
            msg = f'An index is written to a folder, not to "{root}".'
            raise InputError(msg, "Print it: `python -m backend runs list URL --csv`.")
        print(write_index(root, warn=warn))
        return 0
    runs = index_of(root, warn=warn)
    if args.json:
        print(runs.to_json(orient="records", indent=1))
    elif args.csv:
        print(runs.to_csv(index=False, lineterminator="\n"), end="")
    else:
        print(runs.to_string(index=False))
        print(f"{len(runs)} runs of {runs['series_id'].nunique()} series in {root}")
    return 0
