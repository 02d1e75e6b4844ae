"""How long a final fit trains: as long as was best for the folds of its series."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pandas as pd

from backend.store.bundle import is_damaged, parse_run
from backend.store.roots import open_root
from backend.training.settings import SELECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.splits import Split
    from backend.store.roots import Location
    from backend.types import Series

__all__ = ["best_epoch", "fold_histories", "median_best_epoch"]


def fold_histories(out: Location, series: Series, split: Split) -> list[pd.DataFrame]:
    """Return the histories of the finished folds of a series on a split, by fold.

    A model without epochs leaves no history.
    """
    root, found = open_root(out), {}
    for name in root.names("runs"):
        content = root.read_bytes("runs", name, "run.json")
        # A damaged bundle is no finished fold; the next run of that fold replaces it.
        if content is None or is_damaged(content):
            continue
        record = parse_run(content, name)
        is_of_series = (record.series_id, record.split_sha256) == (series.series_id, split.sha256)
        if not is_of_series or record.status != "done" or record.fold == "final":
            continue
        table = root.read_bytes("runs", name, "history.parquet")
        if table is not None:
            found[record.fold] = pd.read_parquet(BytesIO(table))
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
