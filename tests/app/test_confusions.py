"""Confusions page and selection panel: choices, links, odd labels, and empty or extreme results."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import streamlit as st

from app.components import export, words
from app.components.selection_panel import probability_bars
from app.sections.confusions import charts, flow
from app.state import Source
from backend.config import home
from backend.evaluation.cells.selection import SavedSelection, save_selection
from backend.evaluation.views import confusions, disagreement
from tests.app.conftest import REAL, SIMULATED
from tests.backend.evaluation.test_confusions import STRANGE, write_labelled
from tests.helpers import as_read, open_store

SOURCE = Source("Odd", simulated=True, label_level="fine", protocol="donor", truth="all")


def text_of(app) -> str:
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.text]
    return "\n".join(str(part.value) for part in parts)


def read(app) -> str:
    """What a reader sees: without the marks that keep names from being Markdown."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text_of(app))


def table(app, column: str) -> pd.DataFrame:
    return next(t.value for t in app.dataframe if column in t.value)


@pytest.fixture
def labelled_home(tmp_path, monkeypatch):
    """Return a function that points the dashboard at cells of some labels and predictions."""

    def point(labels, predicted, **options):
        write_labelled(tmp_path / "shown", labels, predicted, **options)
        monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(tmp_path / "shown"))
        monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
        st.cache_data.clear()
        st.cache_resource.clear()

    yield point
    st.cache_data.clear()
    st.cache_resource.clear()


def test_page_names_the_mistakes_and_offers_a_choice(seen):
    app = seen("confusions")
    assert not app.exception
    assert "is wrong on" in text_of(app)
    assert "same lineage family" in text_of(app)
    assert "No cells are chosen." in text_of(app)
    kinds = table(app, "share_of_wrong")
    assert kinds.n_cells.sum() == table(app, "row_share").n_cells.sum()


def test_choice_of_label_and_prediction_opens_the_panel(open_page):
    app = open_page("confusions", show="Logistic regression (L1)")
    pairs = table(app, "row_share")
    pair = pairs[pairs.label != pairs.predicted].iloc[0]
    app.multiselect(key="cell_type").set_value([pair.label])
    app.multiselect(key="predicted").set_value([pair.predicted]).run()
    assert not app.exception
    assert f"**{pair.n_cells} cells** of {pair.n_donors} donors" in text_of(app)
    assert "is wrong on all" in text_of(app)
    assert "No neighbourhood is stored for this dataset." in text_of(app)
    rows = table(app, "cell_id")
    assert set(rows.label) == {pair.label}
    assert set(rows.predicted) == {pair.predicted}
    assert len(rows) == pair.n_cells
    hits = table(app, "hit_rate").set_index("configuration")
    assert hits.hit_rate["logreg"] == 0
    # One cell's probabilities are read only while their part of the panel is open.
    assert not any("probability" in shown.value for shown in app.dataframe)
    app.session_state["selection.one"] = True
    app.run()
    vector = table(app, "probability")
    assert vector.cell_type[0] == pair.predicted
    assert vector.probability.sum() == pytest.approx(1, abs=0.01)


def test_kind_of_error_selects_its_cells(open_page):
    app = open_page("confusions", label_level="fine")
    kinds = table(app, "share_of_wrong").set_index("kind")
    app.multiselect(key="kind").set_value(["malignant ↔ normal"]).run()
    assert f"**{kinds.n_cells['malignant ↔ normal']:,} cells**" in text_of(app)


def test_two_models_and_where_they_disagree(open_page):
    app = open_page("confusions", show="Logistic regression (L1)", beside="Majority class")
    assert not app.exception
    assert "Where the two models disagree" in text_of(app)
    found = table(app, "agreement")
    only = found[found.agreement == "only the first right"]
    app.selectbox(key="models_are").set_value("only the first right").run()
    assert not app.exception
    assert f"**{only.n_cells.sum():,} cells**" in text_of(app)
    assert "is right on all" in text_of(app)


def test_cells_of_the_second_model_can_be_chosen(open_page):
    app = open_page("confusions", show="Logistic regression (L1)", beside="Majority class")
    app.selectbox(key="of").set_value("majority")
    of_second = [t.value for t in app.dataframe if "column_share" in t.value][1]
    app.multiselect(key="predicted").set_value([of_second.predicted[0]])
    app.multiselect(key="kind").set_value(["correct"]).run()
    assert not app.exception
    assert "**Majority class** is right on all" in text_of(app)


def test_cells_are_saved_under_a_name_in_the_address(open_page):
    app = open_page("confusions")
    app.multiselect(key="kind").set_value(["same lineage family"]).run()
    app.text_input(key="selection.name").set_value("*Near* misses <b>").run()
    app.button(key="selection.save").click().run()
    assert not app.exception
    saved = app.query_params["sel"]
    saved = saved[0] if isinstance(saved, list) else saved
    kept = json.loads((home() / "selections" / "local" / f"{saved}.json").read_text())
    assert kept["name"] == "*Near* misses <b>"
    assert kept["predicate"] == {"error_kind": ["same lineage family"]}
    n = next(line for line in text_of(app).splitlines() if line.startswith("**"))
    other = open_page("confusions", sel=saved)
    assert not other.exception
    assert n in text_of(other)
    assert r"Selected cells: \*Near\* misses \<b\>" in text_of(other)
    other.button(key="selection.close").click().run()
    assert "No cells are chosen." in text_of(other)


@pytest.mark.parametrize("asked", ["0" * 16, "../../etc/passwd", "<b>", "é" * 300])
def test_selection_that_is_gone_says_so(open_page, asked):
    app = open_page("confusions", sel=asked)
    assert not app.exception
    assert not app.error
    assert "it is gone, or it was never saved here" in read(app)
    assert "No cells are chosen." in text_of(app)


def test_selection_of_another_dataset_offers_to_show_it(open_page):
    app = open_page("confusions", dataset=SIMULATED)
    dataset_id = app.session_state["faultline.scope"].dataset_id
    kept = SavedSelection(
        kind="predicate", predicate={"label": ["T"]}, scope={"dataset_id": dataset_id}, name="Mine"
    )
    saved = save_selection(home(), "local", kept)
    app = open_page("confusions", dataset=REAL, sel=saved)
    assert "The selection of this link, Mine, is of another dataset." in text_of(app)
    app.button(key="selection.dataset").click().run()
    assert not app.exception
    assert app.session_state["faultline.scope"].dataset_id == dataset_id
    assert "Selected cells: Mine" in text_of(app)


def test_selection_whose_model_is_gone_says_so(open_page):
    app = open_page("confusions")
    dataset_id = app.session_state["faultline.scope"].dataset_id
    kept = SavedSelection(
        kind="predicate",
        predicate={"predicted": ["T"]},
        scope={"dataset_id": dataset_id, "configuration": "gone"},
    )
    app = open_page("confusions", sel=save_selection(home(), "local", kept))
    assert not app.exception
    assert 'No series "gone"' in as_read(app.error[0].value)


def test_empty_selection_is_a_sentence(open_page):
    app = open_page("confusions", show="Majority class")
    wrong = table(app, "row_share").predicted[0]
    other = next(t for t in ("T", "B", "Mono") if t != wrong)
    app.multiselect(key="cell_type").set_value([other])
    app.multiselect(key="kind").set_value(["correct"]).run()
    assert not app.exception
    assert "No cell is in this selection." in text_of(app)


@pytest.mark.parametrize(
    ("labels", "predicted", "told"),
    [
        (["T"] * 30, ["T"] * 30, "there is no other type to compare with"),
        (["T", "B"] * 15, ["T", "B"] * 15, "calls all 30 labelled cells"),
        (["T", "NK"] * 15, ["NK", "T"] * 15, "is wrong on 30 of 30 labelled cells"),
    ],
    ids=["one type", "all correct", "all wrong"],
)
def test_extreme_results_are_sentences(labelled_home, open_page, labels, predicted, told):
    labelled_home(labels, predicted)
    app = open_page("confusions", cell_type="T")
    assert not app.exception
    assert not app.error
    assert told in text_of(app)
    assert "Selected cells: labelled T" in text_of(app)


def test_strange_labels_are_text_everywhere(labelled_home, open_page):
    shifted = [*STRANGE[1:], STRANGE[0]]
    labelled_home(list(STRANGE) * 4, list(STRANGE) * 2 + shifted * 2)
    app = open_page("confusions", beside="none")
    assert not app.exception
    for label in STRANGE:
        app.multiselect(key="cell_type").set_value([label]).run()
        assert not app.exception
        assert set(table(app, "cell_id").label) == {label}
    shown = text_of(app)
    assert "<script>" not in shown.replace(r"\<script\>", "")
    assert "](http" not in shown


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Views of 150 strange and alike types, all in one family-less vocabulary."""
    root = tmp_path_factory.mktemp("odd")
    names = [*STRANGE, *(f"{'x' * 60} type {i}" for i in range(150 - len(STRANGE)))]
    scope = write_labelled(root, names * 2, names + names[1:] + names[:1])
    write_labelled(root, names * 2, names * 2, model="hgb")
    with open_store(root) as store:
        yield (
            confusions(store, scope, "logreg"),
            disagreement(store, scope, "logreg", "hgb"),
        )


@pytest.mark.parametrize(
    ("numbers", "dark"), [("n_cells", False), ("row_share", True), ("column_share", False)]
)
def test_matrix_of_150_types_is_drawn_and_folded(odd, dark, numbers):
    view, _ = odd
    types = charts.ordered_types(view, "lineage")
    chart = charts.matrix(
        view, types=types, numbers=numbers, picked={"label": [STRANGE[0]]}, dark=dark
    )
    spec = chart.to_dict()
    shown, data = charts.folded(view, types)
    assert len(shown) == charts.MOST_TYPES
    behind = charts.meant_by(view, types, shown[-1])
    assert sorted([*shown[:-1], *behind]) == sorted(types)
    assert charts.meant_by(view, types, shown[0]) == [shown[0]]
    assert data.n_cells.sum() == view.n_cells
    assert data.groupby("label").row_share.sum().to_numpy() == pytest.approx(1)
    axis = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert len(axis) == len(set(axis))
    assert export.picture_bytes(chart, SOURCE, "Odd", "png").startswith(b"\x89PNG")


def test_flow_and_agreement_of_150_types_are_drawn(odd):
    view, found = odd
    types = charts.ordered_types(view, "size")
    for mistakes in (False, True):
        chart = flow.flow(view, types=types, mistakes=mistakes, picked={}, dark=False)
        assert b"<svg" in export.picture_bytes(chart, SOURCE, "Odd", "svg")
    said = flow.flow_words(view, types, mistakes=True)
    assert said.startswith("The flow shows ")
    assert said.endswith("of 150 wrong cells.")
    names = dict(zip(charts.AGREEMENT_COLOURS, ["both", *"abcd"], strict=True))
    chart = charts.agreement_grid(
        found, names=names, order=types, picked={"agreement": ["both right"]}, dark=True
    )
    assert export.picture_bytes(chart, SOURCE, "Odd", "png").startswith(b"\x89PNG")


def test_ribbons_are_as_wide_as_their_cells_on_both_sides(odd):
    view, _ = odd
    types = charts.ordered_types(view, "size")
    data = flow.flow(view, types=types, mistakes=False, picked={}, dark=False)
    ribbons = data.layer[0].data
    wide = (ribbons.y2 - ribbons.y).groupby(ribbons.pair)
    assert (wide.max() - wide.min()).max() < 1e-9
    share = ribbons.drop_duplicates("pair").set_index("pair").n_cells
    assert np.corrcoef(wide.first(), share.loc[wide.first().index])[0, 1] > 0.999


def test_text_on_a_coloured_cell_stands_out():
    assert charts._inks(["#000000", "#FFFFFF"], np.ones(2), dark=False) == [
        "white",
        "black",
    ]
    assert charts._inks(["#D55E00"] * 2, np.array([0.1, 1.0]), dark=True)[0] == "white"


def test_names_on_axes_are_short_and_never_alike():
    texts = words.unique_texts(["a" * 40, "a" * 50, "b\nb", "a" * 40])
    assert len(set(texts)) == 4
    assert max(map(len, texts)) <= 32
    assert texts[2] == "b b"


def test_probabilities_name_label_and_prediction():
    vector = pd.DataFrame({"cell_type": ["B", "T", "NK"], "probability": [0.7, 0.299, 0.001]})
    chart = probability_bars(vector, label="T", predicted="B", dark=False)
    assert chart.data.what.tolist() == ["prediction", "label", "other type"]
    assert chart.data.text.tolist() == ["0.70", "0.30", "<0.01"]


def test_file_of_cells_runs_no_formula_and_says_simulated():
    frame = pd.DataFrame(
        {"cell_id": ["=1+1", "@sum", "-2", "+3", "\tx", "plain", None], "n": range(-3, 4)}
    )
    content = export.csv_bytes(frame, Source("=cmd", simulated=True, label_level="fine",
                                             protocol="donor", truth="all"))  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [row["cell_id"] for row in rows] == ["'=1+1", "'@sum", "'-2", "'+3", "'\tx", "plain", ""]
    assert [row["n"] for row in rows] == ["-3", "-2", "-1", "0", "1", "2", "3"]
    assert {row["dataset"] for row in rows} == {"'=cmd"}
    assert {row["data"] for row in rows} == {"SIMULATED"}


@pytest.mark.parametrize("key", ["overview", "timepoints", "cell_types", "donors"])
def test_pages_lead_to_the_cells(seen, key):
    app = seen(key)
    labels = {link.label for link in app.get("page_link")}
    assert {"See which cells fail", "See what they are mistaken for"} <= labels
