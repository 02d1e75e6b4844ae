"""`python -m backend evaluate`: predict a file and score it against its own labels."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from backend.cli.predict import (
    add_file_arguments,
    evaluate_file,
    print_evaluated,
    print_predicted,
)
from backend.cli.predict import run as print_models
from backend.evaluation.wording import plural

if TYPE_CHECKING:
    import argparse

    from backend.prediction.evaluate import Evaluated

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    add_file_arguments(parser)
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="LABEL=TYPE",
        dest="labels",
        help='type of a label of the file; "LABEL=" leaves it out of all scores',
    )
    parser.add_argument(
        "--few",
        action="store_true",
        help="go on where under half of the labelled cells have a type of the models",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate the file; print the labels before any score."""
    from backend.data.problems import Refusal
    from backend.data.role_columns import NO_LABELS
    from backend.evaluation.mapping import given_names

    if args.list:
        return print_models(args)
    try:
        done = evaluate_file(args, is_scored=True, given=given_names(args.labels))
    except Refusal as refusal:
        if refusal.code != NO_LABELS:
            raise
        message = "No column holds cell types, so the cells are predicted and nothing is scored."
        print(message, file=sys.stderr)
        print_predicted(evaluate_file(args, is_scored=False), args)
        return 0
    sentences = _sentences(args, done)
    if args.json:
        values = done.to_json() | {"sentences": sentences}
        print(json.dumps(values, ensure_ascii=False, indent=1))
        return 0
    print("Labels of the file:")
    for match in done.labels:
        target = match.cell_type or "not scored"
        why = "; ".join(part for part in (match.how, match.term) if part and part != "none")
        if match.suggestion:
            why += f"; perhaps {match.suggestion}"
        print(f"  {match.label} → {target}  ({plural(match.n_cells, 'cell')}; {why})")
    for n, what in (
        (done.n_unlabelled, "without a label"),
        (done.n_unmapped, "with a label that the models cannot output"),
        (done.n_in_training, "in training"),
        (done.n_empty, "without counts, which get no call"),
    ):
        if n:
            print(f"{plural(n, 'cell')} {what}: predicted, not scored.")
    for sentence in sentences:
        print(sentence)
    print_evaluated(done, args)
    return 0


def _sentences(args: argparse.Namespace, done: Evaluated) -> list[str]:
    from backend.evaluation import views
    from backend.evaluation.wording import unescaped
    from backend.prediction.evaluate import BUDGET
    from backend.store.cache import PUBLIC, Store
    from backend.types import EXTERNAL, Scope

    with Store(":memory:", [(PUBLIC, args.out)]) as store:
        store.sync()
        scope = Scope(
            dataset_id=done.dataset_id,
            owner=PUBLIC,
            label_level=done.label_level,
            protocol=EXTERNAL,
            budget=BUDGET,
        )
        if not done.n_scored:
            return ["No cell can be scored."]
        return [unescaped(text) for text in views.overview(store, scope).sentences]
