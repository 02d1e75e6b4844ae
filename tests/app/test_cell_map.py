"""The Python side of the cell map: what is sent when, colours, panels, pictures, the bundle."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.components import jobs
from app.components.cell_map import component, picture, selected_cells
from app.components.cell_map.legend import (
    VIRIDIS,
    colours_of,
    facets_by_timepoint,
    header_of,
    one_facet,
)
from app.components.export import FOOTER
from backend.evaluation.cells.colours import colour_column, colour_of_values
from backend.evaluation.cells.columns import Role
from backend.evaluation.cells.coordinates import quantise
from backend.evaluation.cells.hit_test import read_event
from backend.evaluation.cells.map_cells import MapCells
from backend.jobs.directory import create_job
from backend.jobs.handlers import KINDS
from tests.cells import decoded

if TYPE_CHECKING:
    from pathlib import Path

FRONTEND = component.BUNDLE.parent
TYPES = ("HSC", "Mono", '<script>alert("$x$")</script>' + "y" * 190)


def made(n: int = 240, *, types: tuple[str, ...] = TYPES, wrong: float = 0.3) -> MapCells:
    rng = np.random.default_rng(0)
    k = len(types)
    label = rng.integers(-1, k, n).astype(np.int32)
    predicted = np.where(rng.random(n) < wrong, (label + 1) % k, np.maximum(label, 0))
    outcome = np.where(label < 0, 3, np.where(label == predicted, 0, 1 + (rng.random(n) < 0.5)))
    return MapCells(
        "d", "logreg", "Logistic regression", "s", 0.8,
        quantise(rng.normal(size=n), rng.normal(size=n)),
        {
            "label": Role(label, types),
            "predicted": Role(predicted.astype(np.int32), types),
            "donor": Role(rng.integers(0, 3, n).astype(np.int32), ("A", "B", "C")),
            "timepoint": Role(rng.integers(-1, 2, n).astype(np.int32), ("Healthy", "Relapse")),
            "label_source": Role(np.zeros(n, np.int32), ("clustering",)),
            "genotype": Role(np.zeros(n, np.int32), ("none",)),
        },
        rng.random(n).astype(np.float32), outcome.astype(np.uint8),
    )  # fmt: skip


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Stand in for the component and for the session; give the messages that were sent."""
    messages: list[bytes] = []
    state: dict = {}
    monkeypatch.setattr(component, "_map", lambda **options: messages.append(options["data"]))
    monkeypatch.setattr(component.st, "session_state", state)
    return messages


def send(cells: MapCells, *, key: str = "map", by: int = 0) -> None:
    column = np.full(len(cells), by, np.uint8)
    columns = component.Columns(column, column, column, column)
    component.mount(key, cells.coordinates, columns, {"title": "x"})


def test_coordinates_are_sent_once(browser):
    cells = made()
    send(cells)
    send(cells)
    send(cells, by=1)
    send(cells, key="other map")
    sizes = [len(message) for message in browser]
    # What did not change is sent as it was, so that its hash is the same.
    assert browser[0] == browser[1]
    assert "x" in decoded(browser[0])[1]
    assert "x" not in decoded(browser[2])[1]
    assert "x" not in decoded(browser[3])[1]
    assert sizes[0] - sizes[2] > 3.9 * len(cells)
    tokens = {decoded(message)[0]["coordinates"] for message in browser}
    assert tokens == {cells.coordinates.token}


def test_coordinates_are_sent_again_when_the_browser_asks(browser):
    cells = made()
    send(cells)
    send(cells, by=1)
    component.send_again("map", cells.coordinates)
    send(cells, by=1)
    assert "x" in decoded(browser[2])[1]
    assert decoded(browser[2])[0]["version"] == decoded(browser[1])[0]["version"]


def test_the_browser_keeps_three_maps(browser):
    maps = [made(n) for n in (50, 60, 70, 80)]
    for cells in maps:
        send(cells)
    send(maps[0], by=1)
    assert "x" in decoded(browser[-1])[1]
    send(maps[3], by=1)
    assert "x" not in decoded(browser[-1])[1]


def test_versions_follow_the_content(browser):
    cells = made()
    send(cells)
    send(cells, by=1)
    send(cells)
    versions = [decoded(message)[0]["version"] for message in browser]
    assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize(
    "by", ["outcome", "label", "predicted", "donor", "timepoint", "confidence"]
)
def test_header_has_a_colour_and_a_count_for_each_name(by):
    cells = made()
    in_scope = np.arange(len(cells)) % 2 == 0
    column = colour_column(cells, by, in_scope)
    facets = facets_by_timepoint(cells, in_scope)
    options = {"title": "", "link": "", "has_picture": False}
    header = header_of(cells, column, in_scope, facets, **options)
    assert json.loads(json.dumps(header)) == header
    if by == "confidence":
        assert header["colours"] == list(VIRIDIS)
    else:
        assert len(header["colours"]) == len(header["categories"]) == len(header["counts"])
        assert all(len(colour) == 7 and colour[0] == "#" for colour in header["colours"])
    assert sum(header["counts"]) == in_scope.sum() == header["n_in_scope"]
    assert f"{in_scope.sum():,} cells" in header["label"]
    assert "failures are drawn last" in header["label"]


def test_a_type_has_the_same_colour_as_label_and_as_prediction():
    cells, everything = made(), np.ones(240, bool)
    label, predicted = (colour_column(cells, by, everything) for by in ("label", "predicted"))
    of_label = dict(zip(label.names, colours_of(label), strict=True))
    of_predicted = dict(zip(predicted.names, colours_of(predicted), strict=True))
    assert {name: of_label[name] for name in of_predicted} == of_predicted


def test_numbers_of_failing_models_go_from_dark_to_light():
    counts = np.arange(240, dtype=np.int16) % 4
    column = colour_column(made(), "n_wrong", np.ones(240, bool), (counts, 3))
    assert column.names[0] == "0 of 3 models wrong"
    colours = colours_of(column)
    assert (colours[0], colours[-1]) == (VIRIDIS[0], VIRIDIS[-1])
    assert len(set(colours)) == 4


def test_panels_by_timepoint_hold_each_cell_once():
    cells = made()
    in_scope = np.arange(240) < 200
    facets = facets_by_timepoint(cells, in_scope)
    assert facets.names == ("Healthy", "Relapse")
    codes = cells.roles["timepoint"].codes
    assert (facets.codes == 255).tolist() == (codes < 0).tolist()
    assert facets.counts == tuple(int(((codes == k) & in_scope).sum()) for k in (0, 1))
    alone = facets_by_timepoint(cells, in_scope & (codes == 1))
    assert alone.names == ("Relapse",)


def test_a_selection_is_kept_small_and_belongs_to_its_dataset(monkeypatch):
    state: dict = {}
    monkeypatch.setattr(selected_cells.st, "session_state", state)
    cells, everything = made(), np.ones(240, bool)
    column, facets = colour_column(cells, "label", everything), one_facet(240)

    def area(mode: str, low: float, high: float) -> np.ndarray:
        corners = [[low, -9], [high, -9], [high, 9], [low, 9]]
        event = read_event(
            {"kind": "box", "mode": mode, "polygon": corners, "nonce": mode}, n_cells=240
        )
        selected_cells.change_by(event, cells, everything, column, facets)
        now = selected_cells.current(cells)
        return np.zeros(240, bool) if now is None else now.mask

    x = cells.coordinates.x_values()
    assert (area("replace", -9, 0) == (x < 0)).all()
    assert selected_cells.current(cells).polygon is not None
    assert len(selected_cells.current(cells).bits) == 30
    assert (area("add", 0, 0.5) == (x < 0.5)).all()
    # No one area says it any more.
    assert selected_cells.current(cells).polygon is None
    assert (area("remove", -9, -0.5) == ((x >= -0.5) & (x < 0.5))).all()
    assert (area("invert", 0, 0) == ((x < -0.5) | (x >= 0.5))).all()
    assert selected_cells.current(replace(cells, dataset_id="other")) is None
    area("clear", 0, 0)
    assert selected_cells.current(cells) is None


def pictured(suffix: str, *, by: str = "label", facet: bool = False, n: int = 240) -> bytes:
    cells, everything = made(n), np.ones(n, bool)
    facets = facets_by_timepoint(cells, everything) if facet else one_facet(n)
    return picture.picture_bytes(
        [("", cells, colour_column(cells, by, everything))],
        [colour_of_values(cells.confidence)],
        everything,
        facets,
        title="Cells by $label$ & <b>more</b>",
        source="Course (SIMULATED DATA, not a finding)",
        suffix=suffix,
    )


def test_svg_has_text_around_a_raster_of_points():
    text = pictured("svg", facet=True).decode("utf-8")
    for words in (FOOTER, "SIMULATED DATA", "Healthy", "Relapse", "UMAP 1", "HSC (", "$label$"):
        assert words in text, words
    assert "<script" not in text
    assert "<b>" not in text
    assert text.count("data:image/png;base64") == 2
    assert text == pictured("svg", facet=True).decode("utf-8")


@pytest.mark.parametrize("by", ["confidence", "outcome"])
def test_png_is_a_picture(by):
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(io.BytesIO(pictured("png", by=by)), format="png")
    assert min(pixels.shape[:2]) > 600
    assert len(np.unique(pixels[::3, ::3].reshape(-1, pixels.shape[2]), axis=0)) > 30


def test_pdf_is_the_same_each_time():
    first = pictured("pdf", n=1)
    assert first.startswith(b"%PDF")
    assert first == pictured("pdf", n=1)


@pytest.mark.parametrize("wrong", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 240])
def test_density_is_drawn_for_any_cells(n, wrong):
    cells = made(n, wrong=wrong)
    content = picture.density_bytes(cells, np.ones(n, bool), dark=True)
    assert content.startswith(b"\x89PNG")
    assert len(content) > 5_000


def test_bundle_names_no_other_host():
    for name in ("cell_map.js", "cell_answer.js", "cell_map_style.css"):
        text = (component.BUNDLE / name).read_text(encoding="utf-8")
        hosts = set()
        for part in text.split("://")[1:]:
            hosts.add(part.split("/")[0].split('"')[0].split("`")[0])
        # Names of SVG and words in error messages of packages; nothing is asked there.
        assert hosts <= {"www.w3.org", "github.com", "get.webgl.org", "www.npmjs.com"}, name
        assert "fetch(" not in text
        assert "XMLHttpRequest" not in text
    licences = (component.BUNDLE / "LICENSES.txt").read_text(encoding="utf-8")
    for package in json.loads((FRONTEND / "package.json").read_text())["dependencies"]:
        assert f"\n{package} " in f"\n{licences}"


def test_versions_are_pinned():
    wanted = json.loads((FRONTEND / "package.json").read_text())
    for group in ("dependencies", "devDependencies"):
        assert all(version[0].isdigit() for version in wanted[group].values())
    locked = json.loads((FRONTEND / "package-lock.json").read_text())["packages"]
    for group in ("dependencies", "devDependencies"):
        for package, version in wanted[group].items():
            assert locked[f"node_modules/{package}"]["version"] == version
    assert all("integrity" in entry for name, entry in locked.items() if name)


@pytest.mark.slow
def test_bundle_is_what_its_source_gives(tmp_path: Path):
    """Build again from source and compare bytes."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed, and users do not need it")
    for name in ("package.json", "package-lock.json", "build.mjs"):
        shutil.copy(FRONTEND / name, tmp_path)
    shutil.copytree(FRONTEND / "src", tmp_path / "src")
    if (FRONTEND / "node_modules" / "esbuild").is_dir():
        (tmp_path / "node_modules").symlink_to(FRONTEND / "node_modules")
    else:
        got = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=tmp_path, capture_output=True, check=False
        )
        if got.returncode != 0:
            pytest.skip("the packages of the bundle are not here and cannot be fetched")
    done = subprocess.run(
        [node, "--preserve-symlinks", "--preserve-symlinks-main", "build.mjs", "made"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for file in sorted(component.BUNDLE.iterdir()):
        assert (tmp_path / "made" / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_job_that_computes_a_map_has_its_name_in_the_list(
    open_page, empty_home, home, monkeypatch
):
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(home))
    request = {
        "dataset_id": "0" * 16, "label_level": "lineage", "protocol": "donor", "budget": "equal",
        "configuration": "logreg",
    }  # fmt: skip
    create_job(empty_home, "place", request, owner="local")
    app = open_page("runs", runs_view="Jobs")
    assert not app.exception
    shown = "\n".join(str(part.value) for part in app.markdown)
    assert "Compute a map · logreg · donor" in shown


def test_every_kind_of_job_has_a_name():
    assert set(jobs._NAMES) == set(KINDS)
