"""`python -m backend split DATASET --out DIR`: freeze comparable splits and report leakage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from backend.types import PROTOCOLS

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("dataset", type=Path, help="an h5ad that `data check` accepts")
    parser.add_argument("--out", type=Path, required=True, help="folder for <protocol>.parquet")
    parser.add_argument(
        "--protocols", nargs="+", default=["random", "donor"], choices=PROTOCOLS, metavar="P"
    )
    parser.add_argument("--folds", type=int, default=5, help="5 gives 70/10/20, 10 gives 80/10/10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", default="equal", help="full, equal or capN (default: equal)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make the splits, save them and print sizes, warnings and leakage."""
    from backend.data import describe, load
    from backend.data.fingerprint import cell_fingerprints
    from backend.splits import leakage_report, make_splits
    from backend.splits.learnable import missing_strata

    adata = load(args.dataset)
    splits = make_splits(
        adata.obs,
        dataset_id=describe(adata).dataset_id,
        protocols=args.protocols,
        folds=args.folds,
        seed=args.seed,
        budget=args.budget,
    )
    prints = cell_fingerprints(adata)
    printed: dict[str, Any] = {}
    console = Console()
    for protocol, split in splits.items():
        path = args.out / f"{protocol}.parquet"
        split.save(path)
        report = leakage_report(split, adata.obs, fingerprints=prints)
        printed[protocol] = {
            "path": str(path),
            "sha256": split.sha256,
            "sizes": split.sizes().to_dict(orient="list"),
            "warnings": list(split.warnings),
            "coverage": split.coverage.to_dict(orient="records"),
            "leakage": report.to_json(),
        }
        if args.json:
            continue
        table = Table(title=f"{protocol}: {split.folds} folds, {split.sha256[:12]}")
        for column in ("fold", "train", "valid", "test"):
            table.add_column(column, justify="right")
        for fold, sizes in split.sizes().iterrows():
            table.add_row(str(fold), *(f"{n:,}" for n in sizes))
        console.print(table)
        gaps = missing_strata(split, adata.obs)
        for text in (*split.warnings, *report.sentences(), *gaps):
            console.print(f"- {text}", highlight=False)
    if args.json:
        print(json.dumps(printed))
    return 0
