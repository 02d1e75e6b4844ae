"""`python -m backend pretrain`: make an in-house checkpoint from cells of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import InputError
from backend.types import PROTOCOLS

if TYPE_CHECKING:
    import argparse

    from backend.training.pretrain import PretrainEvent

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "--dataset", type=Path, required=True, help="an h5ad that `data check` accepts"
    )
    parser.add_argument("--model", required=True, help="scgpt, geneformer, scbert or scfoundation")
    parser.add_argument("--preset", default="small", help="size of the model (default: small)")
    parser.add_argument("--name", required=True, help="name for `run --checkpoint`")
    parser.add_argument(
        "--cells", metavar="CONDITION", help="only these cells, as \"timepoint == 'Healthy'\""
    )
    parser.add_argument(
        "--any-genes",
        action="store_true",
        help="take gene names as they are, also of other species",
    )
    parser.add_argument(
        "--fold",
        nargs="+",
        metavar="FOLD",
        help="one checkpoint for each fold, on its training cells: all, numbers from 0, or final",
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, help="of the split (default: donor)")
    parser.add_argument("--folds", type=int, help="of the split (default 5)")
    parser.add_argument("--split-seed", type=int, help="of the split (default 0)")
    parser.add_argument("--budget", help="of the split: full, equal or capN (default: equal)")
    parser.add_argument("--split", type=Path, metavar="FILE", help="use this frozen split")
    parser.add_argument("--seed", type=int, default=0, help="seed of pre-training (default 0)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="epochs, learning_rate, batch_size, max_steps, or an option of the model",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for checkpoints/ and splits/ (default: FAULTLINE_HOME)"
    )


def run(args: argparse.Namespace) -> int:
    """Pre-train, one checkpoint or one for each fold, and say how to use it."""
    from rich.console import Console

    from backend import config
    from backend.data import describe, load
    from backend.models import catalogue
    from backend.models.registry import model_class
    from backend.training.settings import find_preset, parse_settings

    settings = parse_settings(args.settings)
    catalogue.require_files(args.model)
    preset = find_preset(model_class(args.model), args.preset)
    of_split = ("protocol", "folds", "split_seed", "budget", "split")
    given = [name for name in of_split if getattr(args, name) is not None]
    if given and args.fold is None:
        msg = f"--{given[0].replace('_', '-')} names a split, but --fold is missing."
        raise InputError(msg, "Add --fold all, or leave it out to read cells of no split.")
    home = args.out or config.home()
    console = Console(stderr=True)
    with console.status(f"Reading {args.dataset.name}"):
        adata = load(args.dataset, any_genes=args.any_genes)
        info = describe(adata)
    from backend.data.cell_filter import cells_where
    from backend.training.pretrain import pretrain, pretrain_series

    mask = None if args.cells is None else cells_where(adata.obs, args.cells)
    with _Bar(console, f"{preset} {args.name}") as bar:
        common: dict[str, Any] = {
            "model": args.model,
            "preset": preset,
            "name": args.name,
            "home": home,
            "settings": settings,
            "seed": args.seed,
            "cells": args.cells,
            "progress": bar.show,
        }
        if args.fold is None:
            whole = adata.obs_names == adata.obs_names if mask is None else mask
            made = [pretrain(adata, whole, info=info, **common)]
        else:
            from backend.cli.run import folds_of, split_of

            split = split_of(args, adata, info.dataset_id, home)
            made = pretrain_series(
                adata, info, split, folds=folds_of(args.fold), mask=mask, **common
            )
    _print(made, args.model, args.name)
    if home.resolve() != config.home().resolve():
        folder = made[0] if args.fold is None else made[0].parent
        print(f"Register it elsewhere: checkpoints add {args.model} {folder} --name {args.name}")
    return 0


def _print(made: list[Path], model: str, name: str) -> None:
    from backend.models.inhouse import read_pretraining

    for folder in made:
        about = read_pretraining(folder)
        fold = "" if about.fold is None else f"fold {about.fold}  "
        print(
            f"{fold}{about.n_cells:,} cells of {len(about.donors)} donors  {about.steps:,} steps  "
            f"loss {about.final_loss:.4f}  {about.wall_seconds:.1f} s  {about.sha256[:16]}"
        )
    print(f"In-house checkpoint {name}: run --model {model} --init pretrained --checkpoint {name}")


class _Bar:
    """A rich progress bar over the epochs of the present checkpoint."""

    def __init__(self, console: Any, title: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        columns = (TextColumn("{task.description}"), BarColumn(), Elapsed())
        self._progress = Progress(*columns, TextColumn("{task.fields[state]}"), console=console)
        self._task = self._progress.add_task(title, total=1.0, state="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: PretrainEvent) -> None:
        """Show an event of `pretrain_series`."""
        fold = "" if event.fold is None else f"fold {event.fold}: "
        text = f"{fold}{event.state} {event.text}".strip()
        self._progress.update(self._task, completed=event.share, state=text)
