"""Failure map: which cells fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.evaluation.views.results import Failures
from backend.evaluation.views.series import Reader, shown_series
from backend.evaluation.views.source import load_labels

if TYPE_CHECKING:
    from backend.types import Scope

__all__ = ["OUTCOMES", "failures", "outcomes_of", "threshold_of"]

OUTCOMES: Final = ("correct", "wrong", "confidently wrong", "not scored")
"""Outcomes in the order of legends. A cell is "not scored" when it has no label, or no prediction
because its fold is missing."""

_COLUMNS: Final = [
    "cell_id",
    "cell_index",
    "umap_x",
    "umap_y",
    "label",
    "predicted",
    "confidence",
    "outcome",
    "donor",
    "timepoint",
    "sample",
    "genotype",
    "label_source",
]


def failures(store: Reader, scope: Scope, configuration: str, seed: int | None = None) -> Failures:
    """Return every cell of the scope with its outcome under one series.

    Parameters
    ----------
    configuration
        The model.
    seed
        Which of its seeds; the lowest by default. One series at a time, because a cell can be
        right under one seed and wrong under another.

    Raises
    ------
    InputError
        If there is no such configuration or seed.
    """
    labels = load_labels(store, scope)
    row = shown_series(store, scope, configuration, seed)
    cells = store.query(
        "cells_of_series",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=row["series_id"],
        timepoints=list(scope.timepoints) or None,
        truth=scope.truth,
        owner=scope.owner,
    )
    if scope.cell_types:
        cells = cells[cells["label"].isin(scope.cell_types)].reset_index(drop=True)
    threshold = threshold_of(store, scope, str(row["series_id"]))
    cells = cells.assign(outcome=outcomes_of(cells, threshold))[_COLUMNS]
    grouped = cells.groupby("outcome", observed=False)
    counts = pd.DataFrame(
        {"n_cells": grouped.size(), "n_donors": grouped["donor"].nunique()}
    ).reset_index()
    if threshold is None:
        counts = counts[counts["outcome"] != "confidently wrong"].reset_index(drop=True)
    return Failures(
        configuration=configuration,
        display_name=str(row["display_name"]),
        series_id=str(row["series_id"]),
        seed=int(row["seed"]),
        status_text=str(row["status_text"]),
        cells=cells,
        threshold=threshold,
        counts=counts,
        cautions=labels.cautions,
    )


def threshold_of(store: Reader, scope: Scope, series_id: str) -> float | None:
    """Return from which confidence on a wrong cell is confidently wrong; None: never.

    It is the median confidence of the series' valid cells that are correct.
    """
    rows = store.query(
        "valid_confidence",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=[series_id],
        owner=scope.owner,
    )
    return float(rows["threshold"].iloc[0]) if len(rows) else None


def outcomes_of(cells: pd.DataFrame, threshold: float | None) -> pd.Categorical:
    """Return the outcome of each cell from its `label`, `predicted` and `confidence`."""
    is_scored = (cells["label"].notna() & cells["predicted"].notna()).to_numpy()
    is_right = is_scored & (cells["label"] == cells["predicted"]).to_numpy(dtype=bool)
    confidence = cells["confidence"].to_numpy(dtype=np.float64)
    is_confident = np.zeros(len(cells), dtype=bool)
    if threshold is not None:
        is_confident = confidence >= threshold
    codes = np.select([~is_scored, is_right, is_confident], [3, 0, 2], default=1)
    return pd.Categorical.from_codes(codes, categories=list(OUTCOMES))
