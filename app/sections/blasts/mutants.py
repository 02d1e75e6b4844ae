"""Cells with a mutant transcript: malignancy that no classifier's label decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.components import tables
from app.sections.blasts.words import mutant_sentences

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["show"]


def show(mutants: pd.DataFrame, configuration: str, model: str) -> None:
    """Say how many mutant cells one model calls malignant; the table holds all models.

    Parameters
    ----------
    mutants
        A row per configuration and timepoint, as `Blasts.mutants` has them.
    """
    st.markdown("##### Cells with a mutant transcript: a check without labels")
    mine = mutants[mutants.configuration == configuration]
    if mine.empty:
        st.markdown("No genotype is known in this dataset.")
        return
    st.markdown("\n".join(f"- {text}" for text in mutant_sentences(mine, model)))
    st.caption(
        "A mutant transcript is evidence of malignancy, whatever the classifier said. Its absence "
        "proves nothing. Labelled cells only."
    )
    tables.show(
        mutants,
        name="blasts-mutants",
        alt_text="Cells with a mutant transcript by model and timepoint",
        columns=(
            "display_name", "timepoint", "predicted_share", "labelled_share", "n_cells",
            "n_donors", "top_donor_share",
        ),
        labels={"predicted_share": "Called malignant", "labelled_share": "Labelled malignant"},
        folded="All models as a table",
    )  # fmt: skip
