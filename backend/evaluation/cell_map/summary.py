"""Counts of the cells on the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backend.evaluation.cell_map.cells import CONFIDENT, WRONG
from backend.evaluation.views.failures import OUTCOMES

if TYPE_CHECKING:
    from backend.evaluation.cell_map.cells import MapCells

__all__ = ["count_outcomes", "most_confident"]


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
    rows = np.flatnonzero(in_scope & np.isin(cells.outcome, (WRONG, CONFIDENT)))
    order = np.argsort(-cells.confidence[rows], kind="stable")
    return rows[order[:limit]]
