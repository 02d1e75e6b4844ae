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
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=LABEL",
        dest="words",
        help="the label that a predicted name means",
    )
    parser.add_argument(
        "--accept-mapping",
        action="store_true",
        help="read predictions in the words of the labels, as the refusal lists them",
    )
    parser.add_argument(
        "--as-written", action="store_true", help="keep predictions apart that are no label"
    )
    parser.add_argument(
        "--add-to",
        metavar="DATASET_ID",
        help="join a dataset that holds the same cells, with its labels, donors and map",
    )
    parser.add_argument("--template", action="store_true", help="print an example table")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Import the table, or print the template."""
    from backend.config import home
    from backend.evaluation.mapping import given_names
    from backend.prediction.imported_table import check_table, check_words
    from backend.prediction.saved_models import visible_roots
    from backend.store.imports import NOT_RUN_HERE, import_predictions, template

    if args.template:
        print(template(), end="")
        return 0
    if args.table is None or not args.table.is_file():
        msg = f'There is no file "{args.table or ""}".'
        raise InputError(msg, "Name a CSV or Parquet table; --template prints an example.")
    out = args.out or home()
    with results_folder(out):
        roots = list(dict.fromkeys([out, *visible_roots("local")]))
        found = check_table(args.table, roots)
        predicted_as = check_words(
            found,
            {name: label or "" for name, label in given_names(args.words).items()},
            is_accepted=args.accept_mapping,
            is_as_written=args.as_written,
        )
        done = import_predictions(
            args.table,
            out,
            name=args.name or args.table.stem,
            protocol=args.protocol,
            label_level=args.label_level,
            predicted_as=predicted_as,
            add_to=args.add_to,
            roots=roots,
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
    for known in found.known if args.add_to is None else ():
        print(
            f"note: {plural(known.n_cells, 'cell')} ({known.share:.0%}) bear the ids of dataset "
            f'{known.dataset_id} ("{known.name}"): --add-to {known.dataset_id} joins it, with its '
            "labels, donors and map."
        )
    for note in done.notes:
        print(f"note: {note}.")
    return 0
