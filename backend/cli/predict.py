"""`python -m backend predict`: name the cells of a file with stored models."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.cli.output import results_folder
from backend.cli.roles import add_role_arguments, roles_of
from backend.errors import InputError
from backend.evaluation.wording import plural
from backend.prediction.donor_names import DONOR_NAMES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from backend.prediction.evaluate import Evaluated
    from backend.prediction.saved_models import SavedModel

__all__ = [
    "add_arguments",
    "add_file_arguments",
    "evaluate_file",
    "print_evaluated",
    "print_predicted",
    "run",
]


_MOST_TYPES: Final = 5
"""Types of a donor that are named; the pages have all."""


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `predict` and `evaluate` share."""
    parser.add_argument(
        "--run", nargs="+", default=[], metavar="RUN_ID", help="final runs, of one label level"
    )
    parser.add_argument("--dataset", type=Path, metavar="FILE.h5ad", help="the cells")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for runs/ and datasets/ (bundles)"
    )
    parser.add_argument("--list", action="store_true", help="print the stored models")
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="where the runs are (default: the shipped and the own results)",
    )
    add_role_arguments(parser)
    parser.add_argument(
        "--donor-names",
        choices=DONOR_NAMES,
        default="ask",
        help="whether donors whose names occur in training data are the same people, who are not "
        "scored, or others; by default the study decides, and the cells themselves always",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE.h5ad",
        help="the file that the models were fitted on: says what genes that the dataset lacks cost",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    add_file_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Predict the file; no label of it is read."""
    if args.list:
        return _print_models(args)
    print_predicted(evaluate_file(args, is_scored=False), args)
    return 0


def evaluate_file(
    args: argparse.Namespace,
    *,
    is_scored: bool,
    given: Mapping[str, str | None] | None = None,
) -> Evaluated:
    """Do what the shared arguments ask for.

    Raises
    ------
    InputError
        If one of run, dataset and folder was not given.
    """
    from backend.prediction.evaluate import evaluate

    missing = [f"--{name}" for name in ("run", "dataset", "out") if not getattr(args, name)]
    if missing:
        msg = f"{', '.join(missing)} is missing."
        raise InputError(msg, "Give --run, --dataset and --out; --list prints the stored models.")
    models = _models(args)
    with results_folder(args.out), _bar("Predicting") as update:
        return evaluate(
            args.dataset,
            models,
            args.out,
            roles=roles_of(args),
            donor_names=args.donor_names,
            given=given,
            is_scored=is_scored,
            least_scored=0.0 if not is_scored or args.few else 0.5,
            device=args.device,
            reference=args.reference,
            progress=update,
        )


def print_predicted(done: Evaluated, args: argparse.Namespace) -> None:
    """Say what the cells are called, which accuracy is to be expected, and where the results are."""
    sentences = _unscored(done, args)
    if args.json:
        values = done.to_json() | {"sentences": sentences}
        print(json.dumps(values, ensure_ascii=False, indent=1))
        return
    for sentence in sentences:
        print(sentence)
    print_evaluated(done, args)


def _unscored(done: Evaluated, args: argparse.Namespace) -> list[str]:
    """Return accuracy to expect and composition, which need no label."""
    from backend.evaluation import views
    from backend.evaluation.wording import unescaped
    from backend.prediction.evaluate import BUDGET
    from backend.store.cache import PUBLIC, Store
    from backend.types import EXTERNAL, Scope

    scope = Scope(
        dataset_id=done.dataset_id,
        owner=PUBLIC,
        label_level=done.label_level,
        protocol=EXTERNAL,
        budget=BUDGET,
    )
    roots = list(dict.fromkeys(map(str, (*_roots(args), args.out))))
    said: list[str] = []
    with Store(":memory:", [(PUBLIC, root) for root in roots]) as store:
        store.sync()
        said += [
            f"{guess.display_name}. {unescaped(guess.sentence())}"
            for guess in views.expected_accuracy(store, scope)
        ]
        for found in views.compositions(store, scope):
            said += [f"{found.display_name}. {text}" for text in found.lines(_MOST_TYPES)]
    return said


def print_evaluated(done: Evaluated, args: argparse.Namespace) -> None:
    """Say what became of the cells, and where the results are."""
    if args.json:
        print(json.dumps(done.to_json(), ensure_ascii=False, indent=1))
        return
    print(f"dataset {done.dataset_id}  {done.name}: {plural(done.n_cells, 'cell')}")
    for run_id in done.run_ids:
        share = done.outside[run_id]
        outside = (
            ""
            if share is None
            else f"  {share * 100:.1f} % of the cells lie outside its training data"
        )
        print(f"  run {run_id}{outside}")
    for note in done.notes:
        print(f"note: {note}")
    print(f"Bundles are in {args.out}; FAULTLINE_HOME={args.out} shows them on the pages.")


def _roots(args: argparse.Namespace) -> list[Any]:
    from backend.prediction.saved_models import visible_roots

    return visible_roots("local") if args.models is None else [args.models]


def _models(args: argparse.Namespace) -> list[SavedModel]:
    from backend.prediction.saved_models import find_saved_model

    roots = _roots(args)
    return [find_saved_model(run_id, roots) for run_id in dict.fromkeys(args.run)]


def _print_models(args: argparse.Namespace) -> int:
    from backend.prediction.model_choices import describe_models
    from backend.prediction.saved_models import list_saved_models
    from backend.store.cache import PUBLIC, Store

    roots = _roots(args)
    with Store(":memory:", [(PUBLIC, root) for root in roots]) as store:
        store.sync()
        table = describe_models(store, list_saved_models(roots), owner=PUBLIC)
    if args.json:
        print(json.dumps(table.to_dict("records"), ensure_ascii=False, indent=1, default=list))
        return 0
    if table.empty:
        print("No stored models. `python -m backend run --fold final` makes one.")
    for row in table.itertuples():
        print(
            f"{row.run_id}  {row.display_name}, {row.label_level} labels, fitted on "
            f"{row.trained_on} ({row.n_train:,} cells, {row.n_train_donors} donors)"
        )
        print(f"  {row.quality}")
        print(f"  types: {', '.join(row.types)}")
    return 0


@contextmanager
def _bar(title: str) -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share, message: bar.update(task, completed=share, description=message)
