"""Single types in the same patients before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import cache
from app.components import tables
from backend.evaluation.metrics import DEFAULT

if TYPE_CHECKING:
    from backend.types import Scope

__all__ = ["paired_types"]


def paired_types(scope: Scope, configuration: str, model: str) -> None:
    """Show how F1 of each type changes in the patients of two timepoints, where there are some."""
    changes = cache.patient_courses(scope, configuration, DEFAULT).by_type
    if changes.empty:
        return
    tables.show(
        changes,
        name="types-of-the-same-patients",
        alt_text="F1 of each type before and after in the same patients, with the paired difference",
        columns=(
            "cell_type", "reference", "timepoint", "before", "after", "difference", "low", "high",
            "interval", "n_donors", "n_cells_before", "n_cells", "top_donor_share",
        ),
        labels={
            "reference": "Before",
            "timepoint": "After",
            "before": "F1 before",
            "after": "F1 after",
            "n_cells_before": "Cells before",
            "n_cells": "Cells after",
            "n_donors": "Patients with both",
        },
        folded=f"The same patients before and after, by type: {model}",
    )  # fmt: skip
