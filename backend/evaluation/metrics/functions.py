"""Metrics as functions of counts; `backend.evaluation.metrics.registry` lists them.

Each takes true positives, labelled cells and predicted cells, (..., types) each, and a mask over
the types, and returns (...) values. It is over the panel types that have a label, and NaN where
none has one. Predictions count whatever the label of the cell, so that a cell of a type outside the
panel that is called a panel type counts against it.
"""

from __future__ import annotations

import numpy as np

from backend.evaluation.f1 import f1_by_class, ratio, recall_by_class

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "matthews_correlation",
    "weighted_f1",
    "worst_type",
]


def _mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is known; NaN where nothing is."""
    is_known = ~np.isnan(scores)
    total = np.where(is_known, scores, 0.0).sum(axis=-1)
    n = is_known.sum(axis=-1).astype(np.float64)
    return ratio(total, n, n > 0)


def macro_f1(
    tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
) -> np.ndarray:
    """Return the plain mean of the F1 of each type.

    scikit-learn's `f1_score(labels=panel, average="macro", zero_division=0)`.
    """
    return _mean(f1_by_class(tp, n_label, n_predicted)[..., panel])


def weighted_f1(
    tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
) -> np.ndarray:
    """Return the mean of the F1 of each type, weighted by its labelled cells.

    scikit-learn's `f1_score(labels=panel, average="weighted", zero_division=0)`.
    """
    n = np.asarray(n_label, dtype=np.float64)[..., panel]
    scores = f1_by_class(tp, n_label, n_predicted)[..., panel]
    total = n.sum(axis=-1)
    return ratio((np.where(n > 0, scores, 0.0) * n).sum(axis=-1), total, total > 0)


def accuracy(
    tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
) -> np.ndarray:
    """Return the share of the cells labelled as a panel type that are predicted as labelled.

    scikit-learn's `accuracy_score` of those cells.
    """
    total = np.asarray(n_label, dtype=np.float64)[..., panel].sum(axis=-1)
    return ratio(np.asarray(tp, dtype=np.float64)[..., panel].sum(axis=-1), total, total > 0)


def balanced_accuracy(
    tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
) -> np.ndarray:
    """Return the plain mean of the recall of each type.

    scikit-learn's `balanced_accuracy_score` of the cells labelled as a panel type.
    """
    return _mean(recall_by_class(tp, n_label)[..., panel])


def worst_type(
    tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
) -> np.ndarray:
    """Return the lowest F1 of a type: the minimum of scikit-learn's `f1_score(average=None)`."""
    scores = f1_by_class(tp, n_label, n_predicted)[..., panel]
    lowest = np.where(np.isnan(scores), np.inf, scores).min(axis=-1, initial=np.inf)
    return np.where(np.isinf(lowest), np.nan, lowest)


def matthews_correlation(
    tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
) -> np.ndarray:
    """Return the correlation of being labelled and being predicted as each type, summed over types.

    scikit-learn's `matthews_corrcoef` when the panel holds every type; 0 where labels or
    predictions do not vary. Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006: the covariances
    need no more of the confusion matrix than its diagonal and its margins.
    """
    hits, labels, calls = (
        np.asarray(counts, dtype=np.float64) for counts in (tp, n_label, n_predicted)
    )
    n = labels.sum(axis=-1, keepdims=True)
    is_scored = (labels > 0)[..., panel]

    def summed(products: np.ndarray) -> np.ndarray:
        return np.where(is_scored, products[..., panel], 0.0).sum(axis=-1)

    shared = summed(hits * n - labels * calls)
    spread = np.sqrt(summed(labels * (n - labels)) * summed(calls * (n - calls)))
    value = np.where(spread > 0, ratio(shared, spread, spread > 0), 0.0)
    return np.where(is_scored.any(axis=-1), value, np.nan)
