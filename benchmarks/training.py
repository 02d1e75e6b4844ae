"""What the engine saves in time and memory, each against the plain way, in one run.

Usage: python benchmarks/training.py [--dataset FILE.h5ad] [--cells N] [--bucket-cells N] [--steps N] [--threads N]
                                     [--memory-cells FEW MANY] [--only steps|buckets|memory]

Without --dataset, cells are simulated (with --dataset the memory part still simulates, since it
needs two sizes of the same thing). On the CPU, networks of preset `small`.

steps    optimiser steps a second, tokens from the cache on disk / tokenised batch by batch
buckets  cells a second of an epoch, batches of similar length / of random cells, at the input
         length that scGPT was pre-trained with (1,200), and the share of padding
memory   peak resident memory of a process that tokenises, trains and reads one epoch of batches
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.data import load
from backend.models.scgpt.model import ScGPT
from backend.training.batches import training_batches
from backend.training.finetune import Classifier
from backend.training.loop import Loop
from backend.training.token_cache import TokenCache

GENES = 1200
CHUNK = 4096
BATCH = 32
LENGTH = 1200
"""Tokens of a cell at most, as scGPT was pre-trained."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--cells", type=int, default=1500)
    parser.add_argument("--bucket-cells", type=int, default=640)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-cells", type=int, nargs=2, default=[20_000, 200_000])
    parser.add_argument("--only", choices=["steps", "buckets", "memory"])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        print(peak_of_fit(args.child))
        return 0
    is_good = True
    if args.only in (None, "steps", "buckets"):
        cells = read_cells(args.dataset, args.cells)
        expressed = np.diff(cells.X.indptr)
        print(
            f"{cells.n_obs:,} cells, {cells.n_vars:,} genes, {np.median(expressed):,.0f} expressed "
            f"a cell (10 % below {np.quantile(expressed, 0.1):,.0f}, 10 % above "
            f"{np.quantile(expressed, 0.9):,.0f}); {args.threads} threads, batches of {BATCH}"
        )
        if args.only != "buckets":
            is_good &= steps_a_second(cells, args.steps)
        if args.only != "steps":
            is_good &= cells_a_second(cells[:: max(1, args.cells // args.bucket_cells)].copy())
    if args.only in (None, "memory"):
        is_good &= memory(args.memory_cells, args.threads)
    return 0 if is_good else 1


def read_cells(path: Path | None, n_cells: int) -> ad.AnnData:
    """Return labelled cells drawn at random from a file, or simulated ones."""
    if path is None:
        return ad.concat(list(simulated(n_cells)), merge="same")
    cells = load(path)
    labelled = np.flatnonzero(cells.obs["cell_type_lineage"].notna())
    rows = np.random.default_rng(0).permutation(labelled)[:n_cells]
    return cells[np.sort(rows)].copy()


def simulated(n_cells: int, n_genes: int = GENES):
    """Yield chunks of cells of three types, with depths as unequal as in real data."""
    rng = np.random.default_rng(0)
    genes = pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)])
    for start in range(0, n_cells, CHUNK):
        n = min(CHUNK, n_cells - start)
        types = rng.integers(0, 3, n)
        n_expressed = np.clip(rng.lognormal(4.8, 0.7, n).astype(int), 20, n_genes // 3)
        # The genes of a cell are a run from a random place within the third of its type.
        first = types * (n_genes // 3) + rng.integers(0, n_genes, n) % (n_genes // 3)
        indptr = np.append(0, np.cumsum(n_expressed))
        within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], n_expressed)
        indices = (np.repeat(first, n_expressed) + within) % n_genes
        values = rng.geometric(0.4, indptr[-1]).astype(np.float32)
        counts = sparse.csr_matrix((values, indices, indptr), shape=(n, n_genes))
        counts.sort_indices()
        names = [f"cell{i}" for i in range(start, start + n)]
        obs = pd.DataFrame({"cell_type_lineage": [f"type{t}" for t in types]}, index=names)
        yield ad.AnnData(counts, obs=obs, var=genes)


class OnTheFly:
    """Tokens that are made each time a batch asks for them, as without a cache."""

    def __init__(self, model, cells: ad.AnnData, lengths: np.ndarray) -> None:
        self.model, self.cells, self.lengths = model, cells, lengths

    def __len__(self) -> int:
        return self.cells.n_obs

    def take(self, rows: np.ndarray):
        return self.model.tokenise([self.cells[rows]], seed=0).take(np.arange(len(rows)))


def fit(model, tokens, codes, *, max_steps=None, batches_per_bucket=32) -> dict[str, float]:
    """Train one epoch, and return its row of the history."""
    classes = int(codes.max()) + 1
    recipe = dataclasses.replace(model.recipe(), epochs=1, batch_size=BATCH)
    torch.manual_seed(0)
    loop = Loop(model, model.network(classes), recipe, classes, "cpu")
    loop.batches_per_bucket = batches_per_bucket
    loop.run(tokens, codes, None, np.zeros(0, np.int64), seed=0, max_steps=max_steps)
    return loop.history[0]


def steps_a_second(cells: ad.AnnData, n_steps: int) -> bool:
    config = ScGPT.presets["small"]
    model = ScGPT.scratch_on(config, cells, seed=0)
    codes = codes_of(cells)
    with tempfile.TemporaryDirectory() as folder:
        cache = TokenCache.of(Path(folder), "0" * 16, cells)
        started = time.perf_counter()
        cached = cache.tokens(model, cells.obs_names, seed=0)
        seconds = time.perf_counter() - started
        rates = {"cached": 0.0, "on the fly": 0.0}
        for _ in range(2):
            for name in rates:
                tokens = cached if name == "cached" else OnTheFly(model, cells, cached.lengths)
                row = fit(model, tokens, codes, max_steps=n_steps)
                rates[name] = max(rates[name], row["cells_per_second"] / BATCH)
    ratio = rates["cached"] / rates["on the fly"]
    print(
        f"steps    cached {rates['cached']:.1f}/s, on the fly {rates['on the fly']:.1f}/s: "
        f"{ratio:.2f}x (tokenising all cells once took {seconds:.1f} s)"
    )
    return ratio >= 1.5


def cells_a_second(cells: ad.AnnData) -> bool:
    config = ScGPT.presets["small"]
    sizes = dataclasses.asdict(config)["values"] | {"n_hvg": None, "max_length": LENGTH}
    model = ScGPT.scratch_on(dataclasses.replace(config, values=sizes), cells, seed=0)
    tokens, codes = model.tokenise([cells], seed=0), codes_of(cells)
    plain = fit(model, tokens, codes, batches_per_bucket=1)
    bucketed = fit(model, tokens, codes)
    ratio = bucketed["cells_per_second"] / plain["cells_per_second"]
    print(
        f"buckets  bucketed {bucketed['cells_per_second']:.0f} cells/s with "
        f"{bucketed['padding_share']:.1%} padding, unbucketed "
        f"{plain['cells_per_second']:.0f} cells/s with {plain['padding_share']:.1%}: {ratio:.2f}x"
    )
    return ratio >= 1.3


def codes_of(cells: ad.AnnData) -> np.ndarray:
    return np.unique(cells.obs["cell_type_lineage"].astype(str), return_inverse=True)[1]


def memory(sizes: list[int], threads: int) -> bool:
    peaks = []
    for n_cells in sizes:
        command = [sys.executable, __file__, "--child", str(n_cells), "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    growth = peaks[1] / peaks[0] - 1
    print(
        f"memory   {sizes[0]:,} cells {peaks[0]:,.0f} MiB, {sizes[1]:,} cells {peaks[1]:,.0f} MiB: "
        f"{growth:+.1%}"
    )
    return growth < 0.1


def peak_of_fit(n_cells: int) -> float:
    """Tokenise a stream of cells, train on it, read an epoch of it; return the peak in MiB."""
    genes = [f"GENE{i}" for i in range(GENES)]
    model = ScGPT.scratch(ScGPT.presets["small"], genes, seed=0)
    ids = pd.Index([f"cell{i}" for i in range(n_cells)])
    with tempfile.TemporaryDirectory() as folder:
        cache = TokenCache(Path(folder), "0" * 16, ids, lambda: simulated(n_cells))
        tokens = cache.tokens(model, ids, seed=0)
        codes = np.arange(n_cells) % 3
        settings = {"epochs": 1, "batch_size": BATCH, "max_steps": 50}
        typer = Classifier("scgpt", "scgpt.small", settings=settings, device="cpu")
        typer.fit_tokens(model, tokens, codes, ["a", "b", "c"], seed=0)
        for rows in training_batches(tokens.lengths, BATCH, seed=1):
            model.collate(tokens.take(rows))
    return own_peak()


def own_peak() -> float:
    """Return the peak resident memory of this process in MiB.

    `ru_maxrss` is only the second choice: on Linux it includes what the parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
