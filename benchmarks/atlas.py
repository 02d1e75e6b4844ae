"""The study's atlas at its real size: seconds, memory and ratios of each step, in one run.

Usage: python benchmarks/atlas.py [--cells 20000] [--file ATLAS.h5ad] [--only NAME ...]
                                  [--grow N ...] [--vocab DIR] [--places FILE.parquet] [--folder DIR]
The figures of docs/performance.md: --cells 340000 --grow 34000 340000 3400000

Without --file a stand-in of the Ennis 2023 atlas is simulated (18,000 genes; 340,000 cells take 2 GB).

read      full check and import (its hashes and table of cells), beside `anndata.read_h5ad`
subset    the study's shares of the timepoints, then ten folds of all cells under each protocol
tokenise  the five full-size models on 5,000 of the subset's cells, beside a loop over cells
logreg    one of ten folds of the subset by logistic regression, as `run` does it
store     nine series: sync, then F1 by timepoint beside SQL over predictions, at each size of --grow
pages     a change of a filter on the real dashboard over nine series (benchmarks/pages.py)
map       the cell map beside Plotly (benchmarks/cell_map.py), at the places of --places if given

Memory is that of a process of its own for each step. Beside the seconds stand those of processors: on
a machine with other work only they say what a step costs. The exit code is 1 if a limit of the full size
is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.config import environment, project_root
from backend.training.measure import Measured
from backend.types import PROTOCOLS
from benchmarks import store as simulated

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = project_root()
SHARES = "Healthy=.25,Diagnosis=.30,Post-treatment=.22,Relapse=.22"
FOLDS, N_SERIES = 10, 9
STORE_TABLE = "{:>10}{:>20}{:>11}{:>11}{:>18}{:>11}{:>18}{:>11}"
Found = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--grow", type=int, nargs="+", help="cells of the store (default: --cells)")
    parser.add_argument("--vocab", type=Path, help="the authors' vocabularies, see tokenise.py")
    parser.add_argument("--places", type=Path, help="x, y and celltype of cells for the map")
    parser.add_argument("--folder", type=Path, help="where files are made")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, *words = args.child
        print(json.dumps(CHILDREN[name](*words)))
        return 0
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        args.folder = Path(name)
        if args.file is None and set(args.only) & {"read", "subset", "tokenise", "logreg"}:
            args.file = args.folder / "atlas.h5ad"
            took = backend(
                "data", "simulate", args.file, "--like", "ennis2023", "--cells", args.cells
            )
            report("simulate", took, 900, 3 * 1024)
        print(
            f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the start", flush=True
        )
        is_good = [STEPS[step](args) for step in args.only]
    print("All within their limits." if all(is_good) else "Some are above their limits.")
    return 0 if all(is_good) else 1


def report(what: str, took: Found, seconds: float | None = None, mib: float | None = None) -> bool:
    """Print what a step took beside its limits; say whether it is within them."""
    limits = [] if seconds is None else [f"{seconds:g} s"]
    limits += [] if mib is None else [f"{mib:,.0f} MiB"]
    print(
        f"{what:<34}{took['seconds']:9.2f} s ({took['processor']:.2f} s of processors)"
        f"{took['mib']:8,.0f} MiB" + (f"   (at most {', '.join(limits)})" if limits else ""),
        flush=True,
    )
    within = [took["seconds"] <= (seconds or np.inf), took["mib"] <= (mib or np.inf)]
    return all(within)


def beside(what: str, ours: Found, theirs: Found) -> None:
    times = [theirs[name] / ours[name] for name in ("seconds", "processor", "mib")]
    print(
        "{:<34}{}: {:.2f} × the time ({:.2f} × that of processors), {:.1f} × the memory".format(
            "", what, *times
        ),
        flush=True,
    )


def child(name: str, *words: object) -> Found:
    """Run a measured step in a process of its own."""
    command = [sys.executable, __file__, "--child", name, *map(str, words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def backend(*words: object) -> Found:
    """Run a command of the product in a process of its own."""
    return child("command", json.dumps([str(word) for word in words]))


def script(name: str, *words: object) -> tuple[bool, str]:
    """Run another benchmark, show what it prints, and say whether it ended well."""
    command = [sys.executable, ROOT / "benchmarks" / name, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    return done.returncode == 0 and "above their limits" not in done.stdout, done.stdout


# What a child does.


@contextmanager
def measured() -> Iterator[Found]:
    """Measure a block: seconds, seconds of processors, and most memory, with those of children."""
    found: Found = {}
    before = sum(os.times()[:4])
    with Measured() as measure:
        yield found
    found["processor"] = sum(os.times()[:4]) - before
    found["seconds"], found["mib"] = measure.wall_seconds, measure.peak_memory_mib


def run_command(words: str) -> Found:
    """Run a command in this process, quietly."""
    from io import StringIO

    from backend.cli import main as command

    said = StringIO()
    with measured() as found, redirect_stdout(said):
        code = command(json.loads(words))
    if code:
        sys.exit(said.getvalue())
    return found


def import_cells(path: str) -> Found:
    """Read a file as an import does: its hashes, facts and table of cells."""
    import pandas as pd

    from backend.data import cells_table, read_chunks
    from backend.data.dataset import describe_chunks

    tables = []

    def chunks():
        for chunk in read_chunks(path):
            tables.append(cells_table(chunk))
            yield chunk

    with measured() as found:
        info = describe_chunks(chunks())
        pd.concat(tables, ignore_index=True)
    return found | {"n": info.n_cells}


def read_whole(path: str) -> Found:
    import anndata as ad

    with measured() as found:
        cells = ad.read_h5ad(path)
    return found | {"n": cells.n_obs}


def split_cells(path: str) -> Found:
    """Make ten folds of all cells under every protocol."""
    from backend.data.columns import read_index
    from backend.data.h5ad import open_dataset
    from backend.splits import make_splits

    with measured() as found, open_dataset(path) as dataset:
        obs = dataset.obs()
        obs.index = read_index(dataset.file, "obs", 0, dataset.n_cells)
        splits = make_splits(
            obs, dataset_id="0" * 16, protocols=PROTOCOLS, folds=FOLDS, seed=0, budget="full"
        )
    return found | {"n": sum(len(split.cell_ids) for split in splits.values())}


def write_results(folder: str, n: str) -> Found:
    """Write bundles of nine simulated series."""
    place, rng = Path(folder), np.random.default_rng(0)
    cells = simulated.make_cells(int(n), rng)
    about = {"dataset_id": simulated.DATASET, "name": "Benchmark", "simulated": True}
    with measured() as found:
        simulated.write_dataset(place, about, cells)
        for record, frame in simulated.make_runs(cells, N_SERIES, "lineage", rng):
            simulated.write_run(place, record, frame)
    return found


def sync_results(folder: str) -> Found:
    place = Path(folder)
    with (
        measured() as found,
        simulated.Store(place / "store.duckdb", [("public", place)], threads=2) as store,
    ):
        n_runs = store.sync().n_runs
    size = (place / "store.duckdb").stat().st_size
    return found | {"n_runs": n_runs, "file_mib": size / 2**20}


def ask_store(folder: str, way: str) -> Found:
    """Ask for F1 by timepoint of all series, as the pages do or over single predictions."""
    place = Path(folder)
    with simulated.Store(place / "store.duckdb", [("public", place)], threads=2) as store:
        series = store.sql("select distinct series_id from confusions")["series_id"]
        asked = {"dataset_id": simulated.DATASET, "series_ids": sorted(series)}
        ways = {
            "tallies": lambda: simulated.f1_of_tallies(
                store.query("tallies", label_level="lineage", **asked)
            ),
            "predictions": lambda: store.sql(simulated.OVER_PREDICTIONS, **asked),
        }
        with measured() as found:
            wall, used, rows = simulated.median_ms(ways[way], 5 if way == "tallies" else 1)
    times = {"seconds": wall / 1e3, "processor": used / 1e3}
    return found | times | {"total": float(rows["f1"].sum())}


CHILDREN = {
    "command": run_command,
    "import": import_cells,
    "anndata": read_whole,
    "split": split_cells,
    "write": write_results,
    "sync": sync_results,
    "ask": ask_store,
}


# Steps, in order.


def step_read(args: argparse.Namespace) -> bool:
    check = backend("data", "check", args.file)
    imported = child("import", args.file)
    both = {name: check[name] + imported[name] for name in ("seconds", "processor")}
    both["mib"] = max(check["mib"], imported["mib"])
    print(f"{imported['n']:,} cells, {args.file.stat().st_size / 2**20:,.0f} MiB on disk")
    report("full check", check)
    report("import", imported)
    is_good = report("full check and import", both, 240, 2048)
    beside("anndata.read_h5ad", both, child("anndata", args.file))
    return is_good


def step_subset(args: argparse.Namespace) -> bool:
    cut = backend("data", "subset", args.file, subset_of(args), "--shares", SHARES)
    split = child("split", args.file)
    is_good = report("subset", cut, 60)
    return report(f"{FOLDS} folds, {len(PROTOCOLS)} protocols", split, 60) and is_good


def subset_of(args: argparse.Namespace) -> Path:
    return args.folder / "subset.h5ad"


def ensure_subset(args: argparse.Namespace) -> Path:
    if not subset_of(args).exists():
        backend("data", "subset", args.file, subset_of(args), "--shares", SHARES)
    return subset_of(args)


def step_tokenise(args: argparse.Namespace) -> bool:
    few = args.folder / "few.h5ad"
    n = min(5_000, args.cells // 2)
    backend("data", "subset", args.file, few, "--shares", SHARES, "--cells", n)
    vocab = ("--vocab", args.vocab) if args.vocab else ()
    _, text = script("tokenise.py", few, *vocab)
    ratios = [float(ratio) for ratio in re.findall(r"ratio +([\d.]+)", text)]
    print(f"{'':<34}least of {len(ratios)} ratios {min(ratios):.1f} (at least 10)")
    return min(ratios) >= 10


def step_logreg(args: argparse.Namespace) -> bool:
    out = args.folder / "logreg"
    split = ("--protocol", "random", "--folds", FOLDS, "--budget", "full", "--fold", 0)
    place = ("--dataset", ensure_subset(args), "--out", out)
    # The bundle of the data set with its map comes first: it is made once for all models.
    backend("run", "--model", "majority", *split, *place)
    whole = backend("run", "--model", "logreg", *split, *place)
    runs = [json.loads(path.read_text("utf-8")) for path in out.glob("runs/*/run.json")]
    run = next(run for run in runs if run["model"] == "logreg")
    took = {"seconds": run["wall_seconds"], "mib": run["peak_memory_mib"]}
    # Processor time is that of the whole command, which also reads the cells.
    took["processor"] = whole["processor"]
    return report("logistic regression, one fold", took, 180, 6 * 1024)


def step_store(args: argparse.Namespace) -> bool:
    is_good, rows = True, []
    for n in args.grow or [args.cells]:
        folder = args.folder / f"results-{n}"
        child("write", folder, n)
        sync = child("sync", folder)
        ours, theirs = child("ask", folder, "tallies"), child("ask", folder, "predictions")
        assert np.isclose(ours["total"], theirs["total"]), (ours, theirs)
        rows.append((n, sync, ours, theirs))
        # The limit of the sync is that of the study's size.
        is_good &= sync["seconds"] <= 15 * max(1.0, n / 340_000) and ours["seconds"] <= 0.3
    print(f"{N_SERIES} series of {simulated.N_FOLDS} folds, 2 threads:")
    heads = ("cells", "sync", "peak", "store", "F1", "peak", "over predictions", "peak")
    print(STORE_TABLE.format(*heads))
    for n, sync, ours, theirs in rows:
        row = [f"{n:,}", in_seconds(sync), in_mib(sync["mib"]), in_mib(sync["file_mib"])]
        for asked in (ours, theirs):
            row += [in_seconds(asked), in_mib(asked["mib"])]
        print(STORE_TABLE.format(*row))
    print(f"{'':<34}sync at most 15 s at 340,000 cells, F1 by timepoint at most 0.3 s", flush=True)
    return is_good


def in_seconds(took: Found) -> str:
    return f"{took['seconds']:.2f} ({took['processor']:.2f}) s"


def in_mib(mib: float) -> str:
    return f"{mib:,.0f} MiB"


def step_pages(args: argparse.Namespace) -> bool:
    return script("pages.py", "--series", N_SERIES, "--cells", args.cells)[0]


def step_map(args: argparse.Namespace) -> bool:
    places = ("--places", args.places) if args.places else ("--cells", args.cells)
    return script("cell_map.py", "--no-server", *places)[0]


STEPS = {
    "read": step_read,
    "subset": step_subset,
    "tokenise": step_tokenise,
    "logreg": step_logreg,
    "store": step_store,
    "pages": step_pages,
    "map": step_map,
}


if __name__ == "__main__":
    raise SystemExit(main())
