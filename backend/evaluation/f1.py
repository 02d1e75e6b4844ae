"""F1, precision and recall of single cell types, from counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from backend.evaluation.tallies import Tallies

__all__ = [
    "SMALL_CELLS",
    "SMALL_DONORS",
    "TOP_DONOR_MARK",
    "class_table",
    "f1_by_class",
    "is_small",
    "precision_by_class",
    "ratio",
    "recall_by_class",
]

SMALL_CELLS: Final = 20
SMALL_DONORS: Final = 3
"""A type with fewer labelled cells or donors than these is `is_small`: greyed, never hidden."""

TOP_DONOR_MARK: Final = 0.5
"""From this share on, one donor dominates a type and is marked."""


def ratio(top: np.ndarray, bottom: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Return top / bottom, any shape; NaN where it is not defined."""
    out = np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan)
    return np.divide(top, bottom, out=out, where=defined)


def f1_by_class(tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray) -> np.ndarray:
    """Return 2·tp / (n_label + n_predicted), any shape; NaN only where there is no label.

    A type that has labels and is never hit scores 0, also when it is never predicted
    (scikit-learn's `f1_score` with `zero_division=0`).
    """
    tp, n_label, n_predicted = (np.asarray(a, dtype=np.float64) for a in (tp, n_label, n_predicted))
    return ratio(2.0 * tp, n_label + n_predicted, n_label > 0)


def precision_by_class(tp: np.ndarray, n_predicted: np.ndarray) -> np.ndarray:
    """Return tp / n_predicted; NaN where the type is never predicted."""
    tp, n_predicted = np.asarray(tp, dtype=np.float64), np.asarray(n_predicted, dtype=np.float64)
    return ratio(tp, n_predicted, n_predicted > 0)


def recall_by_class(tp: np.ndarray, n_label: np.ndarray) -> np.ndarray:
    """Return tp / n_label; NaN where there is no label."""
    tp, n_label = np.asarray(tp, dtype=np.float64), np.asarray(n_label, dtype=np.float64)
    return ratio(tp, n_label, n_label > 0)


def is_small(n_cells: np.ndarray, n_donors: np.ndarray) -> np.ndarray:
    """Tell where there are too few labelled cells or donors to read much into a score."""
    return (np.asarray(n_cells) < SMALL_CELLS) | (np.asarray(n_donors) < SMALL_DONORS)


def class_table(tallies: Tallies) -> pd.DataFrame:
    """Score every type of one slice.

    Several seeds on a leading axis are averaged: the statistic per seed, then the mean.

    Returns
    -------
    One row per type, in the order of `tallies.types`: `cell_type`, `f1`, `precision`, `recall`,
    `n_cells`, `n_donors` (donors with the label), `top_donor_share` (NaN without labels),
    `is_small`, `n_predicted` (mean over seeds), `n_predicted_absent` (predictions into a type
    that has no label in the slice, otherwise 0).
    """
    tp, n_label, n_predicted = tallies.pooled()
    seeds = tuple(range(tp.ndim - 1))
    by_donor = tallies.n_label.max(axis=seeds) if seeds else tallies.n_label
    n_cells = by_donor.sum(axis=0)
    n_donors = (by_donor > 0).sum(axis=0)
    top = by_donor.max(axis=0, initial=0)
    mean_predicted = n_predicted.mean(axis=seeds)
    return pd.DataFrame(
        {
            "cell_type": list(tallies.types),
            "f1": f1_by_class(tp, n_label, n_predicted).mean(axis=seeds),
            "precision": precision_by_class(tp, n_predicted).mean(axis=seeds),
            "recall": recall_by_class(tp, n_label).mean(axis=seeds),
            "n_cells": n_cells,
            "n_donors": n_donors,
            "top_donor_share": ratio(top.astype(float), n_cells.astype(float), n_cells > 0),
            "is_small": is_small(n_cells, n_donors),
            "n_predicted": mean_predicted,
            "n_predicted_absent": np.where(n_cells == 0, mean_predicted, 0.0),
        }
    )
