"""F1 by timepoint from the store's counts against SQL over single predictions; sync; file size.

Usage: python benchmarks/store.py [--series 4] [--cells 5000] [--bundles 20] [--bundle-cells 1000]
The figures of docs/store.md: --series 40 --cells 350000 --bundles 100 --bundle-cells 10000

All predictions are simulated: no model is fitted. They go through real bundles and a real sync, so
the full size writes about 700 MiB to --folder (a temporary one by default). Every way must give
the same F1, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.store.bundle import RunRecord, predictions_frame, write_dataset, write_run
from backend.store.cache import Store
from backend.types import TIMEPOINTS, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_DONORS, N_TYPES, N_FOLDS = 40, 21, 5
LIMIT_MS, SYNC_LIMIT_S = 300.0, 2.0
TYPES = tuple(f"type {i:02d}" for i in range(N_TYPES))
DATASET = "f" * 16

# What a page would ask without counts: one row a series, timepoint and type.
_F1 = """
    counted as (
        select series_id, timepoint, label, predicted, {count}::bigint as n
        from scored group by all
    ),
    types as (
        select series_id, timepoint, label as cell_type, sum(n) as n_label, 0 as n_predicted,
            sum(if(label = predicted, n, 0)) as tp
        from counted group by all
        union all
        select series_id, timepoint, predicted, 0, sum(n), 0 from counted group by all
    )
    select series_id, timepoint::varchar as timepoint, cell_type,
        2 * sum(tp) / (sum(n_label) + sum(n_predicted)) as f1
    from types group by all having sum(n_label) > 0
"""
_WHERE = """
    where owner in ('public', 'local') and dataset_id = $dataset_id
        and list_contains($series_ids, series_id) and role = 'test' and label_level = 'lineage'
        and label is not null
"""
OVER_PREDICTIONS = (
    "with scored as (select p.series_id, c.timepoint, p.label, p.predicted from predictions p"
    " join (select cell_index, timepoint from cells where dataset_id = $dataset_id) c"
    f" using (cell_index) {_WHERE}), {_F1.format(count='count(*)')}"
)
OVER_CONFUSIONS = (
    "with scored as (select series_id, timepoint, label, predicted, n from confusions"
    f" {_WHERE}), {_F1.format(count='sum(n)')}"
)


def make_cells(n: int, rng: np.random.Generator) -> pd.DataFrame:
    donor = rng.integers(0, N_DONORS, n)
    timepoint = np.where(donor < 8, 0, 1 + (donor + rng.integers(0, 2, n)) % 3)
    label = rng.choice(N_TYPES, n, p=rng.dirichlet(np.full(N_TYPES, 2.0)))
    names = np.array(TYPES, dtype=object)[label]
    return pd.DataFrame(
        {
            "cell_id": [f"donor{d:02d}_{i:07d}" for i, d in enumerate(donor)],
            "cell_type_fine": names,
            "cell_type_lineage": names,
            "timepoint": np.array(TIMEPOINTS, dtype=object)[timepoint],
            "donor": [f"donor{d:02d}" for d in donor],
            "study": [f"study{d % 2}" for d in donor],
            "sample": [f"donor{d:02d}-{t}" for d, t in zip(donor, timepoint, strict=True)],
            "day": 0,
            "label_source": np.where(donor < 8, "clustering", "classifier"),
            "genotype": rng.choice(["mutant", "wildtype_only", "none"], n, p=[0.1, 0.2, 0.7]),
            "is_malignant": pd.array(donor >= 8, dtype="boolean"),
            "n_counts": rng.gamma(2, 1000, n),
            "n_genes": rng.integers(300, 3000, n),
            "umap_x": rng.normal(size=n),
            "umap_y": rng.normal(size=n),
        }
    )


def make_runs(
    cells: pd.DataFrame,
    n_series: int,
    level: str,
    rng: np.random.Generator,
    *,
    n_models: int = 1,
) -> Iterator[tuple[RunRecord, pd.DataFrame]]:
    """Yield all folds of some series, every second one split by donor, wrong one time in four.

    Pairs of series take turns among `n_models` models; later ones of a model are other seeds.
    """
    label = pd.Categorical(cells["cell_type_lineage"], categories=TYPES).codes
    donor = pd.factorize(cells["donor"])[0]
    for number in range(n_series):
        place = number // 2 % n_models
        series = Series(
            dataset_id=DATASET,
            protocol=("random", "donor")[number % 2],
            folds=N_FOLDS,
            model=f"simulated{place or ''}",
            label_level=level,
            seed=number,
        )
        fold_of = donor % N_FOLDS if number % 2 else rng.integers(0, N_FOLDS, len(cells))
        # Errors go to a few similar types, as a real classifier's do.
        wrong = (label + rng.geometric(0.4, len(cells))) % N_TYPES
        chosen = np.where(rng.random(len(cells)) < 0.25, wrong, label)
        for fold in range(N_FOLDS):
            rows = np.flatnonzero(fold_of == fold)
            proba = rng.random((len(rows), N_TYPES), dtype=np.float32) * 0.02
            proba[np.arange(len(rows)), chosen[rows]] += 0.6
            proba /= proba.sum(axis=1, keepdims=True)
            record = RunRecord.for_series(
                series,
                fold=fold,
                split_sha256="0" * 64,
                status="done",
                display_name=f"Simulated {place or ''}".strip(),
                classes=TYPES,
                n_test=len(rows),
            )
            at = cells.iloc[rows]
            yield (
                record,
                predictions_frame(
                    at["cell_id"].to_numpy(), at[f"cell_type_{level}"], proba, TYPES, fold, "test"
                ),
            )


def median_ms(call: Callable[[], pd.DataFrame], repeats: int) -> tuple[float, float, pd.DataFrame]:
    """Return wall and processor time: on a busy machine only the second says what the work costs."""
    wall, processor = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        result = call()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return float(np.median(wall)) * 1e3, float(np.median(processor)) * 1e3, result


def f1_of_tallies(rows: pd.DataFrame) -> pd.DataFrame:
    keys = ["series_id", "timepoint", "cell_type"]
    sums = rows.groupby(keys, sort=False, as_index=False)[["tp", "n_label", "n_predicted"]].sum()
    sums = sums[sums["n_label"] > 0]
    return sums.assign(f1=2 * sums["tp"] / (sums["n_label"] + sums["n_predicted"]))


def same_f1(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    keys = ["series_id", "timepoint", "cell_type"]
    both = left.merge(right, on=keys, how="outer", suffixes=("", "_right"))
    return len(both) == len(left) == len(right) and np.allclose(both["f1"], both["f1_right"])


def measure_queries(folder: Path, args: argparse.Namespace) -> bool:
    rng = np.random.default_rng(0)
    cells = make_cells(args.cells, rng)
    write_dataset(folder, {"dataset_id": DATASET, "name": "Benchmark", "simulated": True}, cells)
    series_ids = set()
    for record, frame in make_runs(cells, args.series, "lineage", rng):
        write_run(folder, record, frame)
        series_ids.add(record.series_id)
    with Store(folder / "store.duckdb", [("public", folder)], threads=2) as store:
        report = store.sync()
        counts = {
            name: int(store.sql(f"select count(*) as n from {name}")["n"][0])
            for name in ("prediction_rows", "confusion_rows", "tally_rows")
        }
        asked = {"dataset_id": DATASET, "series_ids": sorted(series_ids)}
        store.sql("checkpoint")
        size = (folder / "store.duckdb").stat().st_size
        ways = {
            "tallies": lambda: f1_of_tallies(
                store.query("tallies", label_level="lineage", **asked)
            ),
            "SQL over confusions": lambda: store.sql(OVER_CONFUSIONS, **asked),
            "SQL over predictions": lambda: store.sql(OVER_PREDICTIONS, **asked),
        }
        measured = {name: median_ms(call, args.repeats) for name, call in ways.items()}
    n = counts["prediction_rows"]
    print(
        f"F1 by timepoint: {args.series} series × {args.cells:,} cells, {N_DONORS} donors,"
        f" {N_TYPES} types, 2 threads (median of {args.repeats})"
    )
    print(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    ours, _, figure = measured["tallies"]
    is_same = True
    for name, (wall, processor, frame) in measured.items():
        same = same_f1(figure, frame)
        is_same &= same
        print(
            f"  {name:21s} {wall:9.1f} ms ({processor:7.1f} ms of processor)"
            f"   ratio {wall / ours:6.1f} ×   same F1: {'yes' if same else 'NO'}"
        )
    print(
        f"  sync of {report.n_runs} runs {report.seconds:.1f} s"
        f" ({n / report.seconds / 1e6:.2f}M predictions/s), file {size / 2**20:.0f} MiB"
        f" ({size / n:.1f} bytes a prediction),"
        f" peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )
    return is_same and ours < LIMIT_MS


def measure_sync(folder: Path, args: argparse.Namespace) -> bool:
    rng = np.random.default_rng(1)
    cells = make_cells(args.bundle_cells * N_FOLDS, rng)
    write_dataset(folder, {"dataset_id": DATASET, "name": "Benchmark", "simulated": True}, cells)
    n_series = max(1, args.bundles // N_FOLDS // 2)
    for level in ("fine", "lineage"):
        for record, frame in make_runs(cells, n_series, level, rng):
            write_run(folder, record, frame)
    with Store(folder / "store.duckdb", [("public", folder)], threads=2) as store:
        used = time.process_time()
        first = store.sync()
        used = time.process_time() - used
        again = store.sync()
    print(
        f"First sync: {first.n_runs} bundles of about {args.bundle_cells:,} cells, half of them fine:"
        f" {first.seconds:.2f} s ({used:.2f} s of processor); nothing new: {again.seconds * 1e3:.0f} ms"
    )
    return first.seconds < SYNC_LIMIT_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=4)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--bundles", type=int, default=20)
    parser.add_argument("--bundle-cells", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        is_good = measure_sync(Path(folder) / "sync", args)
        is_good &= measure_queries(Path(folder) / "queries", args)
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
