"""Timepoints in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.components.frames import in_order, is_floor
from backend.evaluation.wording import number, plain, plural, range_text

if TYPE_CHECKING:
    import pandas as pd

    from backend.evaluation.metrics import Metric

__all__ = ["course_sentence"]


def course_sentence(scores: pd.DataFrame, metric: Metric) -> str:
    """Say what the models reach at each timepoint, lowest to highest.

    Parameters
    ----------
    scores
        A row per model and timepoint: configuration, display_name, timepoint, value, n_donors,
        n_cells, all over the same types.

    Returns
    -------
    One sentence in Markdown; empty without a score.
    """
    known = scores.dropna(subset=["value"])
    floor = is_floor(known.configuration)
    left = known[~floor] if not floor.all() else known
    if left.empty:
        return ""
    parts = []
    for timepoint in in_order(left.timepoint, "timepoint"):
        at = left[left.timepoint == timepoint]
        low, high = at.value.min(), at.value.max()
        reached = number(low) if number(low) == number(high) else range_text(low, high)
        support = (
            f"{plural(int(at.n_donors.max()), 'donor')}, {plural(int(at.n_cells.max()), 'cell')}"
        )
        parts.append(f"{reached} at {plain(timepoint)} ({support})")
    n = left.configuration.nunique()
    who = f"of {n} models" if n > 1 else f"of {plain(left.display_name.iloc[0])}"
    aside = ", the majority class left aside" if n > 1 and len(left) < len(known) else ""
    return f"**{metric.title} {who}{aside}**: {', '.join(parts)}."
