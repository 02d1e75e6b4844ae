"""Timepoints: how each model falls along the clinical course."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.evaluation.f1 import f1_by_class, macro_f1, mean_f1_of_present
from backend.evaluation.intervals import (
    Estimate,
    LeaveOneOut,
    difference_of_slices,
    jackknife,
    leave_one_out,
    paired_difference,
)
from backend.evaluation.views.results import ModelDifferences, TimepointScores
from backend.evaluation.views.series import (
    Configuration,
    Reader,
    configurations_in,
    one_configuration,
)
from backend.evaluation.views.source import Counts, Labels, Scored, load_scored

if TYPE_CHECKING:
    from backend.evaluation.panel import Panel
    from backend.evaluation.tallies import Tallies
    from backend.types import Scope

__all__ = ["f1_by_timepoint", "interval_columns", "model_differences", "timepoint_scores"]

SCORE_COLUMNS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "macro_f1",
    "low",
    "high",
    "interval",
    "reason",
    "n_cells",
    "n_donors",
    "n_types_scored",
    "n_types",
    "n_seeds",
    "label_source",
    "status_text",
]
_DONOR_COLUMNS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "donor",
    "seed",
    "macro_f1",
    "n_cells",
    "n_types",
]
_DIFFERENCE_COLUMNS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "reference",
    "difference",
    "low",
    "high",
    "interval",
    "reason",
    "n_donors",
]


def interval_columns(estimate: Estimate) -> dict[str, Any]:
    """Return `low`, `high`, `interval` and `reason` of an estimate."""
    return {
        "low": estimate.low,
        "high": estimate.high,
        "interval": estimate.interval,
        "reason": estimate.reason,
    }


def f1_by_timepoint(store: Reader, scope: Scope) -> TimepointScores:
    """Score each configuration at each timepoint on one panel.

    A timepoint with fewer than three donors does not set the panel and gets donor dots only; a
    timepoint without cells is listed as missing. A configuration without a complete series has
    its status and no score.
    """
    return timepoint_scores(load_scored(store, scope), scope)


def timepoint_scores(scored: Scored, scope: Scope) -> TimepointScores:
    """Score what is already loaded; see `f1_by_timepoint`."""
    labels, counts = scored.labels, scored.counts
    panel = labels.panel(scope)
    scores: list[dict[str, Any]] = []
    donors: list[pd.DataFrame] = []
    differences: list[dict[str, Any]] = []
    for configuration in scored.configurations:
        samples: dict[str, LeaveOneOut] = {}
        for timepoint in labels.timepoints:
            row, sample = _score(configuration, timepoint, counts, labels, panel)
            scores.append(row)
            if sample is not None:
                samples[timepoint] = sample
            if configuration.is_complete:
                tallies = counts.of(configuration.series, timepoint)
                donors.append(_dots(configuration, timepoint, tallies, panel))
        differences += _against_first(configuration, samples)
    return TimepointScores(
        scores=pd.DataFrame(scores, columns=SCORE_COLUMNS),
        donors=pd.concat(donors, ignore_index=True)
        if donors
        else pd.DataFrame(columns=_DONOR_COLUMNS),
        differences=pd.DataFrame(differences, columns=_DIFFERENCE_COLUMNS),
        panel=panel,
        missing=labels.missing,
        notes=labels.notes(panel),
        cautions=labels.cautions,
    )


def _score(
    configuration: Configuration, timepoint: str, counts: Counts, labels: Labels, panel: Panel
) -> tuple[dict[str, Any], LeaveOneOut | None]:
    support = labels.counts[labels.timepoints.index(timepoint)]
    n_donors = int((support.sum(axis=1) > 0).sum())
    sample, n_scored = None, 0

    def nothing(reason: str) -> Estimate:
        return Estimate(np.nan, np.nan, np.nan, "none", n_donors, reason)

    if not configuration.is_complete:
        estimate = nothing(f"{configuration.status_text}: no headline number")
    elif not panel.types:
        estimate = nothing("no type can be compared")
    elif timepoint in panel.skipped:
        estimate = nothing(panel.skipped[timepoint])
    else:
        tallies = counts.of(configuration.series, timepoint)
        mask = tallies.mask(panel.types)
        sample = leave_one_out(tallies, partial(macro_f1, panel=mask)).mean_over_seeds()
        estimate = jackknife(sample)
        n_scored = int((~np.isnan(f1_by_class(*tallies.pooled())[0, mask])).sum())
    row = {
        "configuration": configuration.key,
        "display_name": configuration.display_name,
        "timepoint": timepoint,
        "macro_f1": estimate.value,
        **interval_columns(estimate),
        "n_cells": int(support.sum()),
        "n_donors": n_donors,
        "n_types_scored": n_scored,
        "n_types": panel.n_types,
        "n_seeds": len(configuration.series),
        "label_source": " and ".join(labels.sources[timepoint]),
        "status_text": configuration.status_text,
    }
    return row, sample


def _dots(
    configuration: Configuration, timepoint: str, tallies: Tallies, panel: Panel
) -> pd.DataFrame:
    mask = tallies.mask(panel.types)
    score, n_types = mean_f1_of_present(
        tallies.tp, tallies.n_label, tallies.n_predicted, panel=mask
    )
    n_seeds, n_donors = score.shape
    return pd.DataFrame(
        {
            "configuration": configuration.key,
            "display_name": configuration.display_name,
            "timepoint": timepoint,
            "donor": list(tallies.donors) * n_seeds,
            "seed": np.repeat(configuration.seeds, n_donors),
            "macro_f1": score.ravel(),
            "n_cells": tallies.n_label.sum(axis=-1).ravel(),
            "n_types": n_types.ravel(),
        }
    )


def _against_first(
    configuration: Configuration, samples: dict[str, LeaveOneOut]
) -> list[dict[str, Any]]:
    if not samples:
        return []
    (reference, first), *later = samples.items()
    rows = []
    for timepoint, sample in later:
        difference = difference_of_slices(sample, first, names=(timepoint, reference))
        rows.append(
            {
                "configuration": configuration.key,
                "display_name": configuration.display_name,
                "timepoint": timepoint,
                "reference": reference,
                "difference": difference.value,
                **interval_columns(difference),
                "n_donors": difference.n_donors,
            }
        )
    return rows


def model_differences(store: Reader, scope: Scope, reference: str) -> ModelDifferences:
    """Compare each configuration with a named one on the same donors, at each timepoint.

    The reference is the caller's choice and never the best model on these cells.
    """
    base = one_configuration(store, scope, reference)
    others = [item for item in configurations_in(store, scope) if item.key != reference]
    complete = [item for item in others if item.is_complete and base.is_complete]
    scored = load_scored(store, scope, [base, *complete])
    counts, panel = scored.counts, scored.labels.panel(scope)
    rows = []
    for item in complete:
        for timepoint in panel.slices if panel.types else ():
            samples = []
            for one in (item, base):
                tallies = counts.of(one.series, timepoint)
                statistic = partial(macro_f1, panel=tallies.mask(panel.types))
                samples.append(leave_one_out(tallies, statistic).mean_over_seeds())
            difference = paired_difference(samples[0], samples[1])
            rows.append(
                {
                    "configuration": item.key,
                    "display_name": item.display_name,
                    "reference": reference,
                    "timepoint": timepoint,
                    "difference": difference.value,
                    **interval_columns(difference),
                    "n_donors": difference.n_donors,
                }
            )
    columns = [*_DIFFERENCE_COLUMNS[:2], "reference", "timepoint", *_DIFFERENCE_COLUMNS[4:]]
    return ModelDifferences(reference, pd.DataFrame(rows, columns=columns), panel)
