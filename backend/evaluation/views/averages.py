"""Averages beside the types that they hide: accuracy, weighted F1, macro-F1, and the worst types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.evaluation.description import COMPARISON, describe_slice, kind_of
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.metrics import METRICS
from backend.evaluation.views.source import load_scored

if TYPE_CHECKING:
    from backend.evaluation.tallies import Tallies
    from backend.evaluation.views.series import Configuration, Reader
    from backend.evaluation.views.source import Labels
    from backend.types import Scope

__all__ = ["AVERAGES", "averages"]

AVERAGES: Final = ("accuracy", "weighted_f1", "macro_f1")
"""From the average that common types carry to the one that counts every type alike."""

_N_WORST: Final = 3
_COLUMNS: Final = [
    "configuration",
    "display_name",
    "is_baseline",
    "timepoint",
    *AVERAGES,
    "worst_type",
    "worst_f1",
    "worst_n_cells",
    "worst_types",
    "n_cells",
    "n_donors",
    "n_types",
    "n_seeds",
]


def averages(store: Reader, scope: Scope) -> pd.DataFrame:
    """Score each model at each timepoint in three ways over the same types, and name the worst.

    The types are those of the comparison's panel, or of each timepoint's description where nothing
    can be compared. A configuration without a complete series and a timepoint without a score have
    no row.

    Returns
    -------
    `configuration`, `display_name`, `is_baseline`, `timepoint`, `accuracy`, `weighted_f1`,
    `macro_f1`, `worst_type`, `worst_f1`, `worst_n_cells`, `worst_types` (up to three pairs of type
    and F1, worst first), `n_cells` and `n_donors` (of the types scored), `n_types`, `n_seeds`.
    """
    scored = load_scored(store, scope)
    labels = scored.labels
    panel = labels.panel(scope)
    rows = []
    for place, timepoint in enumerate(labels.timepoints):
        if kind_of(panel) == COMPARISON:
            types = () if timepoint in panel.skipped else panel.types
        else:
            types = describe_slice(
                labels.counts[place], labels.types, chosen=scope.cell_types
            ).types
        for item in scored.configurations if types else ():
            if item.is_complete:
                tallies = scored.counts.of(item.series, timepoint)
                rows.append(_row(item, timepoint, types, tallies, labels))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _row(
    item: Configuration, timepoint: str, types: tuple[str, ...], tallies: Tallies, labels: Labels
) -> dict[str, Any]:
    mask = tallies.mask(types)
    counts = tallies.pooled()
    f1 = f1_by_class(*counts)[..., mask].mean(axis=0)
    names = np.asarray(tallies.types, dtype=object)[mask]
    order = np.lexsort((names.astype(str), f1))
    support = labels.counts[labels.timepoints.index(timepoint)][:, np.isin(labels.types, types)]
    worst = names[order[0]]
    return {
        "configuration": item.key,
        "display_name": item.display_name,
        "is_baseline": item.preset is None,
        "timepoint": timepoint,
        **{key: float(METRICS[key].function(*counts, panel=mask).mean(axis=0)) for key in AVERAGES},
        "worst_type": worst,
        "worst_f1": float(f1[order[0]]),
        "worst_n_cells": int(counts[1][0][tallies.types.index(worst)]),
        "worst_types": tuple((str(names[i]), float(f1[i])) for i in order[:_N_WORST]),
        "n_cells": int(support.sum()),
        "n_donors": int((support.sum(axis=1) > 0).sum()),
        "n_types": len(types),
        "n_seeds": len(item.series),
    }
