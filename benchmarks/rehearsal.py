"""The study's five full-size models from checkpoint to bundle on a CPU: seconds a step and memory.

Usage: python benchmarks/rehearsal.py [--presets NAME ...] [--cells 200] [--steps 3] [--batch 2]
                                      [--checkpoints DIR] [--folder DIR]

A stand-in of the Ennis 2023 atlas (18,000 genes) is simulated and cut to a subset with the study's
shares of the timepoints. Each preset then registers a checkpoint, fine-tunes some steps in float32 by
its authors' recipe, predicts the validation and test cells of the first of ten folds, and leaves a
bundle that the store reads. `DIR/PRESET` of --checkpoints holds the authors' files; a preset without
such a folder gets files of the published names, shapes and types with random numbers, so its scores
mean nothing. Each preset runs in a process of its own, so that its peak memory is its own (Linux).
The exit code is 1 if one fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.config import environment, project_root
from backend.training.measure import Measured

ROOT = project_root()
TABLE = "{:<22}{:>10}{:>9}{:>9}{:>9}{:>16}{:>11}"

PRESETS = (
    "scgpt.whole_human",
    "geneformer.v1_10m",
    "geneformer.v2_104m",
    "scbert.panglao",
    "scfoundation.cell_01b",
)
SHARES = "Healthy=.25,Diagnosis=.30,Post-treatment=.22,Relapse=.22"
FOLDS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--folder", type=Path, help="where files are made; needs about 3 GB")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(CHILDREN[args.child](args, args.presets[0])))
        return 0
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        args.folder = Path(name)
        return rehearse(args)


def rehearse(args: argparse.Namespace) -> int:
    # The least that the composition can be spread over, or enough for the subset.
    n_cells = str(max(500, 2 * args.cells))
    backend("data", "simulate", args.folder / "all.h5ad", "--like", "ennis2023", "--cells", n_cells)
    cut = ("--shares", SHARES, "--cells", str(args.cells))
    backend("data", "subset", args.folder / "all.h5ad", args.folder / "cells.h5ad", *cut)
    # Writes the dataset's bundle with the map of its cells, which is no model's memory.
    baseline = ("--model", "majority", "--protocol", "random", "--folds", str(FOLDS))
    place = ("--dataset", args.folder / "cells.h5ad", "--out", args.folder / "home")
    backend("run", *baseline, "--fold", "0", "--budget", "full", *place)
    print(
        f"{args.cells:,} simulated cells × 18,000 genes, first of {FOLDS} folds; {args.steps} steps "
        f"of {args.batch} cells, float32, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    print(TABLE.format("preset", "file", "loaded", "reading", "a step", "predicting", "peak"))
    is_good = True
    for preset in args.presets:
        given = args.checkpoints / preset if args.checkpoints else None
        folder = args.folder / preset
        if given is not None and given.is_dir():
            folder.symlink_to(given.resolve())
        else:
            child("write", args, preset)
        found = child("fit", args, preset)
        is_good &= found["status"] == "done"
        if found["status"] != "done":
            print(f"{preset:<22}{found['status']}: {found['reason']}", flush=True)
        else:
            row = (
                preset,
                f"{found['mib']:,.0f} MiB",
                f"{found['share']:.1%}",
                f"{found['reading']:.1f} s",
                f"{found['step']:.2f} s",
                f"{found['n_predicted']} in {found['predicting']:.1f} s",
                f"{found['peak_mib']:,.0f} MiB",
            )
            print(TABLE.format(*row), flush=True)
        if not folder.is_symlink():
            shutil.rmtree(folder)
    stored = child("read", args, args.presets[0])
    print(
        f"The store reads {stored['n_runs']} runs; F1 by timepoint of {stored['n_series']} series at "
        f"{', '.join(stored['timepoints'])}."
    )
    return 0 if is_good and stored["n_runs"] == len(args.presets) + 1 else 1


def backend(*words: object) -> None:
    """Run a command of the product; its words are shown only when it fails."""
    command = [sys.executable, "-m", "backend", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def child(what: str, args: argparse.Namespace, preset: str) -> dict:
    sizes = ("--cells", args.cells, "--steps", args.steps, "--batch", args.batch)
    words = ("--child", what, "--presets", preset, "--folder", args.folder, *sizes)
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(
        command,
        env=environment(FAULTLINE_HOME=str(args.folder / "home")),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def write_checkpoint(folder: Path, preset: str, cells: Path) -> None:
    """Write files of the published layout over the genes of a data set."""
    from backend.data.genes import gene_table
    from backend.data.h5ad import open_dataset
    from tests.published import write_published

    with open_dataset(cells) as dataset:
        symbols = list(dataset.found.genes.symbols)
    ids = gene_table().ensembl_of
    genes = [ids[symbol] for symbol in symbols] if preset.startswith("geneformer") else symbols
    write_published(preset, folder, genes)


def write(args: argparse.Namespace, preset: str) -> dict:
    write_checkpoint(args.folder / preset, preset, args.folder / "cells.h5ad")
    return {}


def fit(args: argparse.Namespace, preset: str) -> dict:
    """Register the checkpoint and run the first fold, as the command line would."""
    from backend.models import catalogue
    from backend.studies.executors.common import InProcess
    from backend.studies.plan import plan_of_one
    from backend.studies.prepare import prepare
    from backend.training.progress import Outcome, ProgressEvent

    folder, key = args.folder / preset, preset.partition(".")[0]
    with Measured() as reading:
        entry, report = catalogue.add(key, folder)
    settings = {"max_steps": args.steps, "epochs": 1, "batch_size": args.batch, "accumulate": 1}
    plan = plan_of_one(
        {
            "model": key,
            "preset": preset,
            "init": "pretrained",
            "checkpoint": entry.name,
            "protocol": "random",
            "folds": FOLDS,
            "budget": "full",
            "settings": settings | {"precision": "fp32"},
        },
        dataset=args.folder / "cells.h5ad",
        folds=[0],
    )
    times: dict[str, float] = {}

    def note_time(event: ProgressEvent | Outcome) -> None:
        if isinstance(event, ProgressEvent):
            times.setdefault(event.state, time.perf_counter())

    with Measured() as measure:
        study = prepare(plan, args.folder / "home", is_written=True)
        outcomes = study.execute(InProcess(), note_time)
    (outcome,) = study.results(outcomes)
    found = dataclasses.asdict(outcome)
    if outcome.status != "done":
        return found
    bundle = args.folder / "home" / "runs" / outcome.run_id
    return found | {
        "mib": sum(file.stat().st_size for file in folder.iterdir()) / 2**20,
        "share": report.share_loaded,
        "reading": reading.wall_seconds,
        "predicting": times["done"] - times["predicting"],
        "peak_mib": max(reading.peak_memory_mib, measure.peak_memory_mib),
        **of_bundle(bundle, args.batch),
    }


def of_bundle(bundle: Path, batch: int) -> dict:
    """Return seconds a step and what was predicted, after checking the numbers of a bundle."""
    import numpy as np
    import pandas as pd

    history = pd.read_parquet(bundle / "history.parquet")
    predictions = pd.read_parquet(bundle / "predictions.parquet")
    assert np.isfinite(history[["train_loss", "valid_loss"]]).all(axis=None), history
    assert predictions["confidence"].between(0, 1).all()
    return {
        "step": batch / float(history["cells_per_second"].iloc[-1]),
        "n_predicted": len(predictions),
    }


def read(args: argparse.Namespace, preset: str) -> dict:
    """Read all bundles into a store and ask it for F1 by timepoint."""
    del preset
    from backend.store.cache import Store

    home = args.folder / "home"
    with Store(home / "store.duckdb", [("public", home)]) as store:
        report = store.sync()
        ids = store.sql("select distinct dataset_id, series_id from confusions")
        rows = store.query(
            "tallies",
            dataset_id=ids["dataset_id"][0],
            series_ids=sorted(ids["series_id"]),
            label_level="lineage",
        )
    return {
        "n_runs": report.n_runs,
        "n_series": int(rows["series_id"].nunique()),
        "timepoints": sorted(set(rows["timepoint"].dropna())),
    }


CHILDREN = {"write": write, "fit": fit, "read": read}


if __name__ == "__main__":
    raise SystemExit(main())
