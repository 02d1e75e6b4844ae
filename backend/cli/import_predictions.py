"""`python -m backend import-predictions`: bring in the predictions of any model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from backend.cli.output import results_folder
from backend.errors import InputError
from backend.evaluation.wording import plural
from backend.types import EXTERNAL, LABEL_LEVELS, PROTOCOLS

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("table", type=Path, nargs="?", metavar="FILE", help="CSV or Parquet")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: FAULTLINE_HOME")
    parser.add_argument("--name", help="what pages call the dataset (default: the file's name)")
    parser.add_argument(
        "--protocol",
        choices=(*PROTOCOLS, EXTERNAL),
        default=EXTERNAL,
        help=f"how cells were kept apart, if it is known (default: {EXTERNAL})",
    )
    parser.add_argument(
        "--label-level", choices=LABEL_LEVELS, help="default: fine where a label ends in -like"
    )
    parser.add_argument("--template", action="store_true", help="print an example table")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Import the table, or print the template."""
    from backend.config import home
    from backend.store.imports import NOT_RUN_HERE, import_predictions, template

    if args.template:
        print(template(), end="")
        return 0
    if args.table is None or not args.table.is_file():
        msg = f'There is no file "{args.table or ""}".'
        raise InputError(msg, "Name a CSV or Parquet table; --template prints an example.")
    out = args.out or home()
    with results_folder(out):
        done = import_predictions(
            args.table,
            out,
            name=args.name or args.table.stem,
            protocol=args.protocol,
            label_level=args.label_level,
        )
    if args.json:
        print(json.dumps(done.to_json(), ensure_ascii=False, indent=1))
        return 0
    n_cells = plural(done.n_cells, "cell")
    print(f"dataset {done.dataset_id}  {done.name}: {n_cells} ({NOT_RUN_HERE})")
    print(f"  {done.label_level} labels, protocol {done.protocol}")
    print(f"  models: {', '.join(done.models)}")
    if done.n_unlabelled:
        print(f"  {plural(done.n_unlabelled, 'cell')} without a label: not scored")
    for note in done.notes:
        print(f"note: {note}.")
    return 0
