import json

import pytest
from sklearn.metrics import f1_score

from backend.cli import main


@pytest.fixture
def read_once(monkeypatch, small_store):
    """Give the command the small results as another test has read them."""
    monkeypatch.setattr("backend.store.cache.Store", lambda *_, **__: small_store)
    monkeypatch.setattr(small_store, "close", lambda: None)


def score(capsys, *words: str) -> dict:
    assert main(["score", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_score_by_timepoint_equals_scikit_learn(capsys, small):
    report = score(capsys, "--by", "timepoint", "--results", str(small.root))
    panel = report["panel"]
    assert panel["text"] == f"{len(panel['types'])} of {panel['n_types']} types"
    rows = {row["timepoint"]: row for row in report["scores"]}
    predicted = small.predicted["logreg", "donor", 0]
    for timepoint in ("Healthy", "Diagnosis"):
        keep = (small.cells["timepoint"] == timepoint) & small.cells["cell_type_lineage"].notna()
        label = small.cells["cell_type_lineage"][keep]
        expected = f1_score(label, predicted[keep], labels=panel["types"], average="macro")
        assert rows[timepoint]["macro_f1"] == pytest.approx(expected, abs=1e-12)
        assert rows[timepoint]["n_cells"] == keep.sum()
        assert rows[timepoint]["n_donors"] == small.cells["donor"][keep].nunique()
    assert rows["Diagnosis"]["interval"] == "few donors"
    assert rows["Diagnosis"]["low"] < rows["Diagnosis"]["macro_f1"] < rows["Diagnosis"]["high"]
    assert rows["Relapse"]["macro_f1"] is None
    assert report["missing"] == ["Post-treatment"]
    assert "a random forest" in report["cautions"][0]


def test_score_by_cell_type_equals_scikit_learn(capsys, small):
    report = score(capsys, "--by", "cell_type", "--results", str(small.root))
    keep = small.cells["cell_type_lineage"].notna()
    types = [row["cell_type"] for row in report["scores"]]
    expected = f1_score(
        small.cells["cell_type_lineage"][keep],
        small.predicted["logreg", "donor", 0][keep],
        labels=types,
        average=None,
    )
    assert [row["f1"] for row in report["scores"]] == pytest.approx(expected)


def test_score_by_donor_names_every_donor(capsys, small):
    report = score(capsys, "--by", "donor", "--results", str(small.root))
    assert {row["donor"] for row in report["scores"]} == set(small.cells["donor"])


@pytest.mark.parametrize("by", ["timepoint", "donor"])
def test_another_metric_stands_under_its_own_key(capsys, small, read_once, by):
    words = ("--by", by, "--results", str(small.root))
    report = score(capsys, *words, "--metric", "accuracy")
    usual = score(capsys, *words)
    assert all("macro_f1" not in row and "metric" not in row for row in report["scores"])
    assert len(report["scores"]) == len(usual["scores"])
    assert [row["accuracy"] for row in report["scores"]] != [
        row["macro_f1"] for row in usual["scores"]
    ]
    assert main(["score", *words, "--metric", "accuracy"]) == 0
    text = capsys.readouterr().out
    assert "accuracy" in text
    assert "macro" not in text


def test_the_arguments_choose_the_scope(capsys, results):
    report = score(
        capsys,
        *("--results", str(results.root), "--dataset", "Tiny course", "--protocol", "random"),
        *("--label-level", "fine", "--model", "logreg", "--timepoint", "Relapse", "Diagnosis"),
    )
    assert (report["protocol"], report["label_level"]) == ("random", "fine")
    assert {row["configuration"] for row in report["scores"]} == {"logreg"}
    assert [row["timepoint"] for row in report["scores"]] == ["Diagnosis", "Relapse"]
    assert report["dataset"]["simulated"]


@pytest.mark.parametrize("by", ["timepoint", "cell_type", "donor"])
def test_the_printed_table_carries_counts_sources_and_the_footer(capsys, small, read_once, by):
    assert main(["score", "--by", by, "--results", str(small.root)]) == 0
    text = capsys.readouterr().out
    assert "Real (real), lineage labels, protocol donor, budget equal" in text
    assert "cells" in text
    assert "a random forest" in text
    assert "Labels: Healthy from clustering;" in text
    assert "donors redrawn, fitted models fixed" in text
    assert "Research use only." in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "nix"], 'No results for the dataset "nix". Found: '),
        (["--protocol", "study"], 'No results with protocol "study"'),
        (["--budget", "full"], 'No results with budget "full" for this choice. Found: equal.'),
        (["--metric", "nix"], 'There is no metric "nix".'),
        (["--metric", "accuracy", "--by", "cell_type"], "Cell types are scored by their F1"),
        (["--model", "nix"], "No results of nix here. Found: logreg"),
    ],
)
def test_what_is_not_there_is_refused(capsys, small, read_once, words, said):
    assert main(["score", "--results", str(small.root), *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_folder_without_results_is_refused(capsys, tmp_path):
    assert main(["score", "--results", str(tmp_path)]) == 2
    assert "There are no results yet." in capsys.readouterr().err
    assert main(["score", "--results", str(tmp_path / "nix")]) == 2
    assert "There is no folder" in capsys.readouterr().err
