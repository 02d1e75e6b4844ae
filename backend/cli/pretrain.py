"""`python -m backend pretrain`: make an in-house checkpoint from cells of a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.cli.run import add_split_arguments, folds_of, split_fields
from backend.errors import InputError

if TYPE_CHECKING:
    import argparse

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
    add_split_arguments(parser)
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
    from backend.types import Series

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
    from backend.cli.output import ProgressBar
    from backend.data.cell_filter import matching_cells
    from backend.studies.prepare import ensure_split
    from backend.training.pretrain import pretrain, pretrain_series

    mask = None if args.cells is None else matching_cells(adata.obs, args.cells)
    common: dict[str, Any] = {
        "model": args.model,
        "preset": preset,
        "name": args.name,
        "home": home,
        "settings": settings,
        "seed": args.seed,
        "cells": args.cells,
    }
    if args.fold is None:
        with ProgressBar(console, {"": preset}, title=args.name) as bar:
            whole = adata.obs_names == adata.obs_names if mask is None else mask
            made = [pretrain(adata, whole, info=info, progress=bar.show, **common)]
    else:
        split, _ = ensure_split(
            adata.obs,
            info.dataset_id,
            home / "splits",
            frozen=args.split,
            **split_fields(args),
        )
        series = Series(dataset_id="", model=args.model, protocol=split.protocol, folds=split.folds)
        folds = series.check_folds(folds_of(args.fold))
        texts = {str(fold): f"{preset} · fold {fold}" for fold in folds}
        with ProgressBar(console, texts, title=args.name) as bar:
            made = pretrain_series(
                adata,
                info,
                split,
                folds=folds,
                mask=mask,
                progress=lambda event: bar.show(replace(event, key=str(event.fold))),
                **common,
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
