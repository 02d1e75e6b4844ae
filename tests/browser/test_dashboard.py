"""The dashboard in a browser: drawn, linked, exported, and silent towards other hosts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from app import nav
from app.components.export import FOOTER
from tests.browser.conftest import SIMULATED, expect_count, settled

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


pytestmark = pytest.mark.browser

_DRAWN = (
    "[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas, "
    ".map[data-state=drawn]"
)


def heading(page: Page) -> str:
    return page.get_by_role("heading", level=1).inner_text()


def marks(page: Page, kind: str = "point") -> Locator:
    """Marks of the first chart; texts and legends are not among them."""
    return page.locator("[data-testid=stVegaLiteChart]").first.locator(
        f"path[aria-roledescription={kind}]"
    )


@pytest.mark.parametrize(
    ("width", "height", "theme"),
    [(1400, 900, "light"), pytest.param(800, 900, "dark", marks=pytest.mark.slow)],
)
def test_every_page_is_drawn_without_help_from_other_hosts(visit, width, height, theme):
    page = visit(width=width, height=height, theme=theme)
    for info in nav.PAGES:
        page.get_by_test_id("stSidebarNav").get_by_text(info.title, exact=True).click()
        page.get_by_role("heading", name=info.title, level=1).wait_for()
        if info.needs_results:
            page.locator(_DRAWN).first.wait_for()
        settled(page)
        assert page.get_by_test_id("stException").count() == 0
        assert page.get_by_text("Traceback").count() == 0
        overflows = "document.documentElement.scrollWidth > window.innerWidth"
        assert not page.evaluate(overflows)
        for chart in page.locator("[data-testid=stVegaLiteChart]").all():
            box = chart.bounding_box()
            assert box is not None
            assert box["width"] > 200
            assert box["height"] > 80
            assert box["x"] + box["width"] <= width + 1


def test_filters_stay_in_the_url_over_pages(visit, server):
    page = visit("?protocol=random")
    page.get_by_test_id("stSidebarNav").get_by_text("Donors", exact=True).click()
    page.get_by_role("heading", name="Donors", level=1).wait_for()
    page.wait_for_url(re.compile(r"/donors\?.*protocol=random"))
    settled(page)
    # The dataset's id is there, too, whatever the default will be when the link is opened.
    assert re.search(r"dataset=[0-9a-f]{16}(&|$)", page.url)
    page.get_by_text("as given", exact=True).click()
    page.wait_for_url(re.compile("label_level=fine"))
    settled(page)
    assert "protocol=random" in page.url


def test_the_first_page_has_an_address_and_a_link_keeps_its_choices(visit, server):
    page = visit("overview?label_level=fine&protocol=random&timepoint=Diagnosis")
    assert heading(page) == "Overview"
    assert page.get_by_text("Page not found").count() == 0
    settled(page)
    link = page.url
    for part in ("label_level=fine", "protocol=random", "timepoint=Diagnosis", "dataset="):
        assert part in link
    again = visit(link.removeprefix(server.url).lstrip("/"))
    settled(again)
    assert again.get_by_text("which is not here").count() == 0
    assert again.url == link
    assert again.title() == "Overview · Faultline"


def test_what_a_link_asks_for_in_vain_is_said_and_a_link_can_be_copied_by_hand(visit):
    page = visit("timepoints?dataset=0123456789abcdef&protocol=random")
    expect_count(page.get_by_text("This link asked for dataset"), 1)
    # Where the clipboard refuses, the link is selected.
    page.evaluate(
        "() => Object.defineProperty(navigator, 'clipboard', {value: {"
        "writeText: () => Promise.reject(new Error('refused'))}})"
    )
    page.get_by_role("button", name="Copy link").click()
    field = page.get_by_label("Link to this view")
    field.wait_for()
    assert field.input_value() == page.url
    is_selected = "(f) => f.selectionEnd - f.selectionStart === f.value.length"
    assert field.evaluate(is_selected)
    assert field.evaluate("(f) => f.getRootNode().activeElement === f")


def test_click_on_a_dot_leads_along_the_way_down(visit):
    page = visit("?dataset=" + SIMULATED.replace(" ", "+"))
    page.locator(_DRAWN).first.wait_for()
    marks(page).first.click()
    page.get_by_role("heading", name="Timepoints", level=1).wait_for()
    page.wait_for_url(re.compile("model="))
    settled(page)
    page.locator(_DRAWN).first.wait_for()
    course = page.locator("[data-testid=stVegaLiteChart]").first
    course.locator("path[aria-roledescription=point][aria-label*='Relapse']").last.click()
    page.get_by_role("heading", name="Cell types", level=1).wait_for()
    page.wait_for_url(re.compile("timepoint=Relapse"))
    settled(page)
    page.locator("[data-testid=stVegaLiteChart]").first.locator(".mark-rect path").nth(1).click()
    page.get_by_role("button", name="on the failure map").click()
    page.get_by_role("heading", name="Failure map", level=1).wait_for()
    page.wait_for_url(re.compile("cell_type="))
    settled(page)
    assert heading(page) == "Failure map"


def test_charts_have_alternative_text_and_files_that_name_simulated_data(visit, tmp_path):
    page = visit("timepoints?dataset=" + SIMULATED.replace(" ", "+"))
    page.locator(_DRAWN).first.wait_for()
    name = page.get_by_test_id("stVegaLiteChart").first.get_attribute("aria-label")
    assert name is not None
    assert name.startswith("Simulated data, not a finding. Line chart of macro-F1")
    for suffix in ("PNG", "SVG", "CSV"):
        with page.expect_download() as waiting:
            # Streamlit's own toolbar over a chart has a button with PNG in its name, too.
            buttons = page.locator("[data-testid=stDownloadButton] button", has_text=suffix)
            buttons.locator("visible=true").first.click()
        download = waiting.value
        assert "SIMULATED" in download.suggested_filename
        assert download.suggested_filename.endswith("." + suffix.lower())
        download.save_as(tmp_path / suffix)
        content = (tmp_path / suffix).read_bytes()
        if suffix == "PNG":
            assert content.startswith(b"\x89PNG")
        else:
            assert b"SIMULATED" in content
            assert FOOTER.encode() in content


def test_server_sends_no_traceback_and_no_path(server, visit):
    page = visit("failure_map?show=nobody&cell_type=unicorn&dataset=%00")
    assert heading(page) == "Failure map"
    assert "/app/" not in page.locator("body").inner_text()
