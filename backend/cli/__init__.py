"""`python -m backend`: one module per verb, imported only when its verb is used."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Final

from backend.errors import FaultlineError

__all__ = ["main"]

_VERBS: Final = {
    "data": "import, check, simulate and subset datasets",
    "split": "make frozen splits and read their leakage report",
    "run": "fit a model on the folds of a split and write bundles",
    "sweep": "do every run of a plan, once: skip finished ones, go on after failures",
    "checkpoints": "list, verify and register the files of the models' authors",
    "store": "bring the query cache up to date",
    "score": "print F1 with donor intervals",
    "serve": "the dashboard and its workers, started and stopped together",
    "worker": "run the jobs that wait",
    "jobs": "look at jobs, cancel, retry and delete them",
}
"""Verb to help line. Verb `x` lives in `backend.cli.x` as `add_arguments(parser)` and `run(args)`."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0, or 2 when a `FaultlineError` refused the request."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="Faultline: where single-cell foundation models break.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    wanted = next((word for word in argv if word in _VERBS), None)
    for verb, help_line in _VERBS.items():
        sub = verbs.add_parser(verb, help=help_line, description=help_line)
        if verb == wanted:
            importlib.import_module(f"backend.cli.{verb}").add_arguments(sub)
    args = parser.parse_args(argv)
    try:
        return int(importlib.import_module(f"backend.cli.{args.verb}").run(args) or 0)
    except FaultlineError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint:  {error.hint}", file=sys.stderr)
        return 2
