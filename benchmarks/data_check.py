"""How long the quick and the full check of a large file take, and how much memory, against anndata.

    python benchmarks/data_check.py                       # 100,000 cells × 20,000 genes
    python benchmarks/data_check.py --cells 1000000       # the size of the promise: quick < 5 s,
                                                          # full < 1 GiB

The file is made on the fly (sparse counts, gzip) and removed at the end. Every reading runs in a
process of its own, so that its peak memory is its own; ratios are of one run on one machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
QUICK_SECONDS = 5.0
FULL_GIB = 1.0
_PIECE = 5_000


def write_file(path: Path, n_cells: int, n_genes: int, per_cell: int) -> None:
    """Write random counts with the columns of a usual upload, piece by piece."""
    import pandas as pd
    from scipy.sparse import csr_matrix

    from backend.data.genes import gene_table
    from backend.data.writer import H5adWriter

    genes = sorted(gene_table().ensembl_of)[:n_genes]
    rng = np.random.default_rng(0)
    about = {"name": "benchmark", "simulated": True}
    with H5adWriter(path, pd.DataFrame(index=pd.Index(genes, dtype=object)), about) as file:
        for start in range(0, n_cells, _PIECE):
            n = min(_PIECE, n_cells - start)
            # One gene out of each of `per_cell` strips: sorted and without repeats.
            width = n_genes // per_cell
            genes_of = rng.integers(0, width, (n, per_cell)) + np.arange(per_cell) * width
            values = 1 + (rng.random(n * per_cell) < 0.3) * rng.integers(1, 9, n * per_cell)
            ends = np.arange(0, n * per_cell + 1, per_cell)
            counts = csr_matrix((values.astype(np.int32), genes_of.ravel(), ends), (n, n_genes))
            rows = np.arange(start, start + n)
            obs = pd.DataFrame(
                {
                    "cell_type": pd.Categorical.from_codes(rows % 20, [f"T{i}" for i in range(20)]),
                    "donor": pd.Categorical.from_codes(
                        rows // _PIECE % 40, [f"P{i}" for i in range(40)]
                    ),
                },
                index=[f"AAACCTGAGAAACCAT-{row}" for row in rows],
            )
            file.append(counts, obs)


def measure(what: str, path: Path) -> dict[str, float]:
    """Run one reading in a child; return its seconds, peak memory and start-up memory in MiB."""
    command = [sys.executable, __file__, "--child", what, "--file", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(what: str, path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    if what == "anndata":
        import anndata as ad
    else:
        from backend.data.check import check
    started, processor = time.perf_counter(), time.process_time()
    if what == "anndata":
        ad.read_h5ad(path)
    else:
        report = check(path, quick=what == "quick")
        assert report.is_usable, report.problems
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": processor, "peak_mib": peak}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--per-cell", type=int, default=500, help="detected genes per cell")
    parser.add_argument("--folder", type=Path, default=None, help="where the file is made")
    parser.add_argument("--skip-anndata", action="store_true", help="its memory may be too much")
    parser.add_argument("--child", choices=("quick", "full", "anndata"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.file)
        return 0
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="faultline-bench-", dir=args.folder) as folder:
        path = args.file or Path(folder) / "large.h5ad"
        if not args.file:
            started = time.perf_counter()
            write_file(path, args.cells, args.genes, args.per_cell)
            print(
                f"{args.cells:,} cells × {args.genes:,} genes, "
                f"{args.cells * args.per_cell:,} values, {path.stat().st_size / 2**20:,.0f} MiB "
                f"on disk, written in {time.perf_counter() - started:.0f} s"
            )
        readings = ["quick", "full"] + ([] if args.skip_anndata else ["anndata"])
        found = {what: measure(what, path) for what in readings}
    print(f"{'reading':<28}{'seconds':>10}{'CPU s':>10}{'peak MiB':>12}")
    names = {"quick": "check --quick", "full": "check", "anndata": "anndata.read_h5ad"}
    for what, values in found.items():
        print(
            f"{names[what]:<28}{values['seconds']:>10.2f}{values['cpu_seconds']:>10.2f}"
            f"{values['peak_mib']:>12,.0f}"
        )
    if "anndata" in found:
        base = found["anndata"]
        for what in ("quick", "full"):
            print(
                f"anndata / {names[what]}: {base['seconds'] / found[what]['seconds']:.1f}× time, "
                f"{base['peak_mib'] / found[what]['peak_mib']:.1f}× memory"
            )
    print(
        f"quick < {QUICK_SECONDS:.0f} s: {found['quick']['seconds'] < QUICK_SECONDS}; "
        f"full < {FULL_GIB:.0f} GiB: {found['full']['peak_mib'] < FULL_GIB * 1024}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
