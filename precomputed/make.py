"""Make everything in this folder again, and record in `manifest.json` what made it.

    python precomputed/make.py --geo FOLDER

FOLDER holds the files of GEO accession GSE116256 (`GSM…_<sample>.dem.txt.gz` and `.anno.txt.gz`).
Finished runs are skipped, so an interrupted call goes on where it stopped. `--manifest-only`
only writes the manifest of what lies here.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BASELINES = ("majority", "logreg", "celltypist", "hgb")
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
    "name": "van Galen et al. 2019, 16 samples",
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
        made = ["python -m backend data import-geo GEO WORK/vangalen2019.h5ad"]
        file, levels, protocols = "WORK/vangalen2019.h5ad", ("lineage", "fine"), ("random", "donor")
    else:
        made = ["python -m backend data simulate WORK/simulated.h5ad --cells 4000 --seed 0"]
        file, levels, protocols = (
            "WORK/simulated.h5ad",
            ("lineage",),
            ("random", "donor", "study"),
        )
    made += [
        f"python -m backend run --dataset {file} --model {model} --protocol {protocol} --fold all "
        f"--label-level {level} --budget equal --out OUT"
        for level in levels
        for protocol in protocols
        for model in BASELINES
    ]
    if kind == "van_galen":
        made.append(f"python -m backend sweep plans/vangalen_small.toml --dataset {file} --out OUT")
        # Fits on all cells, with the model: what an uploaded file is evaluated with.
        made += [
            f"python -m backend run --dataset {file} --model {model} --protocol donor "
            "--fold final --budget cap500 --out OUT"
            for model in ("logreg", "scgpt --preset small --set epochs=4")
        ]
    return made


def run(command: str, folders: dict[str, Path]) -> None:
    """Run one recorded command with its folders filled in."""
    words = shlex.split(command)
    for name, folder in folders.items():
        words = [str(folder) + w[len(name) :] if w.split("/")[0] == name else w for w in words]
    print("$", command, flush=True)
    subprocess.run([sys.executable, *words[1:]], check=True, cwd=ROOT)


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
    parser.add_argument("--manifest-only", action="store_true")
    args = parser.parse_args()
    if not args.manifest_only:
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


if __name__ == "__main__":
    main()
