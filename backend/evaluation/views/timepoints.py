"""Timepoints: how each model falls along the clinical course."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.evaluation.description import (
    COMPARISON,
    Description,
    describe_slice,
    description_notes,
    kind_of,
    scores_of_donors,
)
from backend.evaluation.intervals import (
    Estimate,
    LeaveOneOut,
    difference_of_slices,
    jackknife,
    leave_one_out,
    paired_difference,
)
from backend.evaluation.metrics import DEFAULT, metric_named
from backend.evaluation.views.results import ModelDifferences, TimepointScores
from backend.evaluation.views.series import (
    Configuration,
    Reader,
    configurations_in,
    one_configuration,
)
from backend.evaluation.views.source import Counts, Labels, Scored, load_scored

if TYPE_CHECKING:
    from backend.evaluation.metrics import Metric
    from backend.evaluation.panel import Panel
    from backend.evaluation.tallies import Tallies
    from backend.types import Scope

__all__ = [
    "INTERVAL_COLUMNS",
    "interval_columns",
    "model_differences",
    "scores_by_timepoint",
    "timepoint_scores",
]

INTERVAL_COLUMNS: Final = ("low", "high", "interval", "reason")

_SCORE_COLUMNS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "metric",
    "value",
    *INTERVAL_COLUMNS,
    "n_cells",
    "n_donors",
    "n_types_scored",
    "n_types",
    "n_seeds",
    "label_source",
    "status_text",
    "convergence",
]
_DONOR_COLUMNS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "donor",
    "seed",
    "metric",
    "value",
    "n_cells",
    "n_types",
]
_DIFFERENCE_COLUMNS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "reference",
    "metric",
    "difference",
    *INTERVAL_COLUMNS,
    "n_donors",
]


def interval_columns(estimate: Estimate) -> dict[str, Any]:
    """Return `low`, `high`, `interval` and `reason` of an estimate."""
    return {name: getattr(estimate, name) for name in INTERVAL_COLUMNS}


def scores_by_timepoint(store: Reader, scope: Scope, *, metric: str = DEFAULT) -> TimepointScores:
    """Score each configuration at each timepoint: on one panel, or each timepoint by itself.

    A timepoint with fewer than three donors does not set the panel and gets donor dots only. Where
    no type can be compared, every timepoint is described over its own types instead, without
    differences. A timepoint without cells is listed as missing. A configuration without a complete series has
    its status and no score.
    """
    chosen = metric_named(metric)
    return timepoint_scores(load_scored(store, scope), scope, chosen)


def timepoint_scores(scored: Scored, scope: Scope, metric: Metric) -> TimepointScores:
    """Score what is already loaded; see `scores_by_timepoint`."""
    labels = scored.labels
    panel = labels.panel(scope)
    descriptions = {} if kind_of(panel) == COMPARISON else _descriptions(labels, scope)
    slices = [
        _slice(scored.counts, timepoint, panel, descriptions.get(timepoint), metric, scope)
        for timepoint in labels.timepoints
    ]
    scores: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for configuration in scored.configurations:
        samples: dict[str, LeaveOneOut] = {}
        for one in slices:
            sample = one.of(configuration)
            scores.append(_row(configuration, one, sample, labels, metric))
            if sample is not None and one.description is None:
                samples[one.timepoint] = sample
        differences += _against_first(configuration, samples, metric)
    return TimepointScores(
        scores=pd.DataFrame(scores, columns=_SCORE_COLUMNS),
        donors=_dots(scored, slices, metric),
        differences=pd.DataFrame(differences, columns=_DIFFERENCE_COLUMNS),
        panel=panel,
        kind=kind_of(panel),
        descriptions=descriptions,
        missing=labels.missing,
        notes=(*labels.notes(panel), *description_notes(descriptions)),
        cautions=labels.cautions,
    )


def _descriptions(labels: Labels, scope: Scope) -> dict[str, Description]:
    return {
        timepoint: describe_slice(support, labels.types, chosen=scope.cell_types)
        for timepoint, support in zip(labels.timepoints, labels.counts, strict=True)
    }


@dataclass(frozen=True, eq=False)
class _Slice:
    """All complete series at one timepoint: (series, donors, types) and what follows from them.

    `description` is None where the timepoint is part of a comparison; `sample` is None where it has
    no score, for the reason `reason`.
    """

    timepoint: str
    tallies: Tallies
    place: dict[str, int]
    description: Description | None
    sample: LeaveOneOut | None
    reason: str
    n_scored: int
    n_types: int
    dots: np.ndarray
    dot_types: np.ndarray

    def of(self, configuration: Configuration) -> LeaveOneOut | None:
        """Return the sample of one configuration, its seeds averaged."""
        if self.sample is None or not configuration.is_complete:
            return None
        rows = [self.place[name] for name in configuration.series]
        chosen = LeaveOneOut(
            self.sample.donors, self.sample.value[rows], self.sample.deleted[:, rows]
        )
        return chosen.mean_over_seeds()


def _slice(
    counts: Counts,
    timepoint: str,
    panel: Panel,
    description: Description | None,
    metric: Metric,
    scope: Scope,
) -> _Slice:
    tallies = counts.of(counts.series, timepoint)
    if description is None:
        types, reason = panel.types, panel.skipped.get(timepoint, "")
    else:
        types, reason = description.types, description.reason
    mask = tallies.mask(types)
    is_scored = bool(types) and not reason and len(counts.series) > 0
    dots, dot_types = scores_of_donors(tallies, panel, metric, chosen=scope.cell_types)
    return _Slice(
        timepoint=timepoint,
        tallies=tallies,
        place={name: index for index, name in enumerate(counts.series)},
        description=description,
        sample=leave_one_out(tallies, metric.statistic(mask)) if is_scored else None,
        reason=reason,
        n_scored=int((tallies.pooled()[1][0, mask] > 0).sum()) if is_scored else 0,
        n_types=panel.n_types if description is None else description.n_types,
        dots=dots,
        dot_types=dot_types,
    )


def _row(
    configuration: Configuration,
    one: _Slice,
    sample: LeaveOneOut | None,
    labels: Labels,
    metric: Metric,
) -> dict[str, Any]:
    support = labels.counts[labels.timepoints.index(one.timepoint)]
    n_donors = int((support.sum(axis=1) > 0).sum())
    if sample is not None:
        estimate = jackknife(sample, bounds=metric.range)
    else:
        is_open = not configuration.is_complete
        reason = f"{configuration.status_text}: no headline number" if is_open else one.reason
        estimate = Estimate(np.nan, np.nan, np.nan, "none", n_donors, reason)
    return {
        "configuration": configuration.key,
        "display_name": configuration.display_name,
        "timepoint": one.timepoint,
        "metric": metric.key,
        "value": estimate.value,
        **interval_columns(estimate),
        "n_cells": int(support.sum()),
        "n_donors": n_donors,
        "n_types_scored": one.n_scored if sample is not None else 0,
        "n_types": one.n_types,
        "n_seeds": len(configuration.series),
        "label_source": " and ".join(labels.sources[one.timepoint]),
        "status_text": configuration.status_text,
        "convergence": configuration.convergence,
    }


def _dots(scored: Scored, slices: list[_Slice], metric: Metric) -> pd.DataFrame:
    """Return one row per configuration, timepoint, seed and donor."""
    owners = [
        (item.key, item.display_name, seed, name)
        for item in scored.configurations
        for name, seed in zip(item.series, item.seeds, strict=True)
    ]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _DONOR_COLUMNS}
    for key, display_name, seed, series in owners:
        for one in slices:
            index, n = one.place[series], len(one.tallies.donors)
            values = (
                np.full(n, key, dtype=object),
                np.full(n, display_name, dtype=object),
                np.full(n, one.timepoint, dtype=object),
                np.asarray(one.tallies.donors, dtype=object),
                np.full(n, seed),
                np.full(n, metric.key, dtype=object),
                one.dots[index],
                one.tallies.n_label[index].sum(axis=-1),
                one.dot_types[index],
            )
            for name, value in zip(_DONOR_COLUMNS, values, strict=True):
                parts[name].append(value)
    if not any(parts.values()):
        return pd.DataFrame(columns=_DONOR_COLUMNS)
    return pd.DataFrame({name: np.concatenate(values) for name, values in parts.items()})


def _against_first(
    configuration: Configuration, samples: dict[str, LeaveOneOut], metric: Metric
) -> list[dict[str, Any]]:
    if not samples:
        return []
    (reference, first), *later = samples.items()
    rows = []
    for timepoint, sample in later:
        difference = difference_of_slices(
            sample, first, names=(timepoint, reference), bounds=metric.difference_range
        )
        rows.append(
            {
                "configuration": configuration.key,
                "display_name": configuration.display_name,
                "timepoint": timepoint,
                "reference": reference,
                "metric": metric.key,
                "difference": difference.value,
                **interval_columns(difference),
                "n_donors": difference.n_donors,
            }
        )
    return rows


def model_differences(
    store: Reader, scope: Scope, reference: str, *, metric: str = DEFAULT
) -> ModelDifferences:
    """Compare each configuration with a named one on the same donors, at each timepoint.

    The reference is the caller's choice and never the best model on these cells.
    """
    chosen = metric_named(metric)
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
                statistic = chosen.statistic(tallies.mask(panel.types))
                samples.append(leave_one_out(tallies, statistic).mean_over_seeds())
            difference = paired_difference(*samples, bounds=chosen.difference_range)
            rows.append(
                {
                    "configuration": item.key,
                    "display_name": item.display_name,
                    "reference": reference,
                    "timepoint": timepoint,
                    "metric": chosen.key,
                    "difference": difference.value,
                    **interval_columns(difference),
                    "n_donors": difference.n_donors,
                }
            )
    columns = [*_DIFFERENCE_COLUMNS[:2], "reference", "timepoint", *_DIFFERENCE_COLUMNS[4:]]
    return ModelDifferences(reference, pd.DataFrame(rows, columns=columns), panel)
