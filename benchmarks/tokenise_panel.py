"""Cells a second that scBERT and scFoundation tokenise at their full panels, beside a plain loop.

Usage: python benchmarks/tokenise_panel.py DATASET.h5ad [--panels DIR] [--loop-cells N]

DIR holds the authors' panel files; without it, panels of the published sizes are made up from the
genes of the dataset and invented ones.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.data import read_chunks
from backend.models.panel import read_gene_list
from backend.models.scbert import ScBert
from backend.models.scfoundation import ScFoundation

LIMIT = 3000
MODELS = (
    (ScBert, "panglao", "panglao_gene_order_16906.txt", 16_906),
    (ScFoundation, "cell_01b", "OS_scRNA_gene_index.19264.tsv", 19_264),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--panels", type=Path)
    parser.add_argument("--loop-cells", type=int, default=200)
    args = parser.parse_args()
    chunks = list(read_chunks(args.dataset))
    n_cells = sum(chunk.n_obs for chunk in chunks)
    genes = list(map(str, chunks[0].var_names))
    print(f"{n_cells:,} cells, {len(genes):,} genes, chunks of {chunks[0].n_obs:,}")
    is_fast = True
    for model_class, preset, file, size in MODELS:
        paths = [] if args.panels is None else sorted(args.panels.rglob(file))
        panel = read_gene_list(paths[0]) if paths else made_up_panel(genes, size)
        model = model_class(model_class.presets[preset], panel)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            model.tokenise(chunks, seed=0)
            times.append(time.perf_counter() - start)
        ours = n_cells / min(times)
        start = time.perf_counter()
        plain_loop(model_class.key, chunks[0][: args.loop_cells], panel)
        plain = min(args.loop_cells, chunks[0].n_obs) / (time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{model_class.display_name:<13} {ours:8,.0f} cells/s  loop {plain:6,.0f} cells/s  "
            f"ratio {ours / plain:5.1f}  panel {'given' if paths else 'made up'}, peak {peak:,.0f} MiB"
        )
        is_fast &= ours >= LIMIT
    return 0 if is_fast else 1


def made_up_panel(genes: list[str], size: int) -> tuple[str, ...]:
    """Return `size` genes in random order, most of them in the dataset."""
    rng = np.random.default_rng(0)
    known = rng.permutation(genes)[: int(0.95 * size)].tolist()
    invented = [f"ABSENT{i}" for i in range(size - len(known))]
    return tuple(rng.permutation([*known, *invented]).tolist())


def plain_loop(key: str, adata, panel: tuple[str, ...]) -> list[np.ndarray]:
    """Tokenise cell by cell, as one would write it down first."""
    column = {gene: i for i, gene in reversed(list(enumerate(adata.var_names)))}
    places = [column.get(gene) for gene in panel]
    tokens = []
    for i in range(adata.n_obs):
        row = adata.X[i].toarray().ravel()
        counts = np.array([0.0 if place is None else row[place] for place in places])
        scaled = counts / max(counts.sum(), 1) * 1e4
        if key == "scbert":
            tokens.append(np.minimum(np.floor(np.log2(1 + scaled)), 5).astype(np.int64))
        else:
            expressed = np.flatnonzero(scaled)
            tokens.append(np.stack([expressed, np.log1p(scaled[expressed])]))
    return tokens


if __name__ == "__main__":
    sys.exit(main())
