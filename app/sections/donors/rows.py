"""Donors in rows and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.evaluation.metrics import metric_of
from backend.evaluation.wording import plain, plural
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["donor_order", "donor_sentence"]


def donor_order(rows: pd.DataFrame) -> list[str]:
    """Return the donor names in clinical order, then by name."""
    places = {t: i for i, t in enumerate(TIMEPOINTS)}
    distinct = rows.drop_duplicates("donor_name")
    keys = [
        (places.get(t, len(places)), str(d), n)
        for t, d, n in zip(distinct.timepoint, distinct.donor, distinct.donor_name, strict=True)
    ]
    return [name for _, _, name in sorted(keys)]


def donor_sentence(totals: pd.DataFrame, model: str) -> str:
    """Return the spread of donors in words."""
    known = totals.dropna(subset=["value"]).sort_values("value")
    if known.empty:
        return f"**{plain(model)}**: no donor has enough labelled cells for a score."
    low, high = known.iloc[0], known.iloc[-1]
    return (
        f"**{plain(model)}**: {metric_of(totals).label} of single donors from {low.value:.2f} ({plain(low.donor)}, "
        f"{low.timepoint}, {int(low.n_cells):,} cells) to {high.value:.2f} ({plain(high.donor)}, "
        f"{high.timepoint}, {int(high.n_cells):,} cells), over {plural(len(known), 'donor')}."
    )
