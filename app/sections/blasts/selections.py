"""From a mark of Blasts to the cells behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.data.labels import is_malignant_label
from backend.evaluation.cells.selection import SavedSelection, scope_json
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from backend.evaluation.views import Blasts
    from backend.types import Scope

__all__ = ["cells_missed", "cells_of_state"]


def _at_fine(scope: Scope, configuration: str) -> dict[str, Any]:
    fine = scope.with_(label_level="fine", configurations=(), cell_types=())
    return scope_json(fine, configuration=configuration)


def cells_missed(row: Any, view: Blasts, configuration: str, scope: Scope) -> SavedSelection:
    """Return the malignant cells of a patient at a timepoint that the model calls normal."""
    mine = view.states[view.states.configuration == configuration]
    normal = sorted({name for name in mine.predicted if not is_malignant_label(name)})
    predicate = {"donor": [str(row.donor)], "label": list(view.malignant), "predicted": normal}
    if row.timepoint in TIMEPOINTS:
        predicate["timepoint"] = [row.timepoint]
    return SavedSelection(
        kind="predicate", predicate=predicate, scope=_at_fine(scope, configuration)
    )


def cells_of_state(point: Mapping[str, str], states: pd.DataFrame, scope: Scope) -> SavedSelection:
    """Return the cells of a malignant state that are called in one way."""
    rows = states[(states.label == point["label"]) & (states.called == point["called"])]
    predicate = {"label": [point["label"]], "predicted": sorted(rows.predicted)}
    return SavedSelection(
        kind="predicate",
        predicate=predicate,
        scope=_at_fine(scope, str(rows.configuration.iloc[0])),
    )
