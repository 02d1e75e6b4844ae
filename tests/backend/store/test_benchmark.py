"""The benchmark runs at a small size and every way of counting gives the same F1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]


@pytest.mark.slow
def test_benchmark_agrees_with_itself() -> None:
    sizes = ["--series", "2", "--cells", "500", "--bundles", "10", "--bundle-cells", "100"]
    command = [sys.executable, "benchmarks/store.py", *sizes, "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.stdout.count("same F1: yes") == 3, done.stdout + done.stderr
    assert "First sync: 10 bundles" in done.stdout
