"""Cells a second that the four models tokenise at all genes, beside a plain loop, in one run.

Usage: python benchmarks/tokenise.py DATASET.h5ad [--vocab DIR] [--loop-cells N] [--workers N]
                                  [--models NAME ...]

DIR holds the authors' vocabularies in scgpt/, geneformer_v1/, geneformer_v2/, scbert/ and
scfoundation/; without it, vocabularies of the published sizes are made up. Chunks are read first
and then tokenised by `--workers` threads (numpy releases Python's lock). Memory is the peak of a
fresh process that streams the data once, against one that streams it four times (Linux).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.data import read_chunks
from backend.models.gene_panel import read_gene_list
from backend.models.geneformer.checkpoint import find_dictionaries
from backend.models.geneformer.model import Geneformer
from backend.models.geneformer.tokens import Dictionaries  # noqa: TC001
from backend.models.scbert.model import ScBert
from backend.models.scfoundation.model import ScFoundation
from backend.models.scgpt.model import ScGPT

LIMITS = {"scgpt": 5000, "geneformer": 5000, "scbert": 3000, "scfoundation": 3000}
CHUNK = 1024
NAMES = (
    "scgpt.whole_human",
    "geneformer.v1_10m",
    "geneformer.v2_104m",
    "scbert.panglao",
    "scfoundation.cell_01b",
)
PANELS = {
    "scbert": (ScBert, "panglao_gene_order_16906.txt", 16_906),
    "scfoundation": (ScFoundation, "OS_scRNA_gene_index.19264.tsv", 19_264),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("--loop-cells", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES)
    args = parser.parse_args()
    chunks = list(read_chunks(args.dataset, size=CHUNK))
    n_cells = sum(chunk.n_obs for chunk in chunks)
    n_values = sum(chunk.X.nnz for chunk in chunks)
    print(
        f"{n_cells:,} cells, {chunks[0].n_vars:,} genes, {n_values / n_cells:,.0f} expressed a "
        f"cell; {args.workers} threads; vocabularies {'given' if args.vocab else 'made up'}"
    )
    is_fast = True
    for name in args.models:
        model = model_of(name, chunks[0], args.vocab)
        model.tokenise(chunks[:1])
        walls, processor = [], []
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            with ThreadPoolExecutor(args.workers) as pool:
                list(pool.map(lambda chunk, model=model: len(model.tokenise([chunk])), chunks))
            walls.append(time.perf_counter() - wall)
            processor.append(time.process_time() - cpu)
        some = chunks[0][: args.loop_cells].copy()
        loop_wall, loop_cpu = time.perf_counter(), time.process_time()
        LOOPS[model.key](model, some)
        loop_wall, loop_cpu = time.perf_counter() - loop_wall, time.process_time() - loop_cpu
        ours, plain = n_cells / min(walls), some.n_obs / loop_wall
        per_core = n_cells / min(processor)
        print(
            f"{name:<20} {ours:8,.0f} cells/s  ({per_core:,.0f} a second of processor time)  "
            f"loop {plain:5,.0f} cells/s  ratio {ours / plain:5.1f} "
            f"(processor time {per_core / (some.n_obs / loop_cpu):.1f})"
        )
        is_fast &= ours >= LIMITS[model.key]
        peaks = [peak_mib(name, args.dataset, args.vocab, times) for times in (1, 4)]
        print(f"{'':<20} peak memory {peaks[0]:,.0f} MiB; four times the cells {peaks[1]:,.0f} MiB")
    return 0 if is_fast else 1


def model_of(name, chunk, vocab):
    genes = [str(gene) for gene in chunk.var_names]
    if name.startswith("scgpt"):
        config = ScGPT.presets["whole_human"]
        if vocab is None:
            invented = [f"ABSENT{i}" for i in range(60_694 - len(genes))]
            return ScGPT.scratch(config, [*genes, *invented], seed=0)
        start = time.perf_counter()
        names = json.loads((vocab / "scgpt" / "default_census_vocab.json").read_text("utf-8"))
        names = {**names, "<pad>": 60_694, "<cls>": 60_695, "<eoc>": 60_696}
        model = ScGPT(config, names)
        model._gene_ids(genes)
        print(
            f"{'':<20} vocabulary of {len(names):,} read and {len(genes):,} genes found in "
            f"{time.perf_counter() - start:.3f} s"
        )
        return model
    key, _, tag = name.partition(".")
    if key in PANELS:
        model_class, file, size = PANELS[key]
        panel = made_up_panel(genes, size)
        if vocab is not None:
            panel = read_gene_list(vocab / key / file)
        return model_class(model_class.presets[tag], panel)
    config = Geneformer.presets[tag]
    size = 25_426 if tag == "v1_10m" else 20_275
    if vocab is None:
        model = Geneformer.scratch(config, genes[: size - 4], seed=0)
        medians = np.random.default_rng(0).lognormal(1, 0.7, len(model.dictionaries.medians))
        model.dictionaries.medians.update(
            zip(model.dictionaries.medians, medians.tolist(), strict=True)
        )
        return model
    found: Dictionaries = find_dictionaries(vocab / f"geneformer_{tag[:2]}", size)
    return Geneformer(config, found)


def made_up_panel(genes, size):
    """Return `size` genes in random order, nearly all of them in the dataset if it has so many."""
    rng = np.random.default_rng(0)
    known = rng.permutation(genes)[: int(0.95 * size)].tolist()
    invented = [f"ABSENT{i}" for i in range(size - len(known))]
    return tuple(rng.permutation([*known, *invented]).tolist())


def panel_loop(model, cells):
    """Align and transform cell by cell, as one would write it down first."""
    column = {gene: i for i, gene in enumerate(cells.var_names)}
    places = [column.get(gene) for gene in model.panel]
    rows = []
    for i in range(cells.n_obs):
        row = cells.X[i].toarray().ravel()
        counts = np.array([0.0 if place is None else row[place] for place in places])
        scaled = counts / max(counts.sum(), 1) * 1e4
        if model.key == "scbert":
            rows.append(np.minimum(np.floor(np.log2(1 + scaled)), 5).astype(np.int64))
        else:
            expressed = np.flatnonzero(scaled)
            rows.append((expressed, np.log1p(scaled[expressed])))
    return rows


def scgpt_loop(model, cells):
    """Bin cell by cell, as one would write it down first."""
    ids = model._gene_ids(cells.var_names)
    generator = np.random.default_rng(0)
    rows = []
    for i in range(cells.n_obs):
        row = cells.X[i].toarray().ravel()[ids >= 0]
        row = np.log1p(row / max(row.sum(), 1) * 1e4)
        expressed = np.flatnonzero(row)
        edges = np.quantile(row[expressed], np.linspace(0, 1, 50)) if len(expressed) else [0]
        upto = np.digitize(row[expressed], edges)
        below = np.digitize(row[expressed], edges, right=True)
        bins = np.ceil(generator.random(len(expressed)) * (below - upto) + upto)
        tokens = np.append(model.vocabulary["<cls>"], ids[ids >= 0][expressed])
        rows.append((tokens, np.append(0, bins)))
    return rows


def geneformer_loop(model, cells):
    """Rank cell by cell, as one would write it down first."""
    tokens = model.dictionaries.tokens_of(model._gene_ids(cells))
    medians = model.dictionaries.medians_of(tokens)
    rows = []
    for i in range(cells.n_obs):
        row = cells.X[i].toarray().ravel().astype(np.float64)
        row = (row / max(row.sum(), 1) * 1e4 / medians)[tokens >= 0]
        expressed = np.flatnonzero(row)
        order = expressed[np.argsort(-row[expressed], kind="stable")]
        rows.append(tokens[tokens >= 0][order][: model.max_length])
    return rows


LOOPS = {
    "scgpt": scgpt_loop,
    "geneformer": geneformer_loop,
    "scbert": panel_loop,
    "scfoundation": panel_loop,
}


def peak_mib(name, dataset, vocab, times):
    """Return the peak memory of a process that streams the data `times` times."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_stream, (name, dataset, vocab, times))


def _stream(name, dataset, vocab, times):
    model = None
    for _ in range(times):
        for chunk in read_chunks(dataset, size=CHUNK):
            model = model or model_of(name, chunk, vocab)
            model.tokenise([chunk])
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
