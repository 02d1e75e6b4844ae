"""2,000 bootstrap draws of donors: sums of per-donor counts against scikit-learn on redrawn cells.

Usage: python benchmarks/bootstrap.py [--draws N] [--sklearn-draws M]

scikit-learn scores a sample of the draws and its time is extrapolated to all of them; both ways
score the same draws, and the values of the sample are compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.evaluation.intervals import bootstrap_draws, bootstrap_weights
from backend.evaluation.metrics import metric_named
from backend.evaluation.tallies import Tallies

N_DONORS, N_TYPES, CELLS_PER_DONOR = 40, 21, 500
LIMIT_MS = 50.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--sklearn-draws", type=int, default=20)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    n_cells = N_DONORS * CELLS_PER_DONOR
    donor = np.repeat(np.arange(N_DONORS), CELLS_PER_DONOR)
    label = rng.integers(0, N_TYPES, n_cells)
    predicted = np.where(rng.random(n_cells) < 0.3, rng.integers(0, N_TYPES, n_cells), label)
    names = [f"type{i:02d}" for i in range(N_TYPES)]
    tallies = Tallies.from_labels(
        [f"donor{i:02d}" for i in donor], [names[i] for i in label], [names[i] for i in predicted]
    )
    strata = ["Healthy"] * 8 + ["patient"] * (N_DONORS - 8)
    statistic = metric_named("macro_f1").statistic(np.ones(N_TYPES, dtype=bool))

    times = []
    for _ in range(7):
        start = time.perf_counter()
        weights = bootstrap_weights(strata, n_draws=args.draws, seed=1)
        draws = bootstrap_draws(tallies, statistic, weights)
        times.append(time.perf_counter() - start)
    ours = float(np.median(times))

    cells_of = [np.flatnonzero(donor == i) for i in range(N_DONORS)]
    start = time.perf_counter()
    reference = np.empty(args.sklearn_draws)
    for i in range(args.sklearn_draws):
        rows = np.concatenate([np.tile(cells_of[d], int(weights[i, d])) for d in range(N_DONORS)])
        reference[i] = f1_score(label[rows], predicted[rows], average="macro")
    theirs = (time.perf_counter() - start) / args.sklearn_draws * args.draws

    agree = np.allclose(draws[: args.sklearn_draws], reference)
    print(f"{args.draws:,} draws, {N_DONORS} donors × {N_TYPES} types, {n_cells:,} cells")
    print(
        f"faultline      {ours * 1e3:10.1f} ms   (median of 7; limit {LIMIT_MS:.0f} ms for 2,000)"
    )
    print(
        f"scikit-learn   {theirs * 1e3:10.1f} ms   (extrapolated from {args.sklearn_draws} draws)"
    )
    print(f"ratio          {theirs / ours:10.0f} ×    same values: {'yes' if agree else 'NO'}")
    return 0 if agree and ours * 1e3 * 2000 / args.draws < LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
