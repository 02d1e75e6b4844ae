"""Three averages and the types that they hide, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import streamlit as st

from app.components import tables

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["averages_table"]

_TITLE: Final = "What each average hides: accuracy, weighted and macro-F1 beside the worst types"


def averages_table(averages: pd.DataFrame, *, is_folded: bool = True) -> None:
    """Show accuracy, weighted and macro-F1 beside the worst types, by model and timepoint.

    Parameters
    ----------
    averages
        What `backend.evaluation.views.averages` returns.
    """
    if not is_folded:
        st.markdown(f"##### {_TITLE}")
    rows = averages.drop(columns=["is_baseline", "worst_types"])
    rows["worst"] = [
        ", ".join(f"{name} {f1:.2f}" for name, f1 in types) for types in averages.worst_types
    ]
    tables.show(
        rows,
        name="averages",
        alt_text="Accuracy, weighted F1 and macro-F1 over the same types, and the worst types with "
        "their F1, by model and timepoint, with cells and donors",
        columns=(
            "display_name", "timepoint", "accuracy", "weighted_f1", "macro_f1", "worst", "n_cells",
            "n_donors", "n_types",
        ),
        labels={"worst": "Worst types, F1"},
        folded=_TITLE if is_folded else "",
    )  # fmt: skip
