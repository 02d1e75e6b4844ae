"""Hostile names in a real browser: nothing of them runs, is drawn as Markdown, or asks a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.nav import PAGES
from tests.browser.conftest import served
from tests.hostile import EVIL, write_hostile_results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser.conftest import Server

pytestmark = pytest.mark.browser

# What Markdown, LaTeX or HTML would have become; icons and pictures of our own are not these.
_BECAME = f"""
() => ['.katex', 'img[src*="{EVIL}"]', 'a[href*="{EVIL}"]', '[onerror]', '[data-testid=stMarkdown] b']
    .filter(selector => document.querySelector(selector))
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve hostile results without the policy that would hold a request back."""
    home = tmp_path_factory.mktemp("hostile")
    write_hostile_results(home)
    with served(home, script="app/main.py") as server:
        yield server


@pytest.mark.parametrize("key", [page.key for page in PAGES])
def test_page_shows_hostile_names_as_text(visit, hostile, key):
    """`visit` fails at the end if a request left for another host or a script failed."""
    page = visit(key if key != PAGES[0].key else "", at=hostile)
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    for chart in page.locator("[data-testid=stVegaLiteChart]").all():
        box = chart.bounding_box()
        if box is None:
            continue
        # A pointer that crosses a chart opens the tooltips on its way.
        for step in range(1, 8):
            page.mouse.move(box["x"] + box["width"] * step / 8, box["y"] + box["height"] * step / 8)
            page.wait_for_timeout(60)
            assert page.evaluate(_BECAME) == []
    assert page.evaluate(_BECAME) == []
    assert not asked
