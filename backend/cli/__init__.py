"""`python -m backend`: one module per verb, imported only when its verb is used."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final

from backend.errors import FaultlineError, is_utf8, not_utf8
from backend.files import explained

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["main"]

_VERBS: Final = {
    "data": "import, check, simulate and subset datasets",
    "split": "make frozen splits and read their leakage report",
    "run": "fit a model on the folds of a split and write bundles",
    "pretrain": "make an in-house checkpoint from cells of a dataset",
    "sweep": "do every run of a plan, once: skip finished ones, go on after failures",
    "clean": "remove cached tokens and the snapshots of unfinished runs",
    "checkpoints": "list, verify and register the files of the models' authors",
    "store": "bring the query cache up to date",
    "runs": "list the runs of a results folder",
    "score": "print F1 with donor intervals",
    "genes": "test which genes separate failures from other cells",
    "predict": "name the cells of a file with stored models",
    "evaluate": "predict a file and score it against its own labels",
    "import-predictions": "bring in the predictions of any model",
    "serve": "the dashboard and its workers, started and stopped together",
    "worker": "run the jobs that wait",
    "jobs": "look at jobs, cancel, retry and delete them",
}
"""Verb to help line. Verb `x-y` lives in `backend.cli.x_y`: `add_arguments(parser)`, `run(args)`."""


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"backend.cli.{verb.replace('-', '_')}")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0, or 2 when the request or the system refused; a signal gives 128 and its number."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a letter, or a name that is no text, gets an escape in its place.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    strange = next((word for word in argv if not is_utf8(word)), None)
    if strange is not None:
        return _refused(not_utf8("The argument", strange))
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="Faultline: where single-cell foundation models break.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    wanted = next((word for word in argv if word in _VERBS), None)
    for verb, help_line in _VERBS.items():
        sub = verbs.add_parser(verb, help=help_line, description=help_line)
        if verb == wanted:
            _module(verb).add_arguments(sub)
    args = parser.parse_args(argv)
    try:
        code = int(_module(args.verb).run(args) or 0)
        sys.stdout.flush()
    except FaultlineError as error:
        return _refused(error)
    except BrokenPipeError:
        # Whoever read has enough; nothing more can be said there, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        meant = explained(error)
        if meant is None:
            raise
        return _refused(meant)
    return code


def _refused(error: FaultlineError) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint:  {error.hint}", file=sys.stderr)
    return 2
