"""Genes: the page says what the command says, of the cells that were chosen, or what is missing."""

from __future__ import annotations

import json
import shutil

import pytest
import streamlit as st

from backend.cli import main
from tests.app.test_pages import words
from tests.helpers import draw_cells, write_results


@pytest.fixture(scope="module")
def course():
    """Cells of so few types that each donor has ten failures of a pair."""
    cells = draw_cells(samples={"Healthy": 3, "Diagnosis": 5}, cells_per_sample=400, seed=3)
    return cells[cells["cell_type_lineage"].isin(["HSC", "GMP", "Mono"])].reset_index(drop=True)


@pytest.fixture
def results(course, tmp_path, monkeypatch):
    found = write_results(tmp_path / "shipped", cells=course, name="Course", protocols=("donor",))
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(tmp_path / "shipped"))
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    st.cache_data.clear()
    st.cache_resource.clear()
    yield found
    st.cache_data.clear()
    st.cache_resource.clear()


def run_of(results, model):
    heads = [json.loads(file.read_bytes()) for file in results.root.glob("runs/*/run.json")]
    return next(
        head["run_id"]
        for head in heads
        if (head["model"], head["label_level"], head["seed"]) == (model, "lineage", 0)
        and head["status"] == "done"
    )


def test_page_and_command_say_the_same(results, open_page, capsys):
    app = open_page("genes", show="Logistic regression (L1)")
    assert not app.exception
    pair = app.selectbox(key="pair").value
    label, predicted = pair.split(" → ")
    command = ["genes", "--run", run_of(results, "logreg"), "--label", label]
    assert main([*command, "--predicted", predicted, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["donors_are_replicates"]
    assert said["sentences"][0] in words(app)
    table = app.dataframe[0].value
    assert table["gene"].tolist() == [row["gene"] for row in said["genes"]]
    for column in ("log2_fold_change", "q_value", "share_failures", "mean_others"):
        assert table[column].tolist() == pytest.approx(
            [row[column] for row in said["genes"]], nan_ok=True
        )
    # The first four genes were drawn higher in every other type.
    assert main([*command, "--predicted", predicted, "--against", "predicted"]) == 0
    assert "they are no reasons" in capsys.readouterr().out


def test_another_choice_is_another_comparison(results, open_page):
    app = open_page("genes", show="Logistic regression (L1)", against="the predicted type")
    assert " true " in words(app)
    adjusted = open_page("genes", show="Logistic regression (L1)", adjust="true")
    assert not adjusted.exception
    assert not adjusted.error


def test_without_counts_the_page_names_the_command(results, open_page, capsys):
    shutil.rmtree(results.root / "datasets" / results.dataset_id / "expression")
    app = open_page("genes")
    assert not app.exception
    assert "not kept here" in words(app)
    assert f"--dataset {results.dataset_id}" in app.code[0].value
    command = ["genes", "--run", run_of(results, "logreg"), "--label", "HSC"]
    assert main([*command, "--predicted", "GMP"]) == 2
    assert "data attach" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words_of_it", "what"),
    [
        (["--run", "0" * 16, "--label", "HSC", "--predicted", "GMP"], "no run"),
        (["--label", "unicorn", "--predicted", "GMP"], "unicorn"),
        (["--label", "HSC", "--predicted", "HSC"], "no failure"),
    ],
)
def test_what_cannot_be_compared_is_refused(results, capsys, words_of_it, what):
    run = [] if "--run" in words_of_it else ["--run", run_of(results, "logreg")]
    assert main(["genes", *run, *words_of_it]) == 2
    assert what in capsys.readouterr().err


def test_a_pair_that_is_not_here_is_said(results, open_page):
    app = open_page("genes", pair="unicorn → HSC")
    assert not app.exception
    assert "This link asked for pair “unicorn → HSC”, which is not here." in words(app)
