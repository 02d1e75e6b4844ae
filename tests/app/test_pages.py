"""Every page opens with its title, sentences, tables and footer, whatever the URL says."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from altair.vegalite.v6.schema import Root

from app import cache, nav
from app.components.export import FOOTER
from app.components.frames import outcome_sentence
from backend.errors import InputError
from tests.app.conftest import REAL, SIMULATED

SCORED = [page.key for page in nav.PAGES if page.needs_results]


def words(app) -> str:
    """All texts of the page that a reader sees outside tables."""
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.title]
    # Words from files are escaped, so that they are read as text.
    return "\n".join(str(part.value).replace("\\", "").replace("\u2060", "") for part in parts)


@pytest.mark.parametrize("key", SCORED)
def test_page_opens_with_all_that_a_reader_needs(seen, key):
    app = seen(key)
    text = words(app)
    page = next(page for page in nav.PAGES if page.key == key)
    assert not app.exception
    assert not app.error
    assert [title.value for title in app.title] == [page.title]
    assert page.question in text
    # The data are said in plain words first.
    assert "equal training size" in text
    filters = {one.key for one in [*app.segmented_control, *app.selectbox]}
    assert ("label_level" in filters) == (page.key != "blasts")
    assert ("protocol" in filters) == (page.key != "protocols")
    assert ("metric" in filters) == page.has_metric
    assert ("tested on new patients" in text) == (page.key != "protocols")
    assert FOOTER in text
    # Real data come first, bear no mark of simulated ones, and name their label source.
    assert REAL in text
    assert "imulated" not in text
    assert "classifier calls from the same expression" in text
    assert "donors" in text
    assert "cells" in text
    # Every table has rows and a file, every chart two pictures.
    assert app.dataframe
    assert all(len(table.value) for table in app.dataframe)
    charts = app.get("vega_lite_chart")
    assert charts or key == "failure_map"
    for chart in charts:
        Root.validate(json.loads(chart.proto.spec))
    buttons = [button.label for button in app.get("download_button")]
    assert buttons.count("CSV") == len(app.dataframe)
    assert buttons.count("PNG") == buttons.count("SVG") >= 1


def test_methods_page_has_definitions_and_versions(open_page):
    app = open_page("methods")
    assert not app.exception
    assert FOOTER in words(app)
    assert "streamlit" in set(app.dataframe[-1].value["Package"])


@pytest.mark.parametrize("key", ["overview", "cell_types", "failure_map"])
def test_page_survives_parameters_that_name_nothing(open_page, key):
    app = open_page(
        key,
        dataset="no such dataset",
        label_level="<script>",
        protocol="study",
        model=["nonsense", "Gradient boosting"],
        timepoint="Relapse",
        truth="1' or 1=1",
        show="nobody",
        colour="rainbow",
        cell_type="unicorn",
        by="moon",
    )
    assert not app.exception
    assert not app.error
    assert [title.value for title in app.title]


@pytest.mark.parametrize("key", SCORED)
def test_page_marks_simulated_data_and_explains_an_empty_scope(open_page, key):
    app = open_page(key, dataset=SIMULATED)
    assert not app.exception
    assert "Simulated data, not a finding" in words(app)
    app.selectbox(key="truth").set_value("mutant")
    app.multiselect(key="timepoint").set_value(["Healthy"])
    app.run()
    assert not app.exception
    assert app.info or app.error or app.dataframe
    if not app.dataframe:
        assert "Choose" in words(app) or "Widen" in words(app) or "no gap" in words(app)


@pytest.mark.parametrize("key", ["overview", "methods"])
def test_page_without_results_says_what_to_do(empty_home, open_page, key):
    app = open_page(key)
    assert not app.exception
    assert "no results yet" in words(app) or key == "methods"
    assert FOOTER in words(app)


def test_refusal_is_shown_as_message_and_hint(open_page, monkeypatch):
    def refuse(*_, **__):
        msg = 'No dataset "x".'
        raise InputError(msg, "Choose a dataset from the list.")

    monkeypatch.setattr(cache, "scores_by_timepoint", refuse)
    app = open_page("timepoints")
    assert not app.exception
    assert 'No dataset "x".' in words(app)
    assert "Choose a dataset from the list." in words(app)
    assert FOOTER in words(app)


def test_url_sets_the_filters(open_page):
    app = open_page(
        "overview",
        dataset=SIMULATED,
        label_level="fine",
        protocol="random",
        timepoint=["Relapse", "Healthy"],
    )
    scope = app.session_state["faultline.scope"]
    assert (scope.label_level, scope.protocol) == ("fine", "random")
    assert scope.timepoints == ("Healthy", "Relapse")


def test_overview_names_each_series_once(seen):
    text = words(seen("overview"))
    for name in ("Gradient boosting", "Majority class"):
        assert text.count(f"**{name}**:") == 1
    assert "4 of 5 folds" in text
    assert "no headline number" in text


def test_overview_names_what_is_not_labelled(seen):
    text = words(seen("overview"))
    assert "Pre-B" in text
    assert "No score can be given for them." in text


def test_timepoints_names_missing_ones(seen):
    text = words(seen("timepoints"))
    assert "No data in this dataset: Post-treatment, Relapse." in text


def test_models_are_compared_by_donor_only_while_that_is_open(seen, open_page):
    def columns(app):
        return [set(table.value) for table in app.dataframe]

    app = seen("timepoints")
    assert not app.exception
    assert sum("difference" in found for found in columns(app)) == 1
    linked = open_page("timepoints", against="Logistic regression (L1)")
    assert not linked.exception
    assert sum("difference" in found for found in columns(linked)) == 2


def test_cell_types_switch_to_timepoints(open_page):
    app = open_page("cell_types", by="timepoint")
    app.segmented_control(key="by").set_value("timepoint").run()
    assert not app.exception
    assert set(app.dataframe[0].value["column"]) <= {"Healthy", "Diagnosis"}


def test_failure_map_colours(open_page):
    app = open_page("failure_map")
    for colour in ("label", "predicted", "confidence", "models that fail", "donor", "timepoint"):
        app.selectbox(key="colour").set_value(colour).run()
        assert not app.exception


@pytest.mark.parametrize("facet", ["timepoint", "model"])
def test_failure_map_facets_and_narrows_to_a_type(open_page, facet):
    app = open_page("failure_map")
    app.selectbox(key="facet").set_value(facet)
    app.multiselect(key="cell_type").set_value(["HSC"])
    app.run()
    assert not app.exception
    assert set(app.dataframe[1].value["label"]) == {"HSC"}


def test_failure_table_starts_with_the_most_confident(seen):
    table = seen("failure_map").dataframe[1].value
    assert table["confidence"].is_monotonic_decreasing
    assert (table["label"] != table["predicted"]).all()


def test_incomplete_model_has_no_donor_scores_but_says_why(open_page):
    app = open_page("donors")
    app.selectbox(key="show").set_value("hgb").run()
    assert not app.exception
    assert "4 of 5 folds" in words(app)


def test_protocols_measure_the_gap(seen):
    app = seen("protocols")
    assert {"random", "donor", "gap"} <= set(app.dataframe[0].value.columns)
    assert "one study" in words(app).lower()


@pytest.mark.parametrize("key", [page.key for page in nav.PAGES if page.has_metric])
def test_address_chooses_the_metric_of_a_page(open_page, key):
    app = open_page(key, metric="Accuracy", protocol="random")
    assert not app.exception
    assert not app.error
    assert app.session_state["metric"] == "accuracy"
    assert "ccuracy" in words(app)
    named = [set(table.value["metric"]) for table in app.dataframe if "metric" in table.value]
    assert named
    assert all(found == {"accuracy"} for found in named)


def test_a_metric_that_there_is_not_is_the_default(open_page):
    app = open_page("overview", metric="F2")
    assert not app.exception
    assert app.session_state["metric"] == "macro_f1"
    assert "Macro-F1 over " in words(app)


def test_types_are_scored_by_f1_whatever_the_metric(open_page):
    app = open_page("cell_types", metric="Accuracy")
    assert "metric" not in [box.key for box in app.selectbox]
    assert {"f1"} <= set(app.dataframe[0].value.columns)
    assert "Accuracy" not in words(app)


def test_cells_without_labels_are_named_and_not_called_failures():
    counts = pd.DataFrame({"outcome": ["correct", "not scored"], "n_cells": [0, 7]})
    assert outcome_sentence(counts, "scGPT", 0.8) == (
        "**scGPT** names 7 cells without a label: none is scored."
    )
