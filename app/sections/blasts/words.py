"""Blasts in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from app.components.frames import in_order
from backend.evaluation.f1 import TOP_DONOR_MARK
from backend.evaluation.wording import number, plain, plural, range_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["RATES", "blast_sentences", "mutant_sentences"]


RATES: Final = {
    "Blasts that are found": "sensitivity",
    "Normal cells left alone": "specificity",
}
"""What can be asked, in plain words; the exact ones stand in the title of the picture."""


def _rate(row: Any, word: str) -> str:
    """Return "sensitivity 0.59, 0.50–0.70; 11 donors, 5,000 cells"."""
    interval = f", {range_text(row.low, row.high)}" if pd.notna(row.low) else ""
    who = f"{plural(int(row.n_donors), 'donor')}, {plural(int(row.n_cells), 'cell')}"
    return f"{word} {number(row.value)}{interval}; {who}"


def blast_sentences(rates: pd.DataFrame, missing: Sequence[str] = ()) -> list[str]:
    """Say by timepoint how many malignant cells one model calls normal, and the other way round.

    Parameters
    ----------
    rates
        Rows of one model.
    missing
        Timepoints without cells.
    """
    sentences = []
    for timepoint in in_order(rates.timepoint, "timepoint"):
        mine = rates[rates.timepoint == timepoint].set_index("metric")
        parts = []
        if "sensitivity" in mine.index and pd.notna(mine.value["sensitivity"]):
            row = mine.loc["sensitivity"]
            parts.append(
                f"{1 - row.value:.0%} of malignant cells are called normal "
                f"({_rate(row, 'sensitivity')})"
            )
            if row.n_donors > 1 and row.top_donor_share >= TOP_DONOR_MARK:
                parts[-1] += f", {row.top_donor_share:.0%} of the cells one donor's"
        if "specificity" in mine.index and pd.notna(mine.value["specificity"]):
            row = mine.loc["specificity"]
            parts.append(
                f"{1 - row.value:.0%} of normal cells are called malignant "
                f"({_rate(row, 'specificity')})"
            )
        if parts:
            sentences.append(f"**{plain(timepoint)}**: {'; '.join(parts)}.")
    without = [f"**{plain(name)}**: no data; nothing is filled in." for name in missing]
    return [*sentences, *without]


def mutant_sentences(mutants: pd.DataFrame, model: str) -> list[str]:
    """Say by timepoint what one model calls the cells in which a mutant transcript was seen."""
    return [
        f"**{plain(row.timepoint)}**: {plain(model)} calls {row.predicted_share:.0%} of "
        f"{plural(int(row.n_cells), 'mutant cell')} malignant, the labels {row.labelled_share:.0%} "
        f"({plural(int(row.n_donors), 'donor')}; largest donor {row.top_donor_share:.0%})."
        for row in mutants.itertuples()
    ]
