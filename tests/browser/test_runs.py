"""The whole way of a training job in a browser: form, worker, live progress, results, deletion."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from backend.config import environment, project_root
from tests.browser.conftest import free_port, served, settled, visitor
from tests.conftest import build_adata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "datasets").mkdir()
    # Below 60 cells the map is two components: no compilation of UMAP.
    build_adata(57, n_donors=6).write_h5ad(tmp_path / "datasets" / "course.h5ad")
    return tmp_path


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = visitor(chromium)
    page = context.new_page()
    page.set_default_timeout(120_000)
    yield page
    context.close()


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()
    settled(page)


def test_run_is_started_followed_and_deleted(place, page):
    folders = {"FAULTLINE_DATA_DIRS": str(place / "datasets")}
    port = free_port()
    with served(place, port=port, **folders) as server:
        page.goto(f"{server.url}/runs?runs_view=Start+a+run")
        settled(page)
        page.get_by_text("No worker is running").wait_for()
        choose(page, "Model", "Majority class")
        page.get_by_role("textbox", name="Settings that differ").fill("epochs=1")
        page.get_by_role("button", name="Start training").click()
        page.get_by_text("has no setting epochs").wait_for()
        page.get_by_role("textbox", name="Settings that differ").fill("")
        page.get_by_role("button", name="Start training").click()
        page.get_by_text("leads back to the job").wait_for()
        assert re.search(r"job=[0-9a-f]{16}", page.url)
    # The tab is closed and the server is gone; both come back to the same job.
    address = page.url
    page.goto("about:blank")
    with served(place, port=port, **folders) as server:
        page.goto(address)
        page.get_by_text(re.compile(r"queued$")).first.wait_for()
        worker = subprocess.Popen(
            [sys.executable, "-m", "backend", "worker", "--once"],
            cwd=project_root(),
            env=environment(FAULTLINE_HOME=str(place), **folders),
            stderr=subprocess.DEVNULL,
        )
        # The page follows by itself, without a reload.
        page.get_by_text(re.compile(r"5 fits of series")).wait_for(timeout=240_000)
        assert worker.wait(60) == 0
        page.get_by_text("Log", exact=True).click()
        page.get_by_text("fold 4: done").wait_for()
        page.get_by_role("button", name="All jobs").click()
        page.get_by_text("1 job, 0 waiting or running.").wait_for()
        page.get_by_test_id("stMain").get_by_role("button", name="Open").click()
        page.get_by_text(re.compile(r"5 fits of series")).wait_for()
        assert "job=" in page.url
        page.get_by_role("button", name="All jobs").click()
        page.get_by_text("1 job, 0 waiting or running.").wait_for()
        page.get_by_text("Runs", exact=True).last.click()
        page.get_by_text("5 runs of 1 series on 1 dataset: 5 done, 0 failed.").wait_for()
        settled(page)
        assert "job=" not in page.url
        page.get_by_text("Fold 0").first.click()
        page.get_by_role("button", name="Delete this run").first.click()
        page.get_by_text("4 runs of 1 series on 1 dataset: 4 done, 0 failed.").wait_for()
    assert "Traceback" not in server.log.read_text()
