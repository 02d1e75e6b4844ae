"""The cell map in a browser: what is drawn around is what the server selects, and text is text."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from backend.evaluation.cells.hit_test import cells_inside
from backend.evaluation.cells.map_cells import load_cells
from backend.types import Scope
from tests.browser.conftest import REAL, expect_count, served, settled, wait_until, worker
from tests.cells import judged_cells
from tests.helpers import draw_cells, open_store, write_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Page

    from backend.evaluation.cells.map_cells import MapCells
    from tests.browser.conftest import Server

pytestmark = pytest.mark.browser

HTML = '<img src=x onerror="window.hacked = 1"><b>T</b>'
LONG = "very long name " * 14
ODD = {"HSC": HTML, "GMP": LONG, "Mono": "🩸 وحيدة :smile: $x^2$", "B": "a_b*c*`d`"}
MODEL = {"logreg": ("Logistic regression (L1)", (0,))}
SMALL = {"Healthy": 3, "Diagnosis": 6}


def wait_drawn(page: Page, n: int = 1, *, not_version: str | None = None) -> None:
    """Wait until `n` maps are drawn, the first one with something new where a version is given."""
    drawn = page.locator(".map[data-state=drawn]")
    drawn.nth(n - 1).wait_for(timeout=180_000)
    if not_version is not None:
        newer = f".map[data-state=drawn]:not([data-version='{not_version}'])"
        page.locator(newer).first.wait_for()


def version(page: Page) -> str:
    return page.locator(".map").first.get_attribute("data-version") or ""


def sent(page: Page) -> dict:
    return json.loads(page.locator(".map").first.get_attribute("data-sent") or "{}")


def drag(page: Page, panel: Locator, corners: list[tuple[float, float]]) -> None:
    """Drag over the panel along corners that are shares of its width and height."""
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def circle(x: float = 0.5, y: float = 0.5, r: float = 0.22) -> list[tuple[float, float]]:
    steps = [2 * math.pi * k / 24 for k in range(25)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for a in steps]


def tool(page: Page, name: str) -> None:
    page.locator(".bar").first.get_by_role("button", name=name, exact=True).click()


def selected(page: Page) -> int:
    """Read the number of selected cells from the panel."""
    page.get_by_role("heading", name=re.compile("Selected cells")).wait_for()
    settled(page)
    if page.get_by_text("No cell is in this selection").count():
        return 0
    text = page.get_by_test_id("stMain").inner_text()
    found = re.search(r"([\d,]+) cells?\b", text[text.index("Selected cells") :])
    assert found, text
    return int(found[1].replace(",", ""))


def selected_ids(page: Page) -> set[str]:
    """Download the selected cells and return their names."""
    button = page.locator(".st-key-csv-selected-cells button")
    with page.expect_download() as waiting:
        button.first.click()
    table = pd.read_csv(waiting.value.path(), dtype=str, encoding="utf-8-sig")
    return set(table.cell_id)


@pytest.fixture(scope="module")
def cells(server: Server) -> tuple[MapCells, np.ndarray]:
    """The cells of the server's first dataset as its page opens them, and their names."""
    with open_store(server.log.parent) as store:
        datasets = store.query("datasets").set_index("name")
        dataset_id = datasets.loc[REAL, "dataset_id"]
        scope = Scope(dataset_id=dataset_id)
        names = judged_cells(store, scope, "logreg").cell_id.to_numpy()
        return load_cells(store, scope, "logreg"), names


def open_map(visit: Callable[..., Page], query: str = "", **options) -> Page:
    page = visit(f"failure_map?show=Logistic+regression+(L1){query}", height=1500, **options)
    wait_drawn(page)
    return page


@pytest.fixture(scope="module")
def shared_map(visit_once) -> Page:
    return open_map(visit_once)


@pytest.fixture
def map_page(shared_map: Page) -> Page:
    """One page with a map for several tests: what an earlier one chose is taken back."""
    shared_map.bring_to_front()
    for name in ("New", "Pan", "Whole map"):
        tool(shared_map, name)
    if not shared_map.get_by_text("No cells are selected.").count():
        before = version(shared_map)
        tool(shared_map, "Clear")
        wait_drawn(shared_map, not_version=before)
        shared_map.get_by_text("No cells are selected.").wait_for()
    settled(shared_map)
    return shared_map


def test_lasso_selects_what_the_hit_test_gives(map_page, cells):
    found, names = cells
    page = map_page
    before = version(page)
    tool(page, "Lasso")
    drag(page, page.locator(".panel"), circle())
    wait_drawn(page, not_version=before)
    event = sent(page)
    assert (event["kind"], event["mode"]) == ("lasso", "replace")
    assert 10 < len(event["polygon"]) <= 500
    hit = cells_inside(found.coordinates, np.array(event["polygon"]))
    assert 10 < hit.sum() < len(hit) - 10
    assert selected(page) == hit.sum()
    # The file has exactly these cells.
    assert selected_ids(page) == set(names[hit])
    # What is drawn lies where the mouse was: the circle's middle is the middle of the panel.
    sx, tx, sy, ty = json.loads(page.locator(".panel").get_attribute("data-view"))
    box = page.locator(".panel canvas").bounding_box()
    corners = np.array(event["polygon"]) * (sx, sy) + (tx, ty)
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    assert np.abs(middle - (box["width"] / 2, box["height"] / 2)).max() < 4


def test_areas_are_added_removed_turned_round_and_cleared(map_page, cells):
    found, _ = cells
    page = map_page
    panel = page.locator(".panel")

    def after(act: Callable[[], None]) -> tuple[dict, int]:
        before = version(page)
        act()
        wait_drawn(page, not_version=before)
        return sent(page), selected(page)

    def inside(event: dict) -> np.ndarray:
        return cells_inside(found.coordinates, np.array(event["polygon"]))

    tool(page, "Box")
    event, n = after(lambda: drag(page, panel, [(0.2, 0.2), (0.5, 0.6)]))
    mask = inside(event)
    assert (event["kind"], len(event["polygon"]), n) == ("box", 4, mask.sum())
    tool(page, "Add")
    event, n = after(lambda: drag(page, panel, [(0.4, 0.4), (0.7, 0.8)]))
    mask |= inside(event)
    assert n == mask.sum()
    tool(page, "Remove")
    event, n = after(lambda: drag(page, panel, [(0.45, 0.45), (0.55, 0.9)]))
    mask &= ~inside(event)
    assert n == mask.sum()
    event, n = after(lambda: tool(page, "Invert"))
    assert n == (~mask).sum()
    before = version(page)
    tool(page, "Clear")
    wait_drawn(page, not_version=before)
    page.get_by_text("No cells are selected.").wait_for()


def test_keyboard_selects_with_a_box(map_page, cells):
    found, _ = cells
    page = map_page
    before = version(page)
    page.locator(".panel").focus()
    for key in ("b", "ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    wait_drawn(page, not_version=before)
    event = sent(page)
    assert event["kind"] == "box"
    hit = cells_inside(found.coordinates, np.array(event["polygon"]))
    assert selected(page) == hit.sum() > 0
    view = page.locator(".panel").get_attribute("data-view")
    page.locator(".panel").focus()
    page.keyboard.press("+")
    wait_until(page, lambda: page.locator(".panel").get_attribute("data-view") != view)


def test_legend_hides_isolates_and_shields_from_the_lasso(map_page, cells):
    found, _ = cells
    page = map_page
    before = version(page)
    legend = page.locator(".legend")
    counts = [int(n.replace(",", "")) for n in legend.locator(".count").all_inner_texts()]
    assert sum(counts) == len(found)
    legend.get_by_role("button", name="Only correct").click()
    pressed = [b.get_attribute("aria-pressed") for b in legend.locator(".entry").all()]
    assert pressed.count("true") == 1
    tool(page, "Lasso")
    drag(page, page.locator(".panel"), circle())
    wait_drawn(page, not_version=before)
    event = sent(page)
    assert event["hidden"]
    hit = cells_inside(found.coordinates, np.array(event["polygon"])) & (found.outcome == 0)
    assert selected(page) == hit.sum() > 0
    legend.get_by_role("button", name="Show all").click()
    pressed = [b.get_attribute("aria-pressed") for b in legend.locator(".entry").all()]
    assert set(pressed) == {"true"}


def test_pointing_at_a_cell_tells_what_it_is(map_page, cells):
    found, names = cells
    page = map_page
    panel = page.locator(".panel")
    panel.scroll_into_view_if_needed()
    sx, tx, sy, ty = json.loads(panel.get_attribute("data-view"))
    # The loneliest cell: nobody else is near.
    x, y = found.coordinates.x_values() * sx + tx, found.coordinates.y_values() * sy + ty
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(apart, np.inf)
    row = int(np.argmax(apart.min(axis=1)))
    box = panel.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + x[row] - 1, box["y"] + y[row])
    page.mouse.move(box["x"] + x[row] + 1, box["y"] + y[row])
    tip = page.locator(".tip dl")
    tip.wait_for()
    assert names[row] in tip.inner_text()
    expected = found.roles["predicted"].words(np.array([row]))[0]
    assert expected in tip.inner_text()
    # The same stands below the map, for those who cannot point.
    expect_count(page.get_by_text(f"Cell {names[row]} ·"), 1)


def test_permalink_opens_the_same_cells_for_another_visitor(visit):
    page = open_map(visit, "&colour=label")
    before = version(page)
    tool(page, "Lasso")
    drag(page, page.locator(".panel"), circle(r=0.3))
    wait_drawn(page, not_version=before)
    n = selected(page)
    assert n > 10
    page.get_by_role("button", name="Save as link").click()
    page.wait_for_url(re.compile("sel=[0-9a-f]{16}"))
    settled(page)
    query = page.url.split("?", 1)[1]
    other = visit(f"failure_map?{query}", height=1500, another=True)
    wait_drawn(other)
    assert selected(other) == n
    assert other.locator(".legend h4").inner_text() == "Label"
    # Another area takes the link out of the address.
    before = version(other)
    tool(other, "Box")
    drag(other, other.locator(".panel"), [(0.4, 0.4), (0.6, 0.6)])
    wait_drawn(other, not_version=before)
    other.wait_for_url(lambda url: "sel=" not in url)


def test_a_link_to_nothing_says_so(visit):
    page = open_map(visit, "&sel=" + "0" * 16)
    expect_count(page.get_by_text("it is gone"), 1)
    expect_count(page.get_by_text("No cells are selected."), 1)


def test_small_multiples_move_together(visit):
    page = open_map(visit, "&facet=timepoint")
    panels = page.locator(".panel")
    expect_count(panels, 2)
    assert [c.split()[0] for c in page.locator("figcaption").all_inner_texts()] == [
        "Healthy",
        "Diagnosis",
    ]
    views = {panel.get_attribute("data-view") for panel in panels.all()}
    assert len(views) == 1
    panels.first.focus()
    page.keyboard.press("+")

    def moved() -> bool:
        after = {panel.get_attribute("data-view") for panel in panels.all()}
        return len(after) == 1 and after != views

    wait_until(page, moved)
    before = version(page)
    tool(page, "Box")
    drag(page, panels.nth(1), [(0.1, 0.1), (0.9, 0.9)])
    wait_drawn(page, not_version=before)
    assert sent(page)["facet"] == 1
    selected(page)
    text = page.get_by_test_id("stMain").inner_text()
    assert "Diagnosis" in text[text.index("Selected cells") :]


def test_one_map_a_model_shares_the_camera(visit):
    page = open_map(visit, "&facet=model")
    panels = page.locator(".panel")
    panels.nth(1).wait_for()
    n = panels.count()
    wait_drawn(page, n)
    old = panels.nth(1).get_attribute("data-view")
    panels.first.focus()
    page.keyboard.press("+")

    def together() -> bool:
        views = [json.loads(panel.get_attribute("data-view")) for panel in panels.all()]
        return json.loads(old) != views[1] and np.ptp(np.array(views), axis=0).max() < 1e-6

    wait_until(page, together)


def test_picture_files_show_the_map(visit, tmp_path):
    page = open_map(visit, "&colour=label")
    starts = {"PNG": b"\x89PNG", "SVG": b"<?xml", "PDF": b"%PDF"}
    content = {}
    for suffix, start in starts.items():
        with page.expect_download(timeout=120_000) as waiting:
            page.locator("[data-testid=stDownloadButton] button", has_text=suffix).first.click()
        waiting.value.save_as(tmp_path / suffix)
        content[suffix] = (tmp_path / suffix).read_bytes()
        assert content[suffix].startswith(start)
    text = content["SVG"].decode("utf-8")
    assert "Research use only" in text
    assert "HSC (" in text
    assert text.count("data:image/png;base64") >= 1
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(io.BytesIO(content["PNG"]), format="png")
    assert len(np.unique(pixels[::4, ::4].reshape(-1, pixels.shape[2]), axis=0)) > 50


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_points_are_drawn_without_a_serious_fault_of_access(visit, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_map(visit, theme=theme)
    covered = page.locator(".panel canvas").evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const colours = new Set();
            let n = 0;
            for (let i = 0; i < data.length; i += 4) {
                if (data[i + 3] < 100) continue;
                n += 1;
                colours.add(`${data[i] >> 5},${data[i + 1] >> 5},${data[i + 2] >> 5}`);
            }
            return { share: n / (width * height), colours: colours.size };
        }"""
    )
    assert 0.002 < covered["share"] < 0.8
    assert covered["colours"] >= 3
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (fault["id"], [node["target"] for node in fault["nodes"]][:3])
        for fault in found
        if fault["impact"] in {"serious", "critical"}
    ]
    # What Streamlit itself draws around our page is not ours to change.
    ours = [fault for fault in serious if ".map" in str(fault) or ".panel" in str(fault)]
    assert not ours, ours
    label = page.locator(".panel canvas").get_attribute("aria-label")
    assert label is not None
    assert "failures are drawn last" in label


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on datasets that are not as one would like them."""
    home = tmp_path_factory.mktemp("odd")
    cells = draw_cells(samples=SMALL, cells_per_sample=40, n_studies=1)
    for column in ("cell_type_lineage", "cell_type_fine"):
        cells[column] = cells[column].map(lambda name: ODD.get(name, name), na_action="ignore")
    cells.loc[:9, ["umap_x", "umap_y"]] = np.nan
    options = {"models": MODEL, "fine": (), "protocols": ("donor",), "simulated": False}
    write_results(home, cells=cells, name="A odd names", **options)
    bare = draw_cells(samples=SMALL, cells_per_sample=30, n_studies=1, seed=3)
    bare[["umap_x", "umap_y"]] = np.nan
    write_results(home, cells=bare, name="B no map", **options)
    with served(home) as running:
        yield running


def test_names_from_files_stay_text(visit, odd):
    page = visit("failure_map?colour=label", height=1500, at=odd)
    wait_drawn(page)
    names = page.locator(".legend .name").all_inner_texts()
    assert HTML in names
    assert ODD["Mono"] in names
    assert any(name.startswith(LONG[:30]) for name in names)
    assert page.locator(".legend img, .legend b").count() == 0
    assert page.evaluate("window.hacked") is None
    overflows = "document.documentElement.scrollWidth > window.innerWidth"
    assert not page.evaluate(overflows)
    expect_count(page.get_by_text("Without a place on the map, but in all numbers: 10 cells."), 1)
    tool(page, "Box")
    before = version(page)
    drag(page, page.locator(".panel"), [(0.02, 0.02), (0.98, 0.98)])
    wait_drawn(page, not_version=before)
    settled(page)
    assert page.evaluate("window.hacked") is None
    with page.expect_download(timeout=120_000) as waiting:
        page.locator("[data-testid=stDownloadButton] button", has_text="SVG").first.click()
    assert "<img src=x" not in waiting.value.path().read_text(encoding="utf-8")


def test_a_dataset_without_a_map_says_so(visit, odd):
    page = visit("failure_map?dataset=B+no+map", at=odd)
    expect_count(page.get_by_text("has no map yet"), 1)
    expect_count(page.get_by_role("button", name="Compute a map"), 1)
    assert page.locator(".map").count() == 0
    # Its numbers are all there.
    expect_count(page.get_by_text("fails on"), 1)


def test_without_webgl_a_picture_of_densities_is_shown(chromium, visit):
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    plain = chromium.browser_type.launch(
        executable_path=path, args=["--no-sandbox", "--disable-3d-apis"]
    )
    try:
        page = visit("failure_map", browser=plain, another=True)
        page.locator(".map[data-state=no-webgl]").wait_for()
        page.get_by_test_id("stImage").locator("img").wait_for()
        expect_count(page.get_by_text("This browser cannot draw with WebGL here"), 1)
        assert page.locator(".bar").is_hidden()
        size = "image => image.naturalWidth * image.naturalHeight"
        assert page.get_by_test_id("stImage").locator("img").evaluate(size) > 100_000
        page.context.close()
    finally:
        plain.close()


@pytest.mark.slow
def test_a_map_is_computed_on_demand(visit, odd):
    page = visit("failure_map?dataset=B+no+map", at=odd, height=1200)
    page.get_by_role("button", name="Compute a map").click()
    page.wait_for_url(re.compile("job=[0-9a-f]{16}"))
    with worker(odd.log.parent, odd.log.parent / "none"):
        # The page follows the job; then the map is there, without a reload.
        wait_drawn(page)
    assert page.get_by_text("has no map yet").count() == 0
