"""Every metric: a table by hand, scikit-learn's value, the rules that all share, its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    recall_score,
)

from backend.config import project_root
from backend.errors import InputError
from backend.evaluation.intervals import (
    LeaveOneOut,
    bootstrap_draws,
    bootstrap_weights,
    difference_of_slices,
    jackknife,
    leave_one_out,
    paired_difference,
)
from backend.evaluation.metrics import DEFAULT, METRICS, Metric, metric_named, n_types_scored
from tests.backend.evaluation.test_f1 import TYPES, count, random_cells

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from backend.evaluation.tallies import Tallies

# Three types, the last one outside the panel: F1 2·6/(8+9), 2·2/(4+3); recall 6/8, 2/4.
TP, N_LABEL, N_PREDICTED = np.array([6, 2, 5]), np.array([8, 4, 7]), np.array([9, 3, 7])
PANEL = np.array([True, True, False])
BY_HAND: Final = {
    "macro_f1": (12 / 17 + 4 / 7) / 2,
    "weighted_f1": (8 * 12 / 17 + 4 * 4 / 7) / 12,
    "accuracy": 8 / 12,
    "balanced_accuracy": (6 / 8 + 2 / 4) / 2,
    "worst_type": 4 / 7,
    # 19 cells: (19·6 - 8·9) + (19·2 - 4·3) over the root of (8·11 + 4·15)·(9·10 + 3·16).
    "matthews_correlation": 68 / np.sqrt(148 * 138),
}


def inside(cells: pd.DataFrame, panel: tuple[str, ...]) -> tuple[pd.Series, pd.Series]:
    """Labels and predictions of the cells whose label is in the panel."""
    kept = cells[cells["label"].isin(panel)]
    return kept["label"], kept["predicted"]


def correlation_of_indicators(cells: pd.DataFrame, panel: tuple[str, ...]) -> float:
    """Matthews correlation from single cells, columns of types outside the panel left out."""
    labels, calls = (
        np.array([cells[column] == name for name in panel], dtype=float)
        for column in ("label", "predicted")
    )

    def covariance(one: np.ndarray, other: np.ndarray) -> float:
        return sum(np.cov(a, b)[0, 1] for a, b in zip(one, other, strict=True))

    spread = covariance(labels, labels) * covariance(calls, calls)
    return covariance(labels, calls) / np.sqrt(spread)


SCIKIT_LEARN: Final[dict[str, Callable[[pd.DataFrame, tuple[str, ...]], float]]] = {
    "macro_f1": lambda cells, panel: f1_score(
        cells["label"], cells["predicted"], labels=panel, average="macro", zero_division=0
    ),
    "weighted_f1": lambda cells, panel: f1_score(
        cells["label"], cells["predicted"], labels=panel, average="weighted", zero_division=0
    ),
    "accuracy": lambda cells, panel: accuracy_score(*inside(cells, panel)),
    "balanced_accuracy": lambda cells, panel: recall_score(
        *inside(cells, panel), labels=panel, average="macro"
    ),
    "worst_type": lambda cells, panel: f1_score(
        cells["label"], cells["predicted"], labels=panel, average=None, zero_division=0
    ).min(),
    "matthews_correlation": lambda cells, panel: (
        matthews_corrcoef(cells["label"], cells["predicted"])
        if set(panel) == set(TYPES)
        else correlation_of_indicators(cells, panel)
    ),
}
METRIC = pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.key)
PANELS = pytest.mark.parametrize("panel", [TYPES, ("B", "Mono", "T"), ("HSC",)], ids="-".join)


@METRIC
def test_metric_of_a_hand_computed_table(metric: Metric):
    score = metric.score(TP, N_LABEL, N_PREDICTED, panel=PANEL)
    assert score == pytest.approx(BY_HAND[metric.key])


@METRIC
@PANELS
@pytest.mark.parametrize("seed", range(3))
def test_metric_equals_scikit_learn(metric, panel, seed):
    cells = random_cells(seed, n_cells=800)
    tallies = count(cells)
    score = metric.score(*tallies.pooled(), panel=tallies.mask(panel))
    assert score == pytest.approx(SCIKIT_LEARN[metric.key](cells, panel))


def test_balanced_accuracy_is_that_of_scikit_learn():
    cells = random_cells(4)
    score = METRICS["balanced_accuracy"].score(*count(cells).pooled(), panel=np.ones(5, dtype=bool))
    assert score == pytest.approx(balanced_accuracy_score(cells["label"], cells["predicted"]))


@pytest.mark.parametrize("key", ["macro_f1", "weighted_f1", "worst_type"])
def test_wrong_calls_from_outside_the_panel_cost_f1(key):
    cells, panel = random_cells(1), ("B", "Mono", "T")
    tallies = count(cells)
    kept = cells[cells["label"].isin(panel)]
    score = METRICS[key].score(*tallies.pooled(), panel=tallies.mask(panel))
    assert score < SCIKIT_LEARN[key](kept, panel)


def test_macro_f1_is_the_mean_of_f1_and_not_the_f1_of_means():
    tp, n_label, n_predicted = np.array([9, 1]), np.array([10, 10]), np.array([18, 2])
    score = METRICS["macro_f1"].score(tp, n_label, n_predicted, panel=np.ones(2, dtype=bool))
    precision, recall = (tp / n_predicted).mean(), (tp / n_label).mean()
    assert score == pytest.approx((18 / 28 + 2 / 12) / 2)
    assert score != pytest.approx(2 * precision * recall / (precision + recall), abs=0.01)


@METRIC
def test_a_panel_type_without_label_gives_no_score_but_a_donor_dot(metric):
    tp, n_label, n_predicted = np.array([5, 0]), np.array([10, 0]), np.array([10, 3])
    both, first = np.array([True, True]), np.array([True, False])
    assert np.isnan(metric.score(tp, n_label, n_predicted, panel=both))
    assert metric.function(tp, n_label, n_predicted, panel=both) == pytest.approx(
        float(metric.function(tp, n_label, n_predicted, panel=first))
    )
    assert n_types_scored(n_label, panel=both) == 1


@METRIC
def test_an_empty_panel_gives_no_score_and_no_warning(metric):
    nothing = np.array([False, False])
    counts = (np.ones(2), np.ones(2), np.ones(2))
    assert np.isnan(metric.score(*counts, panel=nothing))
    assert np.isnan(metric.function(*counts, panel=nothing))
    assert n_types_scored(counts[1], panel=nothing) == 0


@METRIC
def test_perfect_calls_score_the_highest_value_and_none_falls_below_the_lowest(metric):
    n_label, panel = np.array([5, 7, 3]), np.ones(3, dtype=bool)
    assert metric.score(n_label, n_label, n_label, panel=panel) == pytest.approx(metric.range[1])
    worst = metric.score(np.zeros(3), n_label, n_label[[1, 2, 0]], panel=panel)
    assert metric.range[0] <= worst < metric.range[1]


@METRIC
def test_metric_is_vectorised_over_leading_axes(metric):
    tallies = count(random_cells(3))
    panel = tallies.mask(("B", "T"))
    together = metric.function(tallies.tp, tallies.n_label, tallies.n_predicted, panel=panel)
    apart = [
        float(metric.function(*counts, panel=panel))
        for counts in zip(tallies.tp, tallies.n_label, tallies.n_predicted, strict=True)
    ]
    assert together == pytest.approx(apart, nan_ok=True)


def sample(metric: Metric, seed: int) -> tuple[Tallies, LeaveOneOut]:
    tallies = count(random_cells(seed, n_cells=3000, n_donors=8))
    return tallies, leave_one_out(tallies, metric.statistic(tallies.mask(("B", "Mono", "T"))))


@METRIC
def test_intervals_differences_and_draws_work_with_it(metric):
    (tallies, first), (_, second) = sample(metric, 0), sample(metric, 1)
    without = tallies.with_donors(np.arange(8) != 2)
    panel = tallies.mask(("B", "Mono", "T"))
    assert first.deleted[2] == pytest.approx(float(metric.score(*without.pooled(), panel=panel)))
    estimate = jackknife(first, bounds=metric.range)
    assert metric.range[0] <= estimate.low < estimate.value < estimate.high <= metric.range[1]
    bounds = metric.difference_range
    paired = paired_difference(first, second, bounds=bounds)
    assert paired.value == pytest.approx(float(first.value - second.value))
    assert bounds[0] < paired.low < paired.high < bounds[1]
    apart = difference_of_slices(first, second, bounds=bounds)
    assert (apart.value, apart.se) == (pytest.approx(paired.value), pytest.approx(paired.se))
    weights = bootstrap_weights(["patient"] * 8, n_draws=200, seed=0)
    draws = bootstrap_draws(tallies, metric.statistic(panel), weights)
    assert np.std(draws) == pytest.approx(estimate.se, rel=0.5)


@METRIC
def test_words_of_a_metric_stand_in_the_documentation(metric):
    text = (project_root() / "docs" / "methods.md").read_text(encoding="utf-8")
    assert f"| `{metric.key}` | {metric.title}: {metric.text} |" in text


def test_unknown_metric_is_refused_with_the_known_ones():
    assert metric_named(DEFAULT).label == "macro-F1"
    with pytest.raises(InputError, match='no metric "f2"') as refused:
        metric_named("f2")
    assert "macro_f1, weighted_f1" in refused.value.hint
