"""Make everything in this folder again, and record in `manifest.json` what made it.

    python precomputed/make.py --geo FOLDER

FOLDER holds the files of GEO accession GSE116256 (`GSM…_<sample>.dem.txt.gz` and `.anno.txt.gz`).
Finished runs are skipped, so an interrupted call goes on where it stopped. `--manifest-only`
only writes the manifest of what lies here.

    python precomputed/make.py --results RESULTS

takes the place of what is shipped of the real dataset by what a sweep of `plans/vangalen.toml` left
in RESULTS: the dataset, the series with all folds done, their splits and their final fits.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BASELINES = ("majority", "logreg", "celltypist", "hgb")
MAX_BYTES = 60_000_000
"""What may be shipped in all."""
PACKAGES = (
    "anndata",
    "celltypist",
    "lightning-fabric",
    "numpy",
    "pandas",
    "scanpy",
    "scikit-learn",
    "scipy",
    "torch",
    "umap-learn",
)

VAN_GALEN = {
    "name": "van Galen et al. 2019",
    "accession": "GSE116256",
    "citation": (
        "van Galen P, Hovestadt V, Wadsworth MH, et al. Single-cell RNA-seq reveals AML "
        "hierarchies relevant to disease progression and immunity. Cell 2019;176:1265-1281."
    ),
    "doi": "10.1016/j.cell.2019.01.031",
    "licence_note": (
        "GEO states no licence. No expression value and no annotation file is shipped: only cell "
        "ids, cell types, donors, samples, days, derived genotype classes, counts of molecules and "
        "genes, and what our own runs computed from them."
    ),
}
SIMULATED = {
    "name": "simulated course",
    "accession": None,
    "citation": "Simulated by this project; not a finding.",
    "doi": None,
    "licence_note": "BSD-3-Clause, as the code.",
}


def commands(kind: str) -> list[str]:
    """Return the commands that make one dataset's bundles; GEO, WORK and OUT are folders."""
    if kind == "van_galen":
        file = "WORK/vangalen2019.h5ad"
        return [
            f"python -m backend data import-geo GEO {file}",
            f"python -m backend sweep plans/vangalen.toml --dataset {file} --out OUT",
        ]
    file = "WORK/simulated.h5ad"
    return [
        f"python -m backend data simulate {file} --cells 4000 --seed 0",
        *(
            f"python -m backend run --dataset {file} --model {model} --protocol {protocol} "
            "--fold all --label-level lineage --budget equal --out OUT"
            for protocol in ("random", "donor", "study")
            for model in BASELINES
        ),
    ]


def run(command: str, folders: dict[str, Path]) -> None:
    """Run one recorded command with its folders filled in."""
    words = shlex.split(command)
    for name, folder in folders.items():
        words = [str(folder) + w[len(name) :] if w.split("/")[0] == name else w for w in words]
    print("$", command, flush=True)
    subprocess.run([sys.executable, *words[1:]], check=True, cwd=ROOT)


def take(results: Path) -> None:
    """Ship the complete series of the real dataset in `results` instead of those shipped now.

    Raises
    ------
    SystemExit
        If `results` holds no complete series, or no dataset; nothing was changed.
    """
    from backend.store.bundle import list_runs, read_run

    runs = [(read_run(folder), Path(folder)) for folder in list_runs(results)]
    runs = [(run, folder) for run, folder in runs if run.status == "done"]
    folds: dict[str, set[object]] = {}
    for run, _ in runs:
        folds.setdefault(run.series_id, set()).add(run.fold)
    taken = [
        (run, folder)
        for run, folder in runs
        if folds[run.series_id] >= set(range(run.folds)) and not _is_simulated(results, run)
    ]
    ids = {run.dataset_id for run, _ in taken}
    if len(ids) != 1:
        sys.exit(f"{results} holds complete series of {len(ids)} real datasets; one is needed.")
    for kind in ("datasets", "runs", "splits"):
        for path in sorted((HERE / kind).iterdir()):
            if kind == "runs":
                is_kept = _is_simulated(HERE, read_run(path))
            else:
                is_kept = _is_simulated_dataset(HERE, path.name[:16])
            if not is_kept and kind == "splits":
                path.unlink()
            elif not is_kept and kind == "runs":
                shutil.rmtree(path)
    for path in sorted((HERE / "datasets").iterdir()):
        if not _is_simulated_dataset(HERE, path.name):
            shutil.rmtree(path)
    dataset = ids.pop()
    copy_without_expression(results / "datasets" / dataset, HERE / "datasets" / dataset)
    for run, folder in taken:
        shutil.copytree(folder, HERE / "runs" / run.run_id)
    wanted = {f"-{run.protocol}-k{run.folds}-s{run.split_seed}-{run.budget}" for run, _ in taken}
    for path in sorted((results / "splits").glob(f"{dataset}-*.parquet")):
        if path.stem.removeprefix(dataset) in wanted:
            shutil.copy(path, HERE / "splits" / path.name)
    names = sorted({f"{run.configuration} {run.protocol}" for run, _ in taken})
    print(f"{len(taken)} runs of {len(names)} configurations:", *names, sep="\n  ")


def copy_without_expression(folder: Path, target: Path) -> None:
    """Copy a dataset's bundle; counts of others are not ours to ship."""
    from backend.store.seals import file_hashes, head_text

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("expression"))
    head = target / "dataset.json"
    values = json.loads(head.read_text(encoding="utf-8"))
    head.write_text(head_text(values | {"files": file_hashes(target)}), encoding="utf-8")


def _is_simulated(root: Path, run: object) -> bool:
    return _is_simulated_dataset(root, run.dataset_id)  # type: ignore[attr-defined]


def _is_simulated_dataset(root: Path, dataset_id: str) -> bool:
    path = root / "datasets" / dataset_id / "dataset.json"
    return bool(json.loads(path.read_text(encoding="utf-8"))["simulated"])


def check_size() -> None:
    """Print what is shipped in all, and refuse more than may be."""
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB are shipped.")
    if size > MAX_BYTES:
        sys.exit(f"At most {MAX_BYTES / 1e6:.0f} MB may be shipped.")


def manifest() -> dict[str, object]:
    """Describe what lies in this folder."""
    files = sorted(
        path
        for folder in ("datasets", "runs", "splits")
        for path in (HERE / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )
    return {
        "format_version": 1,
        "made_by": "python precomputed/make.py --geo GEO",
        "datasets": [
            VAN_GALEN | {"simulated": False, "commands": commands("van_galen")},
            SIMULATED | {"simulated": True, "commands": commands("simulated")},
        ],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "sha256": {
            path.relative_to(HERE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geo", type=Path, help="folder with the files of GSE116256")
    parser.add_argument("--work", type=Path, help="where the h5ad files go (default: temporary)")
    parser.add_argument("--results", type=Path, help="where a sweep of plans/vangalen.toml wrote")
    parser.add_argument("--manifest-only", action="store_true")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.results:
        take(args.results)
    elif not args.manifest_only:
        with tempfile.TemporaryDirectory() as temporary:
            work = args.work or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            folders = {"WORK": work.resolve(), "OUT": HERE}
            if args.geo:
                folders["GEO"] = args.geo.resolve()
            for kind in ("van_galen", "simulated") if args.geo else ("simulated",):
                for command in commands(kind):
                    run(command, folders)
    command = [sys.executable, "-m", "backend", "runs", "index", str(HERE)]
    subprocess.run(command, cwd=ROOT, check=True)
    text = json.dumps(manifest(), indent=1, ensure_ascii=False)
    (HERE / "manifest.json").write_text(text + "\n", encoding="utf-8")
    check_size()


if __name__ == "__main__":
    main()
