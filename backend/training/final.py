"""How long a final fit trains: as long as was best for the folds of its series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from backend.store.bundle import is_done, list_runs, read_run
from backend.training.settings import SELECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backend.splits import Split
    from backend.types import Series

__all__ = ["best_epoch", "fold_histories", "median_best_epoch"]


def fold_histories(out: Path, series: Series, split: Split) -> list[pd.DataFrame]:
    """Return the histories of the finished folds of a series on a split, by fold.

    A model without epochs leaves no history.
    """
    found = {}
    for folder in list_runs(out):
        path = folder / "history.parquet"
        if not path.is_file() or not is_done(out, folder.name):
            continue
        record = read_run(folder)
        is_of_series = (record.series_id, record.split_sha256) == (series.series_id, split.sha256)
        if is_of_series and record.fold != "final":
            found[record.fold] = pd.read_parquet(path)
    return [found[fold] for fold in sorted(found)]


def best_epoch(history: pd.DataFrame, select_by: str) -> int:
    """Return the epoch whose weights a fit kept: the first best one, or the last unvalidated."""
    scores = history.get(select_by)
    if scores is None or scores.isna().all():
        return int(history["epoch"].iloc[-1])
    return int(history["epoch"].loc[(scores * SELECTIONS[select_by]).idxmax()])


def median_best_epoch(histories: Sequence[pd.DataFrame], select_by: str) -> int:
    """Return the median of the folds' best epochs; a half is rounded up."""
    epochs = pd.Series([best_epoch(history, select_by) for history in histories])
    return int(epochs.median() + 0.5)
