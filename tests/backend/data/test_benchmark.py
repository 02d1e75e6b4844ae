"""The benchmark of the study's atlas runs at a small size, and both ways give the same F1."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backend.config import project_root


@pytest.mark.slow
def test_atlas_benchmark_goes_through_its_steps(tmp_path):
    command = [sys.executable, "benchmarks/atlas.py", "--cells", "600", "--folder", str(tmp_path)]
    steps = ("read", "subset", "logreg", "store")
    done = subprocess.run(
        [*command, "--grow", "200", "400", "--only", *steps],
        capture_output=True, text=True, cwd=project_root(), check=False,
    )  # fmt: skip
    # Whether it is fast enough depends on the machine; that every step came to its end does not.
    assert done.stdout.endswith("their limits.\n"), done.stdout + done.stderr
    assert "600 cells" in done.stdout
    for what in ("full check and import", "anndata.read_h5ad", "subset", "10 folds", "one fold"):
        assert what in done.stdout, done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if "MiB" in line][-2:] == [
        "200",
        "400",
    ]
    assert list(tmp_path.iterdir()) == []
