"""The benchmark runs at a small size."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backend.config import environment, project_root


@pytest.mark.slow
def test_benchmark_measures_each_file_both_ways(tmp_path):
    command = [sys.executable, "benchmarks/predict.py", "--cells", "60", "120", "--look", "5000"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], capture_output=True, text=True,
        cwd=project_root(), check=False,
        # The shipped model, whatever other tests point the dashboard at.
        env=environment(FAULTLINE_PRECOMPUTED=str(project_root() / "precomputed")),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cells scored") == 2
    assert "2 times the cells: " in done.stdout
    assert "quick look at 5,000 cells" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
