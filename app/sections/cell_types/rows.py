"""Cell types in rows: which have a label, which are lost."""

from __future__ import annotations

import pandas as pd

from app.components.frames import readable_first

__all__ = ["labelled_rows", "lost_types"]


def labelled_rows(scores: pd.DataFrame, *, first: str | None = None) -> list[str]:
    """Return the cell types with a label anywhere.

    Parameters
    ----------
    first
        The configuration whose worst types come first; None keeps the order of the rows. Types
        with too few cells to read a score follow the others.
    """
    rows = scores[scores.n_cells > 0]
    if first is not None:
        mine = rows[rows.configuration == first].sort_values("f1", kind="stable")
        rows = pd.concat([mine, rows])
    return readable_first(rows)


def lost_types(never_predicted: pd.DataFrame, zero_f1: pd.DataFrame) -> pd.DataFrame:
    """Join the types that are never predicted and those that are never right."""
    parts = [
        never_predicted.assign(kind="never predicts"),
        zero_f1.assign(kind="predicts, but is never right on"),
    ]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else never_predicted.assign(kind="")
