"""What became of a cell: said alike in Python and in SQL; kinds of error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.evaluation.cells.map_cells import count_outcomes, load_cells
from backend.evaluation.outcomes import (
    OUTCOMES,
    WRONG,
    error_kind,
    is_wrong,
    outcome_codes,
    threshold_of,
)
from backend.evaluation.views.series import shown_series

WORDS = ("T", "B", "NK")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    threshold=st.none() | st.floats(0, 1),
    is_between=st.booleans(),
)
def test_python_and_sql_agree_on_random_cells(store, seed, threshold, is_between):
    rng = np.random.default_rng(seed)
    label, predicted = rng.integers(-1, len(WORDS), (2, 200))
    confidence = rng.choice([0.25, 0.5, 0.75, *rng.random(5)], 200).astype(np.float32)
    confidence[predicted < 0] = np.nan
    if threshold is not None and np.isfinite(confidence).any():
        # On a confidence, or between it and the next float, which no float can tell apart.
        at = confidence[np.isfinite(confidence)][0]
        after = np.nextafter(at, np.float32(2))
        threshold = (float(at) + float(after)) / 2 if is_between else float(at)
    words = [None, *WORDS]
    said = store.sql(
        "select outcome_of(label, predicted, confidence, $threshold) as outcome from (select"
        " unnest($label::varchar[]) as label, unnest($predicted::varchar[]) as predicted,"
        " unnest($confidence::float[]) as confidence)",
        label=[words[code + 1] for code in label],
        predicted=[words[code + 1] for code in predicted],
        confidence=[None if np.isnan(value) else float(value) for value in confidence],
        threshold=threshold,
    )["outcome"]
    codes = outcome_codes(label, predicted, confidence, threshold)
    assert [OUTCOMES[code] for code in codes] == said.tolist()
    assert is_wrong(codes).tolist() == said.isin(WRONG).tolist()


def test_cells_of_a_failed_fold_are_not_scored(store, results):
    cells = load_cells(store, results.scope(), "hgb")
    unseen = cells.roles["predicted"].codes < 0
    assert unseen.any()
    assert {OUTCOMES[code] for code in cells.outcome[unseen]} == {"not scored"}


def test_without_valid_cells_nothing_is_confidently_wrong(store, results):
    class NoValid:
        def query(self, name, **params):
            rows = store.query(name, **params)
            return rows.iloc[:0] if name == "valid_confidence" else rows

    cells = load_cells(NoValid(), results.scope(), "logreg")
    assert cells.threshold is None
    assert (cells.outcome == 1).any()
    assert not (cells.outcome == 2).any()
    counts = count_outcomes(cells, np.ones(len(cells), bool))
    assert counts.outcome.tolist() == ["correct", "wrong", "not scored"]


def test_threshold_is_the_median_of_correct_valid_cells(store, results):
    row = shown_series(store, results.scope(), "logreg")
    valid = store.sql(
        "select confidence from predictions where series_id = $id and role = 'valid'"
        " and label_level = 'lineage' and label = predicted",
        id=row["series_id"],
    )
    assert (
        threshold_of(store, results.scope(), row["series_id"])
        == valid["confidence"].astype(float).median()
    )
    assert threshold_of(store, results.scope(), "0" * 16) is None


@pytest.mark.parametrize(
    ("label", "predicted", "kind"),
    [
        ("HSC", "HSC", "correct"),
        ("HSC-like", "HSC", "malignant ↔ normal"),
        ("Mono", "Mono-like", "malignant ↔ normal"),
        ("HSC-like", "Prog-like", "same lineage family"),
        ("HSC-like", "GMP", "same lineage family"),
        ("CTL", "NK", "same lineage family"),
        ("Mono", "B", "other lineage family"),
        ("Hepatocyte", "B", "family unknown"),
        ("Hepatocyte", "Neuron", "family unknown"),
    ],
)
def test_kind_of_error(label, predicted, kind):
    assert error_kind(label, predicted) == kind
