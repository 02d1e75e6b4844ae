"""The dashboard's first page and its page changes, against a Streamlit page of one chart.

Usage: python benchmarks/first_page.py [--rounds 4]

Each round starts both servers anew, in turn: ours as `python -m backend serve` on a fresh home with the
shipped results, the other on one title and one chart of three points, which is the least that Streamlit
can draw. A new browser opens each. Times count from the server's first answer: until a text stands on
the page, and until a picture is drawn; pages are then changed by their links, and a change lasts
until the new page's script is done and its charts are drawn. All on one machine, so the browser shares
its processors with the server.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.config import environment, project_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

FIRST_S, CHANGE_S = 2.5, 0.7
PLAIN = """
import altair as alt, pandas as pd, streamlit as st
st.title("Plain")
st.markdown("One text.")
st.altair_chart(alt.Chart(pd.DataFrame({"x": [1, 2, 3], "y": [2, 3, 1]})).mark_point().encode(x="x", y="y"))
"""
PAGES = ("Blasts", "Timepoints", "Cell types", "Donors", "Confusions", "Protocols", "Overview")
TEXT = "[data-testid=stMarkdown]"
PICTURE = "[data-testid=stVegaLiteChart] :is(canvas, svg)"
CHANGED = """title => {
    const app = document.querySelector('[data-testid=stApp]');
    const charts = [...document.querySelectorAll('[data-testid=stVegaLiteChart]')];
    return app?.getAttribute('data-test-script-state') === 'notRunning'
        && [...document.querySelectorAll('h1')].some(h => h.innerText.trim().startsWith(title))
        && charts.every(chart => chart.querySelector('canvas, svg'));
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: list[str], url: str) -> Iterator[float]:
    """Start a server on a fresh home; yield the seconds until it answered."""
    home = Path(tempfile.mkdtemp())
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=project_root(), env=environment(FAULTLINE_HOME=str(home), PYTHONPATH=str(project_root())),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None:
                    sys.exit(f"{command[1:4]} ended with {process.returncode}.")
                time.sleep(0.02)
        yield time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(home, ignore_errors=True)


def first_sight(browser: Browser, url: str) -> tuple[Page, float, float]:
    """Return a new visitor's page, and the seconds until its first text and its first picture."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    seen = []
    for part in (TEXT, PICTURE):
        page.wait_for_function(
            "part => document.querySelector(part)", arg=part, polling="raf", timeout=120_000
        )
        seen.append(time.perf_counter() - began)
    return page, seen[0], seen[1]


def changes(page: Page) -> list[float]:
    """Return the seconds of one walk over the pages."""
    page.wait_for_timeout(8_000)  # until what the server prepares beside the first page is done
    took = []
    for title in PAGES:
        link = page.get_by_test_id("stSidebarNav").get_by_text(title, exact=True)
        began = time.perf_counter()
        link.click()
        page.wait_for_function(CHANGED, arg=title, polling="raf", timeout=120_000)
        took.append(time.perf_counter() - began)
        page.wait_for_timeout(500)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("Not measured: Chromium is not installed.")
        return 0
    found: dict[str, list[tuple[float, float, float]]] = {"plain": [], "ours": []}
    walked: list[float] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        script = Path(folder, "plain.py")
        script.write_text(PLAIN)
        for _ in range(args.rounds):
            for name, entry in (
                ("plain", ["streamlit", "run", str(script), "--server.headless", "true", "--server.port"]),
                ("ours", ["backend", "serve", "--port"]),
            ):  # fmt: skip
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                )
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                with served([sys.executable, "-m", *entry, str(port)], url) as answered:
                    page, text, picture = first_sight(browser, url)
                    found[name].append((answered, text, picture))
                    if name == "ours":
                        walked += changes(page)
                browser.close()
    print(
        "medians          server answers   first text   first picture   (seconds after its answer)"
    )
    for name, rows in found.items():
        answered, text, picture = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:8} {answered:18.2f} {text:12.2f} {picture:15.2f}")
    picture = statistics.median(row[2] for row in found["ours"])
    plain = statistics.median(row[2] for row in found["plain"])
    change = statistics.mean(walked)
    print(f"first picture: {plain / picture:.2f} times as fast as a page of one chart")
    print(
        f"page change: {change:.2f} s in the mean, {max(walked):.2f} s at most, {len(walked)} changes"
    )
    return int(picture >= FIRST_S or change >= CHANGE_S)


if __name__ == "__main__":
    sys.exit(main())
