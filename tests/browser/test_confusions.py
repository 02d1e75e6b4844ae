"""Confusions in a browser: a click selects exactly the cells that the store has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

from app.identity import LOCAL
from backend.data.uploads import user_folder
from backend.evaluation.views import confusions
from backend.prediction.evaluate import evaluate
from backend.prediction.saved_models import find_saved_model
from backend.types import Scope
from tests.backend.evaluation.test_confusions import STRANGE, write_labelled
from tests.backend.prediction.conftest import (  # noqa: F401 - fixtures
    run_of,
    trained_file,
    trained_home,
)
from tests.backend.prediction.test_evaluate import new_cells
from tests.browser.conftest import REAL, SIMULATED, expect_count, served, settled
from tests.cells import judged_cells
from tests.helpers import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    from tests.browser.conftest import Server

pytestmark = pytest.mark.browser

PAGE = "confusions?show=Logistic+regression+(L1)"


@pytest.fixture(scope="module")
def answers(server: Server):
    """Return what the store says of the server's first dataset: confusions and cells."""
    with open_store(server.log.parent) as store:
        datasets = store.query("datasets").set_index("name")
        scope = Scope(dataset_id=str(datasets.loc[REAL, "dataset_id"]))
        yield confusions(store, scope, "logreg"), judged_cells(store, scope, "logreg")


def drawn(page: Page, number: int) -> Locator:
    chart = page.get_by_test_id("stVegaLiteChart").nth(number)
    chart.locator("svg, canvas").first.wait_for()
    return chart


def n_selected(page: Page) -> int:
    heading = page.get_by_role("heading", name="Selected cells")
    heading.wait_for()
    settled(page)
    text = page.get_by_test_id("stMain").inner_text()
    found = re.search(r"([\d,]+) cells? of", text[text.index("Selected cells") :])
    assert found
    return int(found[1].replace(",", ""))


def csv_of(page: Page, tmp_path, name: str) -> pd.DataFrame:
    with page.expect_download() as waiting:
        # The second button is the hidden one that Streamlit downloads with.
        page.locator(f".st-key-csv-{name} button").first.click()
    waiting.value.save_as(tmp_path / "cells.csv")
    return pd.read_csv(tmp_path / "cells.csv", encoding="utf-8-sig")


def test_click_on_the_matrix_selects_its_cells_and_leads_to_the_map(visit, answers, tmp_path):
    view, cells = answers
    page = visit(PAGE, height=1600)
    rects = drawn(page, 0).locator(".mark-rect path")
    expect_count(rects, len(view.cells))
    pair = view.cells[view.cells.label != view.cells.predicted].iloc[0]
    rects.nth(int(pair.name)).click()
    page.wait_for_url(re.compile("predicted="))
    assert n_selected(page) == pair.n_cells
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["cell_type"] == [pair.label]
    assert asked["predicted"] == [pair.predicted]
    # The file has exactly the cells of the store.
    chosen = cells[(cells.label == pair.label) & (cells.predicted == pair.predicted)]
    assert set(csv_of(page, tmp_path, "selected-cells").cell_id) == set(chosen.cell_id)
    # The link shows the same in a new browser, and the map gets the same cells.
    address = page.url.removeprefix(page.url[: page.url.index("confusions")])
    other = visit(address, height=1600, another=True)
    assert n_selected(other) == pair.n_cells
    other.get_by_role("button", name="See them on the Failure map").click()
    other.get_by_role("heading", name="Failure map", level=1).wait_for()
    other.wait_for_url(re.compile(r"sel=[0-9a-f]{16}"))
    assert n_selected(other) == pair.n_cells


def test_click_on_a_ribbon_selects_its_cells(visit, answers):
    view, _ = answers
    page = visit(PAGE, height=1600)
    pair = view.cells[view.cells.label != view.cells.predicted].iloc[0]
    ribbon = drawn(page, 1).locator(".mark-area path").first
    ribbon.scroll_into_view_if_needed()
    x, y = ribbon.evaluate(
        "p => { const q = p.getPointAtLength(0).matrixTransform(p.getScreenCTM());"
        " return [q.x, q.y]; }"
    )
    page.mouse.click(x + 3, y + 2)
    page.wait_for_url(re.compile("predicted="))
    asked = parse_qs(urlsplit(page.url).query)
    assert (asked["cell_type"], asked["predicted"]) == ([pair.label], [pair.predicted])
    assert n_selected(page) == pair.n_cells


def test_named_selection_opens_in_a_new_browser(visit, answers):
    view, _ = answers
    page = visit(f"{PAGE}&kind=same+lineage+family", height=1600)
    n = n_selected(page)
    assert n == view.kinds.set_index("kind").n_cells["same lineage family"]
    page.get_by_label("Name", exact=True).fill("Near misses")
    page.get_by_label("Name", exact=True).press("Enter")
    settled(page)
    page.get_by_role("button", name="Save as link").click()
    page.wait_for_url(re.compile(r"sel=[0-9a-f]{16}"))
    saved = parse_qs(urlsplit(page.url).query)["sel"][0]
    other = visit(f"{PAGE}&sel={saved}", height=1600, another=True)
    assert n_selected(other) == n
    expect_count(other.get_by_role("heading", name="Selected cells: Near misses"), 1)


def test_donor_leads_to_its_cells(visit):
    page = visit("donors?dataset=" + SIMULATED.replace(" ", "+"), height=1600)
    drawn(page, 0).locator(".mark-rect path").first.click()
    page.get_by_role("button", name="See them on Confusions").click()
    page.get_by_role("heading", name="Confusions", level=1).wait_for()
    assert n_selected(page) > 0
    assert "labelled" in page.get_by_role("heading", name="Selected cells").inner_text()


@pytest.fixture(scope="module")
def upload(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: F811
    """Serve a file that a stored model was evaluated on: 57 cells, so that no UMAP is compiled."""
    home = tmp_path_factory.mktemp("upload")
    new_cells(57).write_h5ad(home / "mine.h5ad")
    model = find_saved_model(run_of(trained_home, "logreg"), [trained_home])
    evaluate(home / "mine.h5ad", [model], user_folder(home, LOCAL))
    with served(home) as running:
        yield running


def test_cells_of_an_upload_are_chosen_and_found_again(visit, upload):
    page = visit("confusions", at=upload, height=1600)
    drawn(page, 0).locator(".mark-rect path").first.click()
    page.wait_for_url(re.compile("predicted="))
    n = n_selected(page)
    assert n > 0
    page.get_by_role("button", name="Save as link").click()
    page.wait_for_url(re.compile(r"sel=[0-9a-f]{16}"))
    saved = parse_qs(urlsplit(page.url).query)["sel"][0]
    for name in ("confusions", "failure_map"):
        other = visit(f"{name}?sel={saved}", at=upload, height=1600)
        assert n_selected(other) == n
    page = visit("donors", at=upload, height=1600)
    drawn(page, 0).locator(".mark-rect path").first.click()
    page.get_by_role("button", name="See them on the Failure map").click()
    page.get_by_role("heading", name="Failure map", level=1).wait_for()
    assert n_selected(page) > 0


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve cells whose labels are HTML, quotes, long, pictures, Hebrew and formulas."""
    home = tmp_path_factory.mktemp("strange")
    write_labelled(home, list(STRANGE) * 4, list(STRANGE) * 2 + [*STRANGE[1:], STRANGE[0]] * 2)
    with served(home) as running:
        yield running


def test_strange_labels_are_text(visit, strange):
    page = visit("confusions?label_level=fine&kind=correct", height=1600, at=strange)
    drawn(page, 0)
    assert n_selected(page) > 0
    page.on("dialog", lambda dialog: pytest.fail(f"A label ran as script: {dialog.message}"))
    said = page.get_by_test_id("stMain").inner_text()
    assert "<script>alert('x')</script>" in said
    names = drawn(page, 0).locator(".role-axis-label text").all_text_contents()
    assert any("<script>" in name for name in names)
    assert any("דם" in name for name in names)
    assert any("🩸 *cells*" in name for name in names)
    assert page.locator("script", has_text="alert('x')").count() == 0
    assert page.get_by_role("link", name="link", exact=True).count() == 0


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_page_has_no_serious_barrier(visit, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(f"{PAGE}&kind=same+lineage+family", theme=theme, height=1600)
    n_selected(page)
    # The colours of a chosen word in a list are Streamlit's own; what is greyed may be pale.
    greyed = "[data-testid=stSelectbox]:has([disabled], [aria-disabled=true])"
    # Sections of the navigation are Streamlit's own list, with headings between its items.
    sections = "[data-testid=stSidebarNavItems]"
    context = {"exclude": [["[data-testid=stMultiSelect]"], [greyed], [sections]]}
    found = axe.Axe().run(page, context=context, options={"resultTypes": ["violations"]})
    serious = [
        (rule["id"], [node["html"][:160] for node in rule["nodes"]])
        for rule in found.response["violations"]
        if rule["impact"] in {"serious", "critical"}
    ]
    assert not serious


def test_four_clicks_lead_from_the_overview_to_genes(visit, answers):
    view, _ = answers
    page = visit("?show=Logistic+regression+(L1)", height=1600)
    page.get_by_role("link", name="See what they are mistaken for").first.click()
    page.get_by_role("heading", name="Confusions", level=1).wait_for()
    pair = view.cells[view.cells.label != view.cells.predicted].iloc[0]
    drawn(page, 0).locator(".mark-rect path").nth(int(pair.name)).click()
    page.wait_for_url(re.compile("predicted="))
    settled(page)
    page.get_by_role("button", name="See their genes").click()
    page.get_by_role("heading", name="Genes", level=1).wait_for()
    settled(page)
    said = page.get_by_test_id("stMain").inner_text()
    assert f"{pair.n_cells:,} {pair.label} called {pair.predicted} against" in said
    assert "genes tested" in said
