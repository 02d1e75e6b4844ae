"""`python -m backend run`: fit a model on the folds of a split and write bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.cli.roles import add_role_arguments, roles_of
from backend.errors import InputError, SplitError
from backend.types import INITS, LABEL_LEVELS, PROTOCOLS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["add_arguments", "add_split_arguments", "folds_of", "run", "split_fields"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "--dataset", type=Path, required=True, help="an h5ad that `data check` accepts"
    )
    parser.add_argument(
        "--model", required=True, help="majority, logreg, celltypist, hgb or a foundation model"
    )
    parser.add_argument(
        "--fold", nargs="+", default=["all"], help="all, numbers from 0, or final (default: all)"
    )
    parser.add_argument("--label-level", choices=LABEL_LEVELS, default="lineage")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for runs/, datasets/ and splits/"
    )
    add_split_arguments(parser)
    add_role_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the fit (default 0)")
    parser.add_argument("--preset", help="size of a foundation model, such as small")
    parser.add_argument(
        "--any-genes",
        action="store_true",
        help="take gene names as they are, also of other species",
    )
    parser.add_argument("--init", choices=INITS, default="scratch")
    parser.add_argument("--checkpoint", help="name of the checkpoint to start from")
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="go on where the checkpoint has seen validation or test cells; every view says so",
    )
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="share of the training cells (default 1)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="settings of the model, see docs/training.md",
    )
    parser.add_argument(
        "--work", type=Path, help="folder for tokens and snapshots (default: work/ below --out)"
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="N",
        help="between two snapshots, from which a killed run goes on (default 5)",
    )
    parser.add_argument(
        "--workers", type=int, help="threads that make batches in advance (default: as needed)"
    )


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that name a split, see `split_fields`."""
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, help="how cells are kept apart (default: donor)"
    )
    parser.add_argument("--folds", type=int, help="5 gives 70/10/20, 10 gives 80/10/10 (default 5)")
    parser.add_argument("--split-seed", type=int, help="seed of the split (default 0)")
    parser.add_argument("--budget", help="training cells: full, equal or capN (default: equal)")
    parser.add_argument("--split", type=Path, metavar="FILE", help="use this frozen split")


def run(args: argparse.Namespace) -> int:
    """Run the folds; return 1 when one failed."""
    from rich.console import Console

    from backend.cli.output import ProgressBar
    from backend.studies.executors.common import InProcess
    from backend.studies.plan import plan_of_one
    from backend.studies.prepare import prepare
    from backend.training.settings import parse_settings

    names = ("model", "preset", "init", "checkpoint", "label_level", "fraction", "seed")
    options = ("allow_overlap", "work", "checkpoint_minutes", "workers")
    plan = plan_of_one(
        {name: getattr(args, name) for name in names}
        | {"settings": parse_settings(args.settings)}
        | split_fields(args),
        dataset=args.dataset,
        folds=folds_of(args.fold),
        any_genes=args.any_genes,
        roles=roles_of(args),
        split=args.split,
        options={name: getattr(args, name) for name in options},
    )
    console = Console(stderr=True)
    with console.status(f"Reading {args.dataset.name}") as status:
        study = prepare(plan, args.out, is_written=True, say=status.update)
    for note in study.notes:
        print(f"note: {note}")
    for warning in study.warnings:
        console.print(f"split: {warning}", style="yellow", highlight=False, soft_wrap=True)
    series = study.runs[0].series
    texts = {each.key: f"fold {each.fold}" for each in study.waiting()}
    title = f"{series.configuration} · {series.protocol}"
    with ProgressBar(console, texts, title=title) as bar:
        results = study.results(study.execute(InProcess(), bar.show))
    print(f"series {series.series_id}")
    for each in results:
        seconds = "" if each.wall_seconds is None else f"  {each.wall_seconds:.1f} s"
        reason = f"  {each.reason}" if each.reason else ""
        print(f"  fold {each.fold}  {each.run_id}  {each.status}{seconds}{reason}")
    return 1 if any(each.status == "failed" for each in results) else 0


def folds_of(words: Sequence[str]) -> list[Any]:
    """Return the folds that words name: `all`, numbers and `final`."""
    if strange := [word for word in words if word not in ("all", "final") and not word.isdecimal()]:
        msg = f'"{strange[0]}" is not a fold.'
        raise InputError(msg, "Choose all, final, or numbers from 0.")
    return [int(word) if word.isdecimal() else word for word in words]


def split_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a series that name its split: given, of a frozen split, or defaults.

    Raises
    ------
    SplitError
        If an option contradicts the frozen split that was given beside it.
    """
    given = {"protocol": args.protocol, "folds": args.folds}
    given |= {"split_seed": args.split_seed, "budget": args.budget}
    known: dict[str, Any] = dict(zip(given, ("donor", 5, 0, "equal"), strict=True))
    if args.split is not None:
        from backend.splits import Split

        split = Split.load(args.split)
        known = dict(
            zip(given, (split.protocol, split.folds, split.seed, split.budget), strict=True)
        )
        for name, value in given.items():
            if value not in (None, known[name]):
                option = f"--{name.replace('_', '-')}"
                msg = f'{option} is "{value}", but the split in {args.split.name} has "{known[name]}".'
                raise SplitError(msg, f"Leave out {option}, or choose another split.")
    return known | {name: value for name, value in given.items() if value is not None}
