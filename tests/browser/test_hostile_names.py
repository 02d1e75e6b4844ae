"""Hostile names in a real browser: nothing of them runs, is drawn as Markdown, or asks a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.nav import PAGES
from tests.browser.conftest import served, settled
from tests.hostile import EVIL, write_hostile_results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser.conftest import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIDES = (("x", "width"), ("y", "height"))

# What Markdown, LaTeX or HTML would have become; icons, pictures and formulas of our own are not
# these. Asked after what the pointer opened has been drawn.
_BECAME = f"""
() => new Promise(tell => requestAnimationFrame(() => requestAnimationFrame(() => tell(
    ['.katex', 'img[src*="{EVIL}"]', 'a[href*="{EVIL}"]', '[onerror]', '[data-testid=stMarkdown] b']
        .filter(selector => [...document.querySelectorAll(selector)].some(
            found => selector !== '.katex' || found.textContent.includes('evil')))
))))
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve hostile results without the policy that would hold a request back."""
    home = tmp_path_factory.mktemp("hostile")
    write_hostile_results(home)
    with served(home, script="app/main.py") as server:
        yield server


def test_pages_show_hostile_names_as_text(visit, hostile):
    """`visit` fails at the end if a request left for another host or a script failed."""
    page = visit(at=hostile)
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.reload()
    for info in PAGES:
        page.get_by_test_id("stSidebarNav").get_by_text(info.title, exact=True).click()
        page.get_by_role("heading", name=info.title, level=1).wait_for()
        settled(page)
        for chart in page.locator("[data-testid=stVegaLiteChart]").all():
            box = chart.bounding_box()
            if box is None:
                continue
            # A pointer that crosses a chart opens the tooltips on its way.
            for step in range(1, 8):
                x, y = (box[edge] + box[size] * step / 8 for edge, size in SIDES)
                page.mouse.move(x, y)
                assert page.evaluate(_BECAME) == [], info.key
        assert page.evaluate(_BECAME) == [], info.key
        assert not asked, info.key
