"""What a study reports beside what is found here: by timepoint and by cell type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from backend.evaluation.published import STUDIES, statements
from backend.evaluation.views.cell_types import f1_by_cell_type
from backend.evaluation.views.series import configurations_in
from backend.evaluation.views.timepoints import scores_by_timepoint

if TYPE_CHECKING:
    from backend.evaluation.published import Statement, Study
    from backend.evaluation.views.results import CellTypeScores, TimepointScores
    from backend.evaluation.views.series import Reader
    from backend.types import Scope

__all__ = ["NOT_RUN", "Published", "published"]

_KEYS: Final = ("figure", "model", "timepoint", "cell_type", "score", "published", "low_limit",
                "high_limit", "note")  # fmt: skip
_OWN: Final = ("configuration", "display_name", "value", "low", "high", "n_cells", "n_donors")
_NO_TIMEPOINT: Final = "no cells of this timepoint"
_NO_TYPE: Final = "not labelled in this dataset"
NOT_RUN: Final = "this model was not run"
"""Beside a statement of a model that has no series in the scope."""
_NO_SCORE: Final = "no score"


@dataclass(frozen=True, eq=False)
class Published:
    """Statements of a study and the scores that stand beside them.

    Parameters
    ----------
    by_timepoint, by_type
        What the pages Timepoints and Cell types show of the scope.
    rows
        One row a statement and model here: `figure`, `model`, `timepoint`, `cell_type`, `score`,
        `published` (its words), `low_limit`, `high_limit` (NaN without a value), `note`,
        `configuration`, `display_name`, `value`, `low`, `high`, `n_cells`, `n_donors` and `beside`:
        "within", "not within", "no number was published", or why there is nothing to set beside it.
    absent
        Timepoints and cell types that the study speaks of and this dataset lacks.
    """

    study: Study
    by_timepoint: TimepointScores
    by_type: CellTypeScores
    rows: pd.DataFrame
    absent: tuple[str, ...]


def published(store: Reader, scope: Scope, *, study: str = "naziri2025") -> Published:
    """Set the statements of a study beside the scores of a scope.

    F1 by timepoint is macro-F1 over the panel. A cell type is found by its name, whatever marks are
    between its letters. Nothing is judged where the study gives no number.
    """
    by_timepoint = scores_by_timepoint(store, scope)
    by_type = f1_by_cell_type(store, scope)
    models = {item.key: item.model for item in configurations_in(store, scope)}
    rows: list[dict[str, Any]] = []
    for statement in (one for one in statements() if one.study == study):
        rows += _rows(statement, by_timepoint.scores, by_type.scores, models)
    table = pd.DataFrame(rows, columns=[*_KEYS, *_OWN, "beside"])
    is_absent = table["beside"].isin([_NO_TIMEPOINT, _NO_TYPE])
    named = table["timepoint"].where(table["timepoint"] != "", table["cell_type"])
    return Published(
        study=STUDIES[study],
        by_timepoint=by_timepoint,
        by_type=by_type,
        rows=table,
        absent=tuple(dict.fromkeys(named[is_absent])),
    )


def _rows(
    statement: Statement, by_timepoint: pd.DataFrame, by_type: pd.DataFrame, models: dict[str, str]
) -> list[dict[str, Any]]:
    """Return a row for each model here that a statement speaks of; one without a score if none."""
    if statement.timepoint:
        found = by_timepoint[by_timepoint["timepoint"] == statement.timepoint]
        found, lacking = found[found["n_cells"] > 0], _NO_TIMEPOINT
    else:
        wanted = _letters(statement.cell_type)
        found = by_type[by_type["cell_type"].map(_letters) == wanted]
        found, lacking = found[found["n_cells"] > 0].rename(columns={"f1": "value"}), _NO_TYPE
        found = found.assign(display_name=found["column"])
    if len(found) and statement.model:
        mine = found["configuration"].map(models) == statement.model
        found, lacking = found[mine], NOT_RUN
    # In the words of this dataset, so that it stands in the row of its type.
    named = statement.cell_type and len(found) > 0
    low, high = statement.limits or (float("nan"), float("nan"))
    of_statement = {
        "figure": statement.figure,
        "model": statement.model_name,
        "timepoint": statement.timepoint,
        "cell_type": str(found["cell_type"].iloc[0]) if named else statement.cell_type,
        "score": statement.score,
        "published": statement.text,
        "low_limit": low,
        "high_limit": high,
        "note": statement.note,
    }
    if found.empty:
        return [of_statement | {"n_cells": 0, "n_donors": 0, "beside": lacking}]
    return [
        of_statement | own | {"beside": _beside(own["value"], statement)}
        for own in found[list(_OWN)].to_dict("records")
    ]


def _beside(value: float, statement: Statement) -> str:
    if pd.isna(value):
        return _NO_SCORE
    if statement.limits is None:
        return "no number was published"
    low, high = statement.limits
    # The study says above and below: the limit itself is in neither.
    is_within = value > low if statement.relation == "above" else value < high
    return "within" if is_within else "not within"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", str(name).casefold())
