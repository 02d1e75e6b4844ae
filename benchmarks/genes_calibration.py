"""How often genes are found that separate nothing, by number of donor pairs, on planted truth.

Usage: python benchmarks/genes_calibration.py [--repetitions 200] [--pairs 5 8 13] [--genes 300]

Every donor gives 12 to 60 failures and as many to 200 other cells. Counts are Poisson around a mean
of the gene, which differs by donor (log sd 0.5), by donor and side (log sd 0.15: what does not repeat
between donors), and by cell (log sd 0.4). In planted data 10 % of the genes differ by a factor of 2 or
1/2 between the sides; in null data none does. Printed are, at q < 0.05: the mean share of false genes
among those found, the share of planted genes found, and the share of null data sets with any gene.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.data.expression import Expression, write_expression
from backend.evaluation.genes.contrast import Contrast
from backend.evaluation.genes.separate import separate

Q = 0.05


def draw(rng: np.random.Generator, n_pairs: int, n_genes: int, n_planted: int):
    """Return counts, donors and whether a cell is a failure; the first genes are planted."""
    n_failures = rng.integers(12, 61, n_pairs)
    n_others = [rng.integers(n, 201) for n in n_failures]
    sides = np.concatenate([np.repeat([True, False], [n, m]) for n, m in zip(n_failures, n_others, strict=True)])  # fmt: skip
    donors = np.repeat(np.arange(n_pairs), n_failures + n_others)
    logs = rng.normal(-1.0, 1.2, n_genes) + rng.normal(0, 0.5, (n_pairs, n_genes))
    both = np.stack([logs + rng.normal(0, 0.15, logs.shape) for _ in range(2)], axis=1)
    change = np.log(2) * rng.choice([-1, 1], n_planted)
    both[:, 1, :n_planted] += change
    means = np.exp(both[donors, sides.astype(int)] + rng.normal(0, 0.4, (len(donors), 1)))
    return rng.poisson(means), donors, sides


def found_genes(counts, donors, sides, folder: Path) -> np.ndarray:
    """Return the numbers of the genes that separate."""
    write_expression(folder, [str(number) for number in range(counts.shape[1])], [counts])
    contrast = Contrast("A", "B", "label", sides, ~sides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = separate(Expression(folder), contrast, donors, counts.sum(axis=1))
    return found.table.loc[found.table["q_value"] < Q, "gene"].astype(int).to_numpy()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--pairs", type=int, nargs="+", default=[5, 8, 13])
    parser.add_argument("--genes", type=int, default=300)
    args = parser.parse_args()
    n_planted = args.genes // 10
    print(f"{args.repetitions} repetitions, {args.genes} genes, {n_planted} planted, q < {Q:g}")
    print(f"{'pairs':>6}{'false share':>13}{'planted found':>15}{'null with any':>15}")
    for n_pairs in args.pairs:
        false, power, any_null = [], [], []
        for repetition in range(args.repetitions):
            rng = np.random.default_rng([n_pairs, repetition])
            with tempfile.TemporaryDirectory() as place:
                genes = found_genes(*draw(rng, n_pairs, args.genes, n_planted), Path(place))
            is_false = genes >= n_planted
            false.append(is_false.mean() if len(genes) else 0.0)
            power.append((~is_false).sum() / n_planted)
            with tempfile.TemporaryDirectory() as place:
                genes = found_genes(*draw(rng, n_pairs, args.genes, 0), Path(place))
            any_null.append(len(genes) > 0)
        print(
            f"{n_pairs:>6}{np.mean(false):>13.3f}{np.mean(power):>15.2f}{np.mean(any_null):>15.3f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
