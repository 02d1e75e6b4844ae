"""The real server in a process of its own, and headless Chromium to look at it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from backend.config import project_root
from tests.helpers import draw_cells, write_results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

REAL, SIMULATED = "Small cohort", "Small simulated course"


@dataclass(frozen=True)
class Server:
    """A running dashboard: where it answers and where it writes its log."""

    url: str
    log: Path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"The server did not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start `streamlit run app/main.py` on small results, as a user would."""
    home = tmp_path_factory.mktemp("served")
    write_results(
        home,
        cells=draw_cells(samples={"Healthy": 3, "Diagnosis": 6}, cells_per_sample=60, n_studies=1),
        name=REAL,
        simulated=False,
        source="GEO GSE116256",
    )
    write_results(home, cells=draw_cells(cells_per_sample=25), name=SIMULATED)
    port, log = _free_port(), home / "server.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "streamlit", "run", "app/main.py",
                "--server.port", str(port), "--server.headless", "true",
            ],
            cwd=project_root(),
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(project_root()),
                "HOME": str(home),
                "FAULTLINE_HOME": str(home),
                "FAULTLINE_PRECOMPUTED": str(home / "none"),
            },
            stdout=stream,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait_until_healthy(url, process, log)
        yield Server(url, log)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium; the tests are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
