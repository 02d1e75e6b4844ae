"""A server killed at any moment leaves nobody behind, and the next one ends what it had begun."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time

import pytest

from backend.config import environment, project_root
from backend.jobs.directory import create_job, read_status, retry_job
from backend.store.seals import verify
from tests.backend.hostile.killing import SOON, family, wait_until_gone
from tests.conftest import build_adata


@pytest.mark.slow
def test_serve(tmp_path):
    """A killed server takes page, worker and job along; the next one ends what was begun."""
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    # So few that no map is fitted: what is killed at any moment need not last.
    build_adata(48).write_h5ad(data / "x.h5ad")
    env = environment(FAULTLINE_HOME=str(home), HOME=str(home), FAULTLINE_DATA_DIRS=str(data))
    request = {"dataset": "data/x.h5ad", "model": "majority", "folds": 2}
    job = create_job(home, "run", request, owner="local")
    rng, left = random.Random(6), 0

    def serve():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        return subprocess.Popen(
            [sys.executable, "-m", "backend", "serve", "--port", port], cwd=project_root(), env=env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    for _ in range(6):
        process = serve()
        # Its own imports take the first second or two; no moment after them is like another.
        time.sleep(rng.uniform(1, 6))
        own = family(process.pid)
        left += len(own) - 1
        process.kill()
        process.wait()
        wait_until_gone(own, seconds=3 * SOON)
        assert read_status(home, job, owner="local").state in (
            "queued",
            "running",
            "done",
            "failed",
        )
    assert left, "it never had started anybody"
    status = read_status(home, job, owner="local")
    process = serve()
    try:
        until = time.monotonic() + 150
        # The job may be done by now; a server can be told to end once it has started its own.
        while len(family(process.pid)) < 2:
            assert time.monotonic() < until, "the server starts nobody"
            time.sleep(0.1)
        while status.state != "done":
            assert time.monotonic() < until, status
            if status.state == "failed":
                # Of a worker that died twice; one that could stop gave its job back.
                assert status.requeues >= 1, status
                retry_job(home, job, owner="local")
            time.sleep(0.1)
            status = read_status(home, job, owner="local")
    finally:
        process.terminate()
        assert process.wait(30) == 0
    heads = list(home.rglob("runs/*/run.json"))
    assert len(heads) == 2
    assert not any(verify(heads[0].parents[2]).values())
    print("\nserve: 6 kills, 0 lost, 0 left behind")
