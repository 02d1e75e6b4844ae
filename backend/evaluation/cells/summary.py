"""Counts of the cells on the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backend.evaluation.cells.map_cells import CONFIDENT, WRONG
from backend.evaluation.views.failures import OUTCOMES

if TYPE_CHECKING:
    from backend.evaluation.cells.map_cells import MapCells

__all__ = ["count_outcomes", "most_confident", "most_confident_first"]


def count_outcomes(cells: MapCells, in_scope: np.ndarray) -> pd.DataFrame:
    """Count cells and donors by outcome; without a threshold nothing is confidently wrong.

    Returns
    -------
    Columns `outcome`, `n_cells`, `n_donors`, in the order of legends.
    """
    donors = cells.roles["donor"]
    pairs = cells.outcome[in_scope].astype(np.int64) * (len(donors.names) + 1)
    pairs += donors.codes[in_scope] + 1
    table = np.bincount(pairs, minlength=len(OUTCOMES) * (len(donors.names) + 1))
    table = table.reshape(len(OUTCOMES), -1)
    counts = pd.DataFrame(
        {
            "outcome": list(OUTCOMES),
            "n_cells": table.sum(axis=1),
            "n_donors": (table[:, 1:] > 0).sum(axis=1),
        }
    )
    if cells.threshold is None:
        counts = counts[counts["outcome"] != OUTCOMES[CONFIDENT]].reset_index(drop=True)
    return counts


def most_confident(cells: MapCells, in_scope: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Return the `cell_index` of failures, most confident first, at most `limit` of them."""
    rows = np.flatnonzero(in_scope & _is_wrong(cells.outcome))
    return _by_confidence(cells, rows, limit)


def most_confident_first(cells: MapCells, rows: np.ndarray, limit: int) -> np.ndarray:
    """Return at most `limit` of some cells: wrong ones first, the most confident first.

    Parameters
    ----------
    rows
        Values of `cell_index`, in order; of equal cells the first is taken.
    """
    is_wrong = _is_wrong(cells.outcome[rows])
    wrong = _by_confidence(cells, rows[is_wrong], limit)
    others = _by_confidence(cells, rows[~is_wrong], limit - len(wrong))
    return np.concatenate([wrong, others])


def _is_wrong(outcome: np.ndarray) -> np.ndarray:
    return (outcome == WRONG) | (outcome == CONFIDENT)


def _by_confidence(cells: MapCells, rows: np.ndarray, limit: int | None) -> np.ndarray:
    """Sort cells by confidence, highest first and those without one last; cut the rest off."""
    lowness = -cells.confidence[rows]
    if limit is not None and 0 < limit < len(rows):
        # Only cells up to the last value that is kept need to be sorted.
        last = np.partition(lowness, limit - 1)[limit - 1]
        if not np.isnan(last):
            near = np.flatnonzero(lowness <= last)
            rows, lowness = rows[near], lowness[near]
    return rows[np.argsort(lowness, kind="stable")[:limit]]
