"""Cell types: which are lost, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd

from backend.errors import InputError
from backend.evaluation.description import kind_of
from backend.evaluation.f1 import class_table, f1_by_class
from backend.evaluation.intervals import jackknife, leave_one_out
from backend.evaluation.views.results import CellTypeScores
from backend.evaluation.views.series import Reader, one_configuration
from backend.evaluation.views.source import load_scored
from backend.evaluation.views.timepoints import INTERVAL_COLUMNS, interval_columns

if TYPE_CHECKING:
    from backend.evaluation.tallies import Tallies
    from backend.types import Scope

__all__ = ["f1_by_cell_type", "score_types"]

_COLUMNS: Final = [
    "cell_type",
    "column",
    "configuration",
    "f1",
    "precision",
    "recall",
    *INTERVAL_COLUMNS,
    "n_cells",
    "n_donors",
    "top_donor_share",
    "is_small",
    "n_predicted",
    "n_predicted_absent",
]
_NAMED: Final = ["cell_type", "column", "configuration", "n_cells", "n_donors"]


def score_types(tallies: Tallies) -> pd.DataFrame:
    """Return `class_table` of one slice (seeds leading) with an interval per type."""
    table = class_table(tallies)
    sample = leave_one_out(tallies, f1_by_class).mean_over_seeds()
    estimates = [
        interval_columns(jackknife(sample.at(index), n_donors=int(n)))
        for index, n in enumerate(table["n_donors"])
    ]
    columns = ["low", "high", "interval", "reason"]
    return table.join(pd.DataFrame(estimates, index=table.index, columns=columns))


def f1_by_cell_type(
    store: Reader,
    scope: Scope,
    *,
    by: Literal["model", "timepoint"] = "model",
    configuration: str | None = None,
) -> CellTypeScores:
    """Score every type: by model over the timepoints of the scope, or of one model by timepoint.

    Parameters
    ----------
    by
        What the columns of the heatmap are.
    configuration
        The model, needed by timepoint.
    """
    if by == "timepoint" and configuration is None:
        msg = "F1 by cell type and timepoint is shown for one model, and none is chosen."
        raise InputError(msg, "Choose a model.")
    models = [one_configuration(store, scope, configuration)] if configuration else None
    scored = load_scored(store, scope, models if by == "timepoint" else None)
    labels, counts = scored.labels, scored.counts
    parts = []
    for item in scored.configurations:
        if not item.is_complete:
            continue
        for timepoint in labels.timepoints if by == "timepoint" else (None,):
            table = score_types(counts.of(item.series, timepoint))
            parts.append(
                table.assign(column=timepoint or item.display_name, configuration=item.key)
            )
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)
    if scope.cell_types:
        scores = scores[scores["cell_type"].isin(scope.cell_types)]
    scores = _hardest_first(scores)[_COLUMNS]
    labelled = scores[scores["n_cells"] > 0]
    is_unused = labelled["n_predicted"] == 0
    never = labelled.loc[is_unused, _NAMED].reset_index(drop=True)
    zero = labelled.loc[~is_unused & (labelled["f1"] == 0), _NAMED].reset_index(drop=True)
    return CellTypeScores(
        scores=scores.drop(columns="n_predicted"),
        kind=kind_of(labels.panel(scope)),
        n_donors=labels.n_donors,
        never_predicted=never,
        zero_f1=zero,
        status={item.key: item.status_text for item in scored.configurations},
        cautions=labels.cautions,
    )


def _hardest_first(scores: pd.DataFrame) -> pd.DataFrame:
    """Order types by their mean F1 over the columns, unlabelled ones last; columns stay in order."""
    if scores.empty:
        return scores
    mean = scores.groupby("cell_type")["f1"].mean()
    order = {name: rank for rank, name in enumerate(mean.sort_values(kind="stable").index)}
    ranks = scores["cell_type"].map(order).to_numpy()
    return scores.iloc[np.argsort(ranks, kind="stable")].reset_index(drop=True)
