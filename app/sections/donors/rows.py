"""Donors in rows and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.components.heatmap import MOST_COLUMNS, MOST_ROWS
from backend.evaluation.metrics import metric_of
from backend.evaluation.wording import plain, plural
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import pandas as pd

__all__ = ["donor_order", "donor_sentence", "laid_out"]


def laid_out(donors: Sequence[str], cell_types: Sequence[str]) -> dict[str, Any]:
    """Return rows and columns of a heatmap of donors and types.

    Donors stand in rows, but for types that are more than can be read beside each other. Many rows
    stand low, so that a cohort's donors can be seen together.
    """
    sides = {
        "row": ("donor_name", donors, "Donor"),
        "column": ("cell_type", cell_types, "Cell type"),
    }
    if len(cell_types) > max(MOST_COLUMNS, len(donors)):
        sides = {"row": sides["column"], "column": sides["row"]}
    named = {
        name: value
        for side, (field, names, title) in sides.items()
        for name, value in ((side, field), (f"{side}s", names), (f"{side}_title", title))
    }
    return named | {"is_compact": len(named["rows"]) > MOST_ROWS}


def donor_order(rows: pd.DataFrame) -> list[str]:
    """Return the donor names in clinical order, then by name."""
    places = {t: i for i, t in enumerate(TIMEPOINTS)}
    distinct = rows.drop_duplicates("donor_name")
    keys = [
        (places.get(t, len(places)), str(d), n)
        for t, d, n in zip(distinct.timepoint, distinct.donor, distinct.donor_name, strict=True)
    ]
    return [name for _, _, name in sorted(keys)]


def _who(rows: pd.DataFrame) -> str:
    """Return "17 donors, each at its timepoints (28 scores)": a donor is counted once."""
    n_donors = int(rows.donor.nunique())
    several = f", each at its timepoints ({len(rows)} scores)" if len(rows) > n_donors else ""
    return f"{plural(n_donors, 'donor')}{several}"


def donor_sentence(totals: pd.DataFrame, model: str) -> str:
    """Return the spread of donors in words."""
    known = totals.dropna(subset=["value"]).sort_values("value")
    if known.empty:
        return f"**{plain(model)}**: no donor has enough labelled cells for a score."
    low, high = known.iloc[0], known.iloc[-1]
    return (
        f"**{plain(model)}**: {metric_of(totals).label} of single donors from {low.value:.2f} ({plain(low.donor)}, "
        f"{low.timepoint}, {plural(int(low.n_cells), 'cell')}) to {high.value:.2f} ({plain(high.donor)}, "
        f"{high.timepoint}, {plural(int(high.n_cells), 'cell')}), over {_who(known)}."
    )
