"""Filter changes and the server's memory with several users on the real dashboard.

Usage: python benchmarks/pages.py [--series 4] [--cells 20000] [--users 4] [--acting 4]
       [--home FOLDER]
The figures of docs/cell-map.md: --series 40 --cells 350000 --users 10

All predictions are simulated: no model is fitted. They go through real bundles into a temporary
folder that is deleted at the end, or into --home, which is kept and used again. Users sit on Failure
map, Timepoints, Cell types and Confusions in turn, each in a browser of their own, and change protocol,
timepoint and model one after the other; the pages of the others stay open and idle. A change lasts from
the click until the script is done and nothing on the page is stale, the text being another one. Everything
runs on one machine, so the browsers share its processors with the server.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cell_map import IDLE, WEBGL, seconds_until, server_on, write_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page

FILTER_S, MEMORY_GIB = 1.5, 1.5
PAGES = ("failure_map", "timepoints", "cell_types", "confusions")

TEXT = "document.querySelector('[data-testid=\"stMain\"]').innerText"


def memory_gib(pid: int) -> tuple[float, float]:
    """Return what a process holds now, and the most it ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = {name: int(kib) for name, kib in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}
    return found["VmRSS"] / 2**20, found["VmHWM"] / 2**20


def open_page(browser: Browser, url: str, name: str) -> Page:
    page = browser.new_context(viewport={"width": 1400, "height": 1200}).new_page()
    page.goto(f"{url}/{name}?protocol=random", timeout=600_000)
    page.wait_for_function(IDLE, timeout=600_000)
    if name == "failure_map":
        page.locator(".map[data-state=drawn]").wait_for(timeout=600_000)
    return page


def seconds_of(page: Page, act: Callable[[], None]) -> float:
    """Return the seconds from a click until the page is idle with another text."""
    done = f"old => ({IDLE})() && {TEXT} !== old"
    took = seconds_until(page, act, done, page.evaluate(TEXT))
    # A map is drawn after the numbers; the next change begins when that is done, too.
    page.wait_for_timeout(500)
    if (drawn := page.locator(".map")).count():
        drawn.and_(page.locator("[data-state=drawn]")).wait_for()
    return took


def choose_protocol(page: Page, user: int) -> float:
    return seconds_of(page, page.get_by_role("radio", name="donor", exact=True).click)


def choose_from(page: Page, label: str, user: int, *, first: int = 0) -> float:
    page.get_by_role("combobox", name=re.compile(label)).click()
    options = page.get_by_role("option").filter(has_not_text="Select all")
    options.first.wait_for()
    took = seconds_of(page, options.nth(first + user % (options.count() - first)).click)
    page.keyboard.press("Escape")
    return took


FILTERS: dict[str, Callable[[Page, int], float]] = {
    "protocol": choose_protocol,
    "timepoint": lambda page, user: choose_from(page, "Timepoints", user),
    # Not the first one, which pages about one model show anyway.
    "model": lambda page, user: choose_from(page, "Models", user, first=1),
}


def measure(browser: Browser, url: str, pid: int, n_users: int, n_acting: int) -> bool:
    """Open all pages, then change the filters of each; print the seconds and the memory."""
    users = []
    for user in range(n_users):
        name = PAGES[user % len(PAGES)]
        users.append((name, open_page(browser, url, name)))
    print(f"{n_users} pages open: the server holds {memory_gib(pid)[0]:.2f} GiB", flush=True)
    every = []
    for user, (name, page) in enumerate(users[:n_acting]):
        page.bring_to_front()
        took = {what: change(page, user) for what, change in FILTERS.items()}
        every += took.values()
        words = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in took.items())
        print(f"  {name:12s} {words}", flush=True)
    slowest = max(every)
    now, most = memory_gib(pid)
    print(
        f"  {len(every)} changes: median {statistics.median(every):.2f} s, slowest {slowest:.2f} s"
        f" (at most {FILTER_S} s)"
    )
    print(f"  memory {now:.2f} GiB, most ever {most:.2f} GiB (at most {MEMORY_GIB} GiB)")
    return slowest <= FILTER_S and most <= MEMORY_GIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=4, help="at least 4: two models")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--acting", type=int, default=None, help="those who change filters: all")
    parser.add_argument("--home", type=Path, default=None)
    args = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("Playwright is not installed: make dev")
        return 0
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        print("Chromium is not installed (Debian: apt-get install chromium)")
        return 0
    with tempfile.TemporaryDirectory() as name:
        home = args.home or Path(name)
        if not (home / "datasets").is_dir():
            write_home(home, args.cells, args.series)
        print(f"{args.series} series × {args.cells:,} cells, {args.users} users")
        with sync_playwright() as playwright, server_on(home) as (url, process):
            browser = playwright.chromium.launch(executable_path=path, args=WEBGL)
            is_good = measure(browser, url, process.pid, args.users, args.acting or args.users)
            browser.close()
    print("All within their limits." if is_good else "Some are above their limits.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
