"""The real server in a process of its own, and headless Chromium to look at it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from app.components.export import FOOTER
from backend.config import environment, project_root
from tests.helpers import draw_cells, write_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Locator, Page

REAL, SIMULATED = "Small cohort", "Small simulated course"

# Machines that run tests have no graphics card: WebGL is computed, and nothing else needs to be
# drawn the way a card does it.
WEBGL = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-rasterization",
)

# Spinners and placeholders that turn and shimmer take more of such a machine than the pages do.
# What waits for the end of a movement still gets it.
_STILL = """
const still = new CSSStyleSheet();
still.replaceSync(`*, *::before, *::after {
    animation-duration: 1ms !important; animation-iteration-count: 1 !important;
    transition-duration: 1ms !important; transition-delay: 0s !important;
}`);
document.adoptedStyleSheets.push(still);
"""

# What the policy of the page forbade is said in the console.
LISTEN = """
addEventListener("securitypolicyviolation", (event) => console.error(
    `POLICY ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`));
"""

# Nothing runs, nothing is stale, and neither text nor address has changed for a while: between a
# click and the script that it starts a page looks finished, and its charts are drawn after it.
_QUIET = """
ms => {
    const app = document.querySelector('[data-testid="stApp"]');
    const done = app?.getAttribute('data-test-script-state') === 'notRunning'
        && !app.querySelector('[data-stale="true"], [data-testid="stSkeleton"]');
    const seen = done && [location.href, app.querySelectorAll('*').length, app.textContent].join();
    const quiet = (window.quiet ??= { seen: null, since: 0 });
    if (!done || seen !== quiet.seen) Object.assign(quiet, { seen, since: performance.now() });
    return done && performance.now() - quiet.since > ms;
}
"""


@dataclass(frozen=True)
class Server:
    """A running dashboard: where it answers and where it writes its log."""

    url: str
    log: Path


def free_port() -> int:
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


@contextmanager
def served(
    home: Path,
    *options: str,
    port: int | None = None,
    script: str = "app/server.py",
    **environment: str,
) -> Iterator[Server]:
    """Start `streamlit run`, by default as `serve` does, on the results below a folder."""
    port, log = port or free_port(), home / "server.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "streamlit", "run", script,
                "--server.port", str(port), "--server.headless", "true",
                *options,
            ],
            cwd=project_root(),
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(project_root()),
                "HOME": str(home),
                "FAULTLINE_HOME": str(home),
                "FAULTLINE_PRECOMPUTED": str(home / "none"),
                **environment,
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


@contextmanager
def worker(home: Path, models: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run jobs as `python -m backend worker` does, with less patience for one that is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.backend.jobs.quick_worker", str(home)],
        cwd=project_root(),
        env=environment(FAULTLINE_HOME=str(home), FAULTLINE_PRECOMPUTED=str(models)),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start the dashboard on small results."""
    home = tmp_path_factory.mktemp("served")
    write_results(
        home,
        cells=draw_cells(samples={"Healthy": 3, "Diagnosis": 6}, cells_per_sample=60, n_studies=1),
        name=REAL,
        simulated=False,
        source="GEO GSE116256",
    )
    write_results(home, cells=draw_cells(cells_per_sample=25), name=SIMULATED)
    with served(home) as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium; the tests are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *WEBGL])
        yield browser
        browser.close()


def settled(page: Page) -> None:
    """Wait until the script has run and no more of it is coming."""
    page.get_by_text(FOOTER).first.wait_for(timeout=60_000)
    page.evaluate("() => { window.quiet = undefined; }")
    page.wait_for_function(_QUIET, arg=500, polling=100, timeout=90_000)


def expect_count(found: Locator, n: int) -> None:
    """Wait until exactly `n` elements are there; charts fill up after their script has run."""
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect(found).to_have_count(n, timeout=60_000)


def wait_until(page: Page, true: Callable[[], bool]) -> None:
    """Ask again until `true` holds, for at most a minute."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "Waited for a minute."
        page.wait_for_timeout(100)


def visitor(browser: Browser) -> BrowserContext:
    """Return a visitor without a past, for whom nothing on a page moves."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_init_script(_STILL)
    context.add_init_script(LISTEN)
    return context


@pytest.fixture(scope="session")
def visitors() -> Iterator[dict[tuple[Browser, str], BrowserContext]]:
    """One visitor for each browser and server: the second page finds the files of the first."""
    known: dict[tuple[Browser, str], BrowserContext] = {}
    yield known
    for context in known.values():
        context.close()


@contextmanager
def _visits(
    chromium: Browser, server: Server, visitors: dict[tuple[Browser, str], BrowserContext]
) -> Iterator[Callable[..., Page]]:
    closing, foreign, faults, forbidden = [], [], [], []

    def opened(
        path: str = "",
        *,
        width: int = 1400,
        height: int = 900,
        theme: str = "light",
        at: Server = server,
        browser: Browser = chromium,
        another: bool = False,
    ) -> Page:
        context = None if another else visitors.get((browser, at.url))
        if context is None:
            context = visitor(browser)
            if another:
                closing.append(context)
            else:
                visitors[browser, at.url] = context
        page = context.new_page()
        closing.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=theme)
        page.set_default_timeout(60_000)
        own = (at.url, at.url.replace("http", "ws"), "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else foreign.append(r.url))
        page.on("websocket", lambda w: None if w.url.startswith(own) else foreign.append(w.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: forbidden.append(m.text) if "POLICY " in m.text else None)
        page.goto(f"{at.url}/{path}")
        settled(page)
        return page

    yield opened
    for each in reversed(closing):
        each.close()
    assert not foreign
    assert not faults
    assert not forbidden


@pytest.fixture
def visit(chromium: Browser, server: Server, visitors) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page.

    It fails on foreign requests, script errors and what the policy of the page forbids.

    The pages of all tests are those of one visitor, unless a test asks for `another`.
    """
    with _visits(chromium, server, visitors) as opened:
        yield opened


@pytest.fixture(scope="module")
def visit_once(chromium: Browser, server: Server, visitors) -> Iterator[Callable[..., Page]]:
    """Return what `visit` does, for pages that the tests of a file share."""
    with _visits(chromium, server, visitors) as opened:
        yield opened
