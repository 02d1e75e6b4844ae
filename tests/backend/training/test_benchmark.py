"""Full-size models go from checkpoint to bundle, and the benchmark for GPUs runs, at a small size."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backend.config import golden_dir, project_root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (golden_dir() / "geneformer").is_dir(), reason="no golden fixtures"),
]


def run(tmp_path, script, *words):
    command = [sys.executable, f"benchmarks/{script}", "--folder", str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project_root(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
    return done.stdout


def test_rehearsal_leaves_a_bundle_that_the_store_reads(tmp_path):
    sizes = ("--cells", "160", "--steps", "2", "--batch", "2")
    said = run(tmp_path, "rehearsal.py", "--presets", "geneformer.v1_10m", *sizes)
    (row,) = [line for line in said.splitlines() if line.startswith("geneformer.v1_10m")]
    assert "100.0%" in row
    assert "32 in" in row
    assert "The store reads 2 runs" in said
    assert "Diagnosis, Healthy, Post-treatment, Relapse" in said


def test_gpu_benchmark_runs_without_a_gpu(tmp_path):
    sizes = ("--cells", "500", "--steps", "2", "--batch", "2")
    said = run(tmp_path, "gpu.py", "--device", "cpu", "--presets", "geneformer.v1_10m", *sizes)
    (row,) = [line for line in said.splitlines() if line.startswith("geneformer.v1_10m")]
    assert len(row.split()) == 9
