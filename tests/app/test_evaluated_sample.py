"""Evaluate after its job: a sample beside the reference, and one without labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from app import cache
from app.sections.evaluate import beside
from backend.config import home as app_home
from backend.jobs.directory import add_log, create_job, job_folder, now, read_status, write_status
from tests.helpers import as_read
from tests.reference import evaluate_sample, fit_reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWNER = "local"


@pytest.fixture(scope="module")
def jobs(home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, str]]:
    """Jobs that evaluated a sample, with its labels (True) and without (False)."""
    folder, models = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("models")
    own = tmp_path_factory.mktemp("own")
    # 65 cells of a donor at a timepoint: its three types have 20 and more.
    fit_reference(folder, models, n_cells=3_120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTLINE_PRECOMPUTED", str(models))
        patch.setenv("FAULTLINE_HOME", str(own))
        yield {
            is_scored: _finished(
                own, evaluate_sample(folder, models, own / "users" / OWNER, is_scored=is_scored)
            )
            for is_scored in (True, False)
        }


def _finished(home: Path, done) -> str:
    job_id = create_job(home, "evaluate", {"action": "evaluate"}, owner=OWNER)
    status = read_status(home, job_id, owner=OWNER)
    add_log(job_folder(home, job_id), "done")
    write_status(
        job_folder(home, job_id), status.with_(state="done", ended_at=now(), result=done.to_json())
    )
    return job_id


def words(app) -> str:
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.title]
    return as_read("\n".join(str(part.value) for part in parts))


def table(app, column: str):
    return next(t.value for t in app.dataframe if column in t.value)


def test_a_sample_with_labels_stands_beside_the_reference(jobs, open_page):
    app = open_page("evaluate", job=jobs[True])
    assert not app.exception
    text = words(app)
    assert "Beside the reference" in text
    assert "held out of the model that scored them" in text
    dots, types = table(app, "place"), table(app, "f1")
    assert set(dots.place) == {"Someone · Diagnosis", "Someone · Post-treatment"}
    for place, rows in dots.groupby("place"):
        assert rows.who.value_counts().to_dict() == {"reference": 24, "sample": 1}
        value = rows.value[rows.who == "sample"].iloc[0]
        (said,) = [line for line in text.splitlines() if line.startswith(f"- {place}: macro-F1")]
        assert f"macro-F1 {value:.2f} (3 types" in said
        assert "of 24" in said
        assert "donors lie between" in said
        assert said.endswith("(Reference).")
    assert set(types.who) == {"sample", "reference"}
    assert (types.n_cells >= 20).all()
    titles = ["Macro-F1 among reference donors", "F1 by cell type, among reference donors"]
    assert all(title in text for title in titles)
    assert len(app.get("vega_lite_chart")) == len(titles)
    assert "Accuracy to expect" not in text
    for once in ("says nothing about others", "labelled cells (", "are expected to lie outside"):
        assert text.count(once) == 1, once


def test_the_results_open_at_the_label_level_that_was_scored(jobs, open_page):
    app = open_page("evaluate", job=jobs[True])
    level = read_status(app_home(), jobs[True], owner=OWNER).result["label_level"]
    app.button(key="evaluate.open").click().run()
    assert not app.exception
    assert app.title[0].value == "Overview"
    assert app.query_params["label_level"] == level


def test_protocols_say_that_an_upload_was_tested_in_one_way(jobs, open_page):
    dataset = read_status(app_home(), jobs[True], owner=OWNER).result["dataset_id"]
    app = open_page("protocols", dataset=dataset)
    assert not app.exception
    assert "Your file was tested in one way" in words(app)
    assert "not measurable" not in words(app)


def test_a_simulated_sample_is_called_so_before_its_scores(jobs, open_page, monkeypatch):
    said = "This sample is simulated"
    assert said not in words(open_page("evaluate", job=jobs[True]))
    given = cache.scope_choices
    monkeypatch.setattr(cache, "scope_choices", lambda owner: given(owner).assign(simulated=True))
    app = open_page("evaluate", job=jobs[True])
    assert not app.exception
    assert said in words(app)


def test_a_sample_without_labels_has_a_composition_and_an_expected_accuracy(jobs, open_page):
    app = open_page("evaluate", job=jobs[False])
    assert not app.exception
    text = words(app)
    assert "400 cells named. The file has no labels, so nothing is scored." in text
    # Said once, whatever the number of models; the numbers stand in a table.
    assert text.count("no labels, so this is a guess from confidence") == 1
    guess = table(app, "median_error")
    assert guess.n_donors.tolist() == [24] * len(guess)
    assert (guess.largest_error >= guess.median_error).all()
    assert text.count("Cells outside the training data of **each model**") == 1
    errors = table(app, "error")
    assert len(errors) == 24 * len(guess)
    assert guess.largest_error.max() == pytest.approx(errors.error.abs().max())
    by = next(box for box in app.button_group if box.key == "evaluate.outside.by")
    assert by.options == ["Donor", "Predicted type"]
    shares = table(app, "low")
    assert shares.groupby("timepoint").share.sum().tolist() == pytest.approx([1, 1])
    assert set(shares.n_reference_donors) == {24}
    assert (shares.low <= shares.high).all()
    assert "Predicted composition of Someone · Diagnosis" in text
    n = shares.n_cells[shares.timepoint == "Post-treatment"].iloc[0]
    app.selectbox(key="evaluate.composition.donor").set_value("Someone · Post-treatment").run()
    assert not app.exception
    assert f"{n} cells. This model has no malignant types" in words(app)
    assert "Beside the reference" not in words(app)


def test_pages_of_an_upload_without_labels_ask_and_say_nothing_of_labels(jobs, open_page):
    dataset = read_status(app_home(), jobs[False], owner=OWNER).result["dataset_id"]
    for page in ("overview", "donors"):
        app = open_page(page, dataset=dataset)
        assert not app.exception
        text = words(app)
        assert "evaluate the file with a column of cell types" in text
        assert "What the cells are called" in text
        assert "no cell is scored" in text
        assert "labels by lineage" not in text
        assert "all training cells" not in text
        keys = {box.key for box in (*app.selectbox, *app.button_group)}
        assert not keys & {"truth", "label_level", "metric"}
    # The map has something to show of any cell, and names it at either level.
    app = open_page("failure_map", dataset=dataset)
    assert not app.exception
    assert "stands below" not in words(app)
    text = words(app)
    assert "no cell is scored · types by lineage" in text
    assert "failures last" not in text
    assert "0 scored cells" not in text
    assert "truth" not in {box.key for box in app.selectbox}
    assert "cell_type" not in {box.key for box in app.multiselect}
    colour = app.selectbox(key="colour")
    assert colour.value == "predicted"
    assert set(colour.options) == {"predicted", "confidence", "donor", "timepoint"}


def test_pages_of_an_upload_with_labels_keep_their_filters(jobs, open_page):
    dataset = read_status(app_home(), jobs[True], owner=OWNER).result["dataset_id"]
    app = open_page("overview", dataset=dataset)
    assert not app.exception
    assert "no cell is scored" not in words(app)
    assert "truth" in {box.key for box in app.selectbox}
    # One donor: no dot has an interval, so none is explained.
    assert "there is no interval" in words(app)
    assert "95 % intervals" not in words(app)
    # How many cells another dataset's model was trained on is not what the upload's runs say.
    assert "all training cells" not in words(app)


def test_foundation_models_come_first_in_an_answer_as_on_all_pages(monkeypatch):
    models = pd.DataFrame({
        "configuration": ["a", "b", "c"], "is_baseline": [True, False, True],
    })  # fmt: skip
    monkeypatch.setattr(cache, "configurations", lambda scope: models)
    found = [SimpleNamespace(configuration=key, display_name=name)
             for key, name in (("a", "CellTypist"), ("c", "boosting"), ("b", "scGPT"))]  # fmt: skip
    assert [one.display_name for one in beside.in_order(found, None)] == [
        "scGPT", "boosting", "CellTypist",
    ]  # fmt: skip
