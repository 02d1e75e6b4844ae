"""`python -m backend run`: fit a model on the folds of a split and write bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import InputError, SplitError
from backend.types import INITS, LABEL_LEVELS, PROTOCOLS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from anndata import AnnData

    from backend.splits import Split
    from backend.training.runs import Fold, RunEvent, RunResult

__all__ = ["add_arguments", "folds_of", "run", "split_of"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "--dataset", type=Path, required=True, help="an h5ad that `data check` accepts"
    )
    parser.add_argument(
        "--model", required=True, help="majority, logreg, celltypist, hgb or a foundation model"
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, help="how cells are kept apart (default: donor)"
    )
    parser.add_argument(
        "--fold", nargs="+", default=["all"], help="all, numbers from 0, or final (default: all)"
    )
    parser.add_argument("--label-level", choices=LABEL_LEVELS, default="lineage")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for runs/, datasets/ and splits/"
    )
    parser.add_argument("--folds", type=int, help="5 gives 70/10/20, 10 gives 80/10/10 (default 5)")
    parser.add_argument("--split-seed", type=int, help="seed of the split (default 0)")
    parser.add_argument("--budget", help="training cells: full, equal or capN (default: equal)")
    parser.add_argument("--split", type=Path, metavar="FILE", help="use this frozen split")
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


def run(args: argparse.Namespace) -> int:
    """Run the folds; return 1 when one failed."""
    from rich.console import Console

    from backend.data import describe, load
    from backend.models.registry import model_class
    from backend.store.bundle import write_dataset
    from backend.training.runs import build_typer, has_dataset, run_series
    from backend.training.settings import find_preset, parse_settings
    from backend.types import Series

    folds = folds_of(args.fold)
    settings = parse_settings(args.settings)
    model = model_class(args.model)
    is_foundation = model.kind == "foundation"
    preset = find_preset(model, args.preset) if is_foundation else args.preset
    asked = {
        "model": args.model,
        "preset": preset,
        "init": args.init,
        "checkpoint": args.checkpoint,
        "label_level": args.label_level,
        "fraction": args.fraction,
        "settings": settings,
        "seed": args.seed,
    }
    # Refuses an impossible model before the data is read.
    build_typer(Series(dataset_id="", protocol="", **asked))
    console = Console(stderr=True)
    with console.status(f"Reading {args.dataset.name}"):
        adata = load(args.dataset, any_genes=args.any_genes)
        info = describe(adata)
    split = split_of(args, adata, info.dataset_id, args.out)
    series = Series(
        dataset_id=info.dataset_id,
        protocol=split.protocol,
        folds=split.folds,
        split_seed=split.seed,
        budget=split.budget,
        **asked,
    )
    for warning in split.warnings:
        console.print(f"split: {warning}", style="yellow", highlight=False, soft_wrap=True)
    if not has_dataset(args.out, info.dataset_id):
        from backend.data import cells_and_neighbours

        with console.status("Placing cells on a map"):
            cells, neighbours = cells_and_neighbours(adata)
        write_dataset(args.out, info.to_json(), cells, neighbours=neighbours)

    n_folds = split.folds if folds == "all" else len(folds)
    with _Bar(console, f"{series.configuration} · {series.protocol}", n_folds) as bar:
        results = run_series(
            adata,
            info,
            None,
            split,
            series,
            out=args.out,
            folds=folds,
            progress=bar.show,
            allow_overlap=args.allow_overlap,
            work=args.work,
            checkpoint_minutes=args.checkpoint_minutes,
            workers=args.workers,
        )
    _print_results(results, series.series_id)
    return 1 if any(result.status == "failed" for result in results) else 0


def folds_of(words: Sequence[str]) -> Any:
    """Return `all`, or a list of fold numbers and `final`."""
    if list(words) == ["all"]:
        return "all"
    folds: list[Fold] = []
    for word in words:
        if word == "final":
            folds.append("final")
        elif word.isdecimal():
            folds.append(int(word))
        else:
            msg = f'"{word}" is not a fold.'
            raise InputError(msg, "Choose all, final, or numbers from 0.")
    return folds


def split_of(args: argparse.Namespace, adata: AnnData, dataset_id: str, out: Path) -> Split:
    """Return the frozen split, made and stored under `splits/` of `out` when it is not there yet."""
    from backend.splits import Split
    from backend.splits.stored import stored_split

    if args.split is not None:
        split = Split.load(args.split)
        for option, given, found in (
            ("--protocol", args.protocol, split.protocol),
            ("--folds", args.folds, split.folds),
            ("--split-seed", args.split_seed, split.seed),
            ("--budget", args.budget, split.budget),
        ):
            if given is not None and given != found:
                msg = f'{option} is "{given}", but the split in {args.split.name} has "{found}".'
                raise SplitError(msg, f"Leave out {option}, or choose another split.")
        if split.dataset_id != dataset_id:
            msg = f"The split was made from dataset {split.dataset_id}; this one is {dataset_id}."
            raise SplitError(msg, "Use the dataset that the split was made from.")
        name = f"{split.sha256[:16]}.parquet"
        if not (out / "splits" / name).exists():
            split.save(out / "splits" / name)
        return split

    return stored_split(
        out / "splits",
        adata.obs,
        args.protocol or "donor",
        dataset_id=dataset_id,
        folds=5 if args.folds is None else args.folds,
        seed=args.split_seed or 0,
        budget=args.budget or "equal",
    )


class _Bar:
    """A rich progress bar over folds, which also moves within a fit."""

    def __init__(self, console: Any, title: str, n_folds: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[n_over]}/{task.total:.0f}"),
            Elapsed(),
            TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._n_over = 0
        self._task = self._progress.add_task(title, total=n_folds, state="", n_over=0)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: RunEvent) -> None:
        """Show an event of `run_series`."""
        self._n_over += event.state in ("done", "failed", "skipped")
        self._progress.update(
            self._task,
            completed=self._n_over + (event.share or 0.0),
            n_over=self._n_over,
            state=f"fold {event.fold}: {event.state} {event.text}".strip(),
        )
        if event.state == "failed":
            text = f"fold {event.fold} failed: {event.text}"
            self._progress.console.print(text, style="red", markup=False, soft_wrap=True)


def _print_results(results: Sequence[RunResult], series_id: str) -> None:
    print(f"series {series_id}")
    for result in results:
        seconds = "" if result.wall_seconds is None else f"  {result.wall_seconds:.1f} s"
        reason = f"  {result.reason}" if result.reason else ""
        print(f"  fold {result.fold}  {result.run_id}  {result.status}{seconds}{reason}")
