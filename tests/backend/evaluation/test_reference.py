"""A sample beside its models' own series, and the accuracy to expect without labels."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from backend.evaluation import views
from backend.evaluation.calibration import calibrated_confidence, fit_temperature
from backend.evaluation.outcomes import threshold_of
from backend.evaluation.views.beside_reference import MALIGNANT, _range, _with_ranges
from backend.store.bundle import list_runs, read_run
from backend.types import Scope
from tests.helpers import open_store
from tests.reference import evaluate_sample, fit_reference


def draw(n, rng, temperature):
    """Draw cells whose labels follow probabilities that are then made too sure."""
    logits = rng.normal(size=(n, 4)) * 1.5
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    said = np.exp(logits * temperature)
    return (said / said.sum(axis=1, keepdims=True)).astype(np.float16).astype(np.float32), label


def test_the_temperature_that_made_a_model_too_sure_is_found():
    proba, label = draw(20_000, np.random.default_rng(0), 2.5)
    found = fit_temperature(proba, label, np.ones(len(label)))
    assert found == pytest.approx(2.5, rel=0.05)
    right = (proba.argmax(axis=1) == label).mean()
    assert proba.max(axis=1).mean() > right + 0.1
    assert calibrated_confidence(proba, found).mean() == pytest.approx(right, abs=0.01)


def test_no_weight_no_say():
    proba, label = draw(4_000, np.random.default_rng(1), 1.0)
    twice = np.concatenate([proba, proba]), np.concatenate([label, (label + 1) % 4])
    weight = np.repeat([1.0, 0.0], len(label))
    found = fit_temperature(*twice, weight)
    assert found == pytest.approx(fit_temperature(proba, label, np.ones(len(label))), rel=1e-3)


def test_the_range_leaves_out_a_tenth_at_either_end():
    values = np.array([0.2, 0.44, *np.linspace(0.5, 0.7, 9), 0.78, 0.95])
    assert _range(values, "Diagnosis") == "11 of 13 Diagnosis donors lie between 0.44 and 0.78"
    assert _range(values[:3], "Healthy") == "3 of 3 Healthy donors lie between 0.20 and 0.50"
    assert _range(values[:1], "Healthy") == "the one Healthy donor has 0.20"
    assert _range(values[:0], "Relapse") == "no Relapse donor has half of these types"


def test_a_type_that_a_reference_donor_lacks_counts_as_none():
    own = pd.DataFrame(
        [("P", "Relapse", "T", 10, 0.6), ("P", "Relapse", "HSC-like", 10, 0.4),
         ("P", "Relapse", MALIGNANT, 10, 0.4)],
        columns=["donor", "timepoint", "cell_type", "n_cells", "share"],
    )  # fmt: skip
    theirs = pd.DataFrame(
        [("A", "Relapse", "T", 5, 1.0), ("B", "Relapse", "T", 5, 0.2), ("B", "Relapse", "B", 5, 0.8),
         ("C", "Healthy", "B", 5, 1.0)],
        columns=own.columns,
    )  # fmt: skip
    shares, has_malignant = _with_ranges(own, theirs)
    assert has_malignant
    rows = shares.set_index("cell_type")
    assert set(rows["reference"]) == {"Relapse"}
    assert rows.loc["T", ["share", "low", "high"]].tolist() == [0.6, 0.2, 1.0]
    assert rows.loc["B", ["share", "low", "high"]].tolist() == [0.0, 0.0, 0.8]
    assert rows.loc["HSC-like", ["low", "high"]].tolist() == [0.0, 0.0]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    fit_reference(tmp_path_factory.mktemp("reference"), home)
    return home


@pytest.fixture(scope="module")
def uploaded(home, tmp_path_factory):
    """Evaluate new cells with and without labels beside the home of the model."""
    folder = tmp_path_factory.mktemp("sample")
    done = [evaluate_sample(folder, home, home, is_scored=scored) for scored in (True, False)]
    with open_store(home) as store:
        yield (
            store,
            *(
                Scope(
                    dataset_id=one.dataset_id,
                    label_level=one.label_level,
                    protocol="external",
                    budget="full",
                )
                for one in done
            ),
        )


def folds_of(home):
    for folder in list_runs(home):
        record = read_run(folder)
        if record.protocol == "donor" and record.fold != "final":
            rows = pd.read_parquet(folder / "predictions.parquet")
            yield record, rows


def test_the_expected_accuracy_is_judged_on_donors_that_neither_model_nor_temperature_saw(
    uploaded, home
):
    store, _, unlabelled = uploaded
    (found,) = views.expected_accuracy(store, unlabelled)
    (run,) = {record.dataset_id for record, _ in folds_of(home)}
    cells = pd.read_parquet(home / "datasets" / run / "cells.parquet")
    donor_of = cells.set_index("cell_id")["donor"]
    assert found.reason == ""
    assert 0 < found.value < 1
    right = {}
    for _, rows in folds_of(home):
        test = rows[(rows["role"] == "test") & rows["label"].notna()]
        hits = (test["label"] == test["predicted"]).groupby(test["cell_id"].map(donor_of)).mean()
        right |= hits.to_dict()
    errors = found.errors.set_index("donor")
    assert set(errors.index) == set(right)
    for donor, row in errors.iterrows():
        assert row["accuracy"] == pytest.approx(right[donor])
        assert row["error"] == pytest.approx(row["expected"] - row["accuracy"])
    worst = found.errors["error"].abs().max()
    assert f"{worst:.2f} at most" in found.sentence()
    (row,) = views.expected_table([found, replace(found, reason="no folds")]).itertuples()
    assert (row.expected, row.n_cells, row.n_donors) == (found.value, found.n_cells, len(right))
    assert row.largest_error == pytest.approx(worst)
    assert row.median_error == pytest.approx(found.errors["error"].abs().median())
    assert "Accuracy to expect" in found.sentence()


def test_a_sample_stands_among_the_donors_of_its_models_series(uploaded):
    store, scope, _ = uploaded
    (found,) = views.beside_reference(store, scope)
    assert found.reason == ""
    mine = found.dots[found.dots["who"] == "sample"]
    assert len(mine) == len(found.sentences) >= 1
    assert json.dumps(found.sentences).count("macro-F1") == len(mine)
    # The reference is small, and that is said.
    assert set(found.dots["who"]) == {"sample"}
    assert all("no donor of it has a type with 20 labelled cells" in s for s in found.sentences)
    of_types = found.types[found.types["who"] == "sample"]
    for row in mine.itertuples():
        own = of_types[(of_types["donor"] == row.donor) & (of_types["timepoint"] == row.timepoint)]
        assert row.value == pytest.approx(own["f1"].mean())
        assert (own["n_cells"] >= 20).all()


def test_shares_of_calls_sum_to_one_without_any_label(uploaded):
    store, _, unlabelled = uploaded
    (found,) = views.compositions(store, unlabelled)
    sums = (
        found.shares[found.shares["cell_type"] != MALIGNANT]
        .groupby(["donor", "timepoint", "reference"], dropna=False)["share"]
        .sum()
    )
    assert sums.to_numpy() == pytest.approx(1.0)


def test_an_upload_is_confidently_wrong_from_the_threshold_of_its_models_series(uploaded, home):
    store, scope, _ = uploaded
    (series_id,) = store.query("runs", owner="local", dataset_id=scope.dataset_id)["series_id"]
    valid = pd.concat([rows[rows["role"] == "valid"] for _, rows in folds_of(home)])
    confidence = valid.loc[valid["label"] == valid["predicted"], "confidence"]
    found = threshold_of(store, scope, series_id)
    assert len(confidence)
    assert found == pytest.approx(confidence.median())
