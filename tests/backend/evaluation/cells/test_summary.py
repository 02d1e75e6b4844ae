"""What a selection is made of, against a count by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backend.errors import FaultlineError, InputError
from backend.evaluation.cells import map_cells
from backend.evaluation.cells.map_cells import load_cells, probability_vector
from backend.evaluation.cells.neighbourhood import sides_of
from backend.evaluation.cells.summary import CellReader
from backend.evaluation.cells.summary import summarise_selection as summary_of
from backend.store.neighbours import add_neighbours
from tests.cells import judged_cells
from tests.helpers import open_store, write_results


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Results with neighbours: store, results and the (n, 4) neighbours."""
    root = tmp_path_factory.mktemp("near")
    models = {"logreg": ("Logistic regression", (0,)), "majority": ("Majority class", (0,))}
    results = write_results(root, models=models, protocols=("donor",), failed=())
    near = np.random.default_rng(0).integers(0, len(results.cells), (len(results.cells), 4))
    near[::7, 2:] = -1
    add_neighbours(root, results.dataset_id, results.cells["cell_id"].to_numpy(), near)
    store = open_store(root)
    yield store, results, near
    store.close()


def summarise_selection(store, scope, cells, configuration):
    return summary_of(CellReader(store), scope, cells, configuration)


def selected_rows(store, scope, cells, configuration, *, limit=None) -> pd.DataFrame:
    known = load_cells(store, scope, configuration)
    return map_cells.selected_rows(store, scope, known, cells, limit=limit)


def rows_of(store, scope, cells, configuration="logreg") -> pd.DataFrame:
    every = judged_cells(store, scope, configuration).set_index("cell_index")
    return every.loc[cells]


CHOSEN = np.arange(0, 2_000, 3)


@pytest.mark.parametrize("level", ["lineage", "fine"])
def test_summary_equals_a_count_by_hand(course, level):
    store, results, _ = course
    scope = results.scope(label_level=level)
    found = summarise_selection(store, scope, CHOSEN, "logreg")
    rows = rows_of(store, scope, CHOSEN)
    assert found.n_cells == len(rows)
    assert found.n_donors == rows.donor.nunique()
    for role in ("timepoint", "donor", "genotype", "label_source"):
        told = found.composition[found.composition.role == role].set_index("value")
        assert told.n_cells.to_dict() == rows[role].value_counts().to_dict()
        assert told.share.sum() == pytest.approx(1)
    labels = found.composition[found.composition.role == "label"].set_index("value").n_cells
    assert labels["not known"] == rows.label.isna().sum()
    everything = judged_cells(store, scope, "logreg")
    told = found.composition.set_index(["role", "value"]).share_of_all
    for donor, share in everything.donor.value_counts(normalize=True).items():
        if ("donor", donor) in told.index:
            assert told["donor", donor] == pytest.approx(share)
    scored = rows.dropna(subset=["label", "predicted"])
    pairs = found.confusion.set_index(["label", "predicted"])
    by_hand = scored.groupby(["label", "predicted"]).agg(
        n_cells=("cell_id", "size"), n_donors=("donor", "nunique"), c=("confidence", "median")
    )
    assert pairs.n_cells.to_dict() == by_hand.n_cells.to_dict()
    assert pairs.n_donors.to_dict() == by_hand.n_donors.to_dict()
    assert pairs.confidence.to_dict() == pytest.approx(by_hand.c.to_dict())
    hits = found.hits.set_index("configuration")
    right = scored.label == scored.predicted
    assert hits.n_right["logreg"] == right.sum()
    assert hits.n_cells["logreg"] == len(scored)
    assert hits.hit_rate["logreg"] == pytest.approx(right.mean())
    assert hits.confidence_wrong["logreg"] == pytest.approx(scored.confidence[~right].median())


def test_quality_has_quartiles_of_selection_and_scope(course):
    store, results, _ = course
    found = summarise_selection(store, results.scope(), CHOSEN, "logreg")
    quality = found.quality.set_index(["measure", "cells"])
    for measure, column in (("Counts a cell", "n_counts"), ("Genes a cell", "n_genes")):
        for words, cells in (
            ("selected", results.cells.iloc[CHOSEN]),
            ("all in scope", results.cells),
        ):
            expected = cells[column].astype(float).quantile([0.25, 0.5, 0.75]).tolist()
            told = quality.loc[measure, words]
            assert told[["low", "median", "high"]].astype(float).tolist() == pytest.approx(expected)
            assert told.n_cells == len(cells)


def test_every_model_of_the_scope_is_told(course):
    store, results, _ = course
    found = summarise_selection(store, results.scope(), CHOSEN, "majority")
    assert found.hits.configuration.tolist() == ["logreg", "majority"]
    narrowed = results.scope(configurations=("majority",))
    found = summarise_selection(store, narrowed, CHOSEN, "majority")
    assert found.hits.configuration.tolist() == ["majority"]


def test_neighbours_are_counted_by_hand(course):
    store, results, near = course
    scope = results.scope()
    found = summarise_selection(store, scope, CHOSEN, "logreg").neighbourhood
    rows = rows_of(store, scope, np.arange(len(results.cells)))
    label, predicted = rows.label.to_numpy(object), rows.predicted.to_numpy(object)
    votes = []
    for cell in CHOSEN:
        around = [label[j] for j in near[cell] if j >= 0 and isinstance(label[j], str)]
        if around and isinstance(label[cell], str) and label[cell] != predicted[cell]:
            votes.append(
                (
                    label[cell],
                    predicted[cell],
                    np.mean([name == label[cell] for name in around]),
                    np.mean([name == predicted[cell] for name in around]),
                )
            )
    by_hand = pd.DataFrame(votes, columns=["label", "predicted", "own", "other"])
    assert found.k == 4
    told = found.pairs.set_index(["label", "predicted"]).sort_index()
    grouped = by_hand.groupby(["label", "predicted"])
    assert told.n_cells.to_dict() == grouped.size().to_dict()
    assert told.label_share.to_dict() == pytest.approx(grouped.own.mean().to_dict())
    assert told.predicted_share.to_dict() == pytest.approx(grouped.other.mean().to_dict())
    assert told.n_prediction_leads.sum() == (by_hand.other > by_hand.own).sum()
    assert told.n_label_leads.sum() == (by_hand.own > by_hand.other).sum()
    assert f"the {len(by_hand):,} cells that are called wrongly" in found.sentences[1]


def test_sides_of_cells_without_label_or_neighbours():
    near = np.array([[1, 2], [-1, -1], [0, 3], [3, 3]])
    labels = np.array([1, 1, 0, 2])
    predicted = np.array([2, 1, 1, 0])
    sides = sides_of(near, labels, predicted)
    np.testing.assert_array_equal(sides.n_labelled, [1, 0, 2, 2])
    np.testing.assert_array_equal(sides.label, [1, np.nan, np.nan, 1])
    np.testing.assert_array_equal(sides.predicted, [0, np.nan, 0.5, np.nan])


def test_dataset_without_neighbours_has_no_neighbourhood(store, results):
    assert summarise_selection(store, results.scope(), CHOSEN, "logreg").neighbourhood is None


@pytest.mark.parametrize(
    ("choose", "words"),
    [
        (lambda c: c.label == c.predicted, "is right on all"),
        (lambda c: c.label.notna() & (c.label != c.predicted), "is wrong on all"),
        (lambda c: c.label.isna(), "None has both a label and a prediction"),
    ],
)
def test_all_correct_all_wrong_and_unlabelled_are_sentences(course, choose, words):
    store, results, _ = course
    cells = judged_cells(store, results.scope(), "logreg")
    chosen = cells.cell_index[choose(cells)].to_numpy()
    found = summarise_selection(store, results.scope(), chosen, "logreg")
    assert words in " ".join(found.sentences)
    assert found.n_cells == len(chosen)


def test_one_cell(course):
    store, results, _ = course
    found = summarise_selection(store, results.scope(), np.array([0]), "logreg")
    assert found.sentences[0] == "**1 cell** of 1 donor at 1 timepoint."


@pytest.mark.parametrize(
    ("cells", "scope", "message"),
    [
        ([], {}, "No cell is selected"),
        ([10**6], {}, "is not one of them"),
        ([0], {"dataset_id": "0" * 16}, "is not here any more"),
    ],
)
def test_selections_that_cannot_be_summarised(course, cells, scope, message):
    store, results, _ = course
    with pytest.raises(InputError, match=message):
        summarise_selection(store, results.scope().with_(**scope), np.array(cells, int), "logreg")
    with pytest.raises(InputError, match='No series "gone"'):
        summarise_selection(store, results.scope(), np.array([0]), "gone")


def test_rows_are_those_of_the_store_wrong_and_confident_first(course):
    store, results, _ = course
    scope = results.scope()
    rows = selected_rows(store, scope, CHOSEN, "logreg")
    expected = rows_of(store, scope, CHOSEN)
    assert sorted(rows.cell_index) == CHOSEN.tolist()
    joined = rows.set_index("cell_index").loc[CHOSEN]
    for column in ("cell_id", "label", "predicted", "donor", "timepoint", "outcome"):
        assert joined[column].astype(object).fillna("").tolist() == (
            expected[column].astype(object).fillna("").tolist()
        )
    is_wrong = rows.outcome.isin(["wrong", "confidently wrong"]).to_numpy()
    assert not (np.diff(is_wrong.astype(int)) > 0).any()
    assert rows.confidence[is_wrong].is_monotonic_decreasing
    first = selected_rows(store, scope, CHOSEN, "logreg", limit=5)
    assert first.cell_id.tolist() == rows.cell_id[:5].tolist()


@pytest.mark.parametrize("level", ["lineage", "fine"])
def test_probabilities_of_a_cell_are_those_of_its_prediction(course, level):
    store, results, _ = course
    configuration = "logreg"
    scope = results.scope(label_level=level)
    row = selected_rows(store, scope, CHOSEN, configuration, limit=1).iloc[0]
    vector = probability_vector(store, scope, row.cell_id, row.run_id)
    assert vector.probability.sum() == pytest.approx(1, abs=2e-3)
    assert vector.cell_type.iloc[0] == row.predicted
    assert vector.probability.iloc[0] == pytest.approx(row.confidence, abs=1e-3)


def test_fine_probabilities_are_summed_by_lineage(course):
    store, results, _ = course
    scope = results.scope()
    row = selected_rows(store, scope, CHOSEN, "logreg@fine", limit=1).iloc[0]
    vector = probability_vector(store, scope, row.cell_id, row.run_id)
    assert not vector.cell_type.str.endswith("-like").any()
    assert vector.cell_type.is_unique
    assert vector.cell_type.iloc[0] == row.predicted


def test_probabilities_of_a_cell_that_was_not_predicted(course):
    store, results, _ = course
    row = selected_rows(store, results.scope(), CHOSEN, "logreg", limit=1).iloc[0]
    for cell, run in (("no such cell", row.run_id), (row.cell_id, "0" * 16)):
        with pytest.raises(FaultlineError):
            probability_vector(store, results.scope(), cell, run)
