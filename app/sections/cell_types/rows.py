"""Cell types in rows: which have a label, which are lost."""

from __future__ import annotations

import pandas as pd

__all__ = ["labelled_rows", "lost_types"]


def labelled_rows(scores: pd.DataFrame) -> list[str]:
    """Return the cell types with a label anywhere, in the order of the rows."""
    return list(dict.fromkeys(scores.loc[scores.n_cells > 0, "cell_type"]))


def lost_types(never_predicted: pd.DataFrame, zero_f1: pd.DataFrame) -> pd.DataFrame:
    """Join the types that are never predicted and those that are never right."""
    parts = [
        never_predicted.assign(kind="never predicts"),
        zero_f1.assign(kind="predicts, but is never right on"),
    ]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else never_predicted.assign(kind="")
