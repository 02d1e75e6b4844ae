"""The same patient before and after: single donors followed over their samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.evaluation.description import is_grey
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.intervals import leave_one_out, paired_difference
from backend.evaluation.metrics import DEFAULT, metric_named
from backend.evaluation.tallies import Tallies
from backend.evaluation.views.donors import joined, totals_of_donors
from backend.evaluation.views.series import Reader, one_configuration, rows_of_series
from backend.evaluation.views.source import NO_TIMEPOINT, Scored, load_scored
from backend.evaluation.views.timepoints import INTERVAL_COLUMNS, interval_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.evaluation.metrics import Metric
    from backend.evaluation.panel import Panel
    from backend.types import Scope

__all__ = ["PatientCourses", "patient_courses"]

_BY_TIMEPOINT: Final = ["donor", "timepoint", "metric", "value", "n_cells", "n_types"]
_BY_SAMPLE: Final = ["donor", "sample", "timepoint", "day", *_BY_TIMEPOINT[2:]]
_CHANGES: Final = [
    "timepoint",
    "reference",
    "metric",
    "before",
    "after",
    "difference",
    *INTERVAL_COLUMNS,
    "n_donors",
    "n_types",
    "n_cells",
]
_BY_TYPE: Final = [
    "cell_type",
    "timepoint",
    "reference",
    "before",
    "after",
    "difference",
    *INTERVAL_COLUMNS,
    "n_donors",
    "n_cells_before",
    "n_cells",
    "top_donor_share",
]


@dataclass(frozen=True, eq=False)
class PatientCourses:
    """Donors with cells at more than one timepoint, under one model.

    Parameters
    ----------
    by_timepoint
        `donor`, `timepoint`, `metric`, `value`, `n_cells`, `n_types`: a donor's samples of a
        timepoint pooled.
    by_sample
        The same for each sample, with `sample` and `day`.
    changes
        A later timepoint against an earlier one over the donors of both: `difference` with its
        jackknife interval, over the types that have enough labelled cells at both.
    by_type
        The same for the F1 of each of those types; `top_donor_share` is of the later cells.
    """

    by_timepoint: pd.DataFrame
    by_sample: pd.DataFrame
    changes: pd.DataFrame
    by_type: pd.DataFrame

    @property
    def n_donors(self) -> int:
        """Number of donors with cells at more than one timepoint."""
        return int(self.by_timepoint["donor"].nunique())


def patient_courses(
    store: Reader, scope: Scope, configuration: str, *, metric: str = DEFAULT
) -> PatientCourses:
    """Follow single donors along the course, and pair timepoints over the donors that share them.

    A healthy donor is nobody's "before", so the timepoint Healthy is left out. Seeds are averaged.
    """
    chosen = metric_named(metric)
    item = one_configuration(store, scope, configuration)
    scored = load_scored(store, scope, [item])
    timepoints = [
        name for name in scored.labels.timepoints if name not in ("Healthy", NO_TIMEPOINT)
    ]
    panel = scored.labels.panel(scope)
    parts = {name: scored.counts.of(item.series, name) for name in timepoints if item.is_complete}
    seen = [donor for part in parts.values() for donor in part.donors]
    followed = {donor for donor in seen if seen.count(donor) > 1}
    totals = [
        totals_of_donors(_of(part, followed), name, panel, chosen, scope)
        for name, part in parts.items()
    ]
    changes, by_type = [], []
    for place, later in enumerate(parts):
        for earlier in list(parts)[:place]:
            shared = set(parts[earlier].donors) & set(parts[later].donors)
            if shared:
                both = (_of(parts[earlier], shared), _of(parts[later], shared))
                changes += _change(both, (earlier, later), chosen, scope)
                by_type += _change_by_type(both, (earlier, later), scope)
    return PatientCourses(
        by_timepoint=joined(totals, _BY_TIMEPOINT),
        by_sample=_samples(store, scope, scored, item.series, followed, panel, chosen),
        changes=pd.DataFrame(changes, columns=_CHANGES),
        by_type=pd.DataFrame(by_type, columns=_BY_TYPE),
    )


def _of(tallies: Tallies, donors: set[str]) -> Tallies:
    return tallies.with_donors(np.array([name in donors for name in tallies.donors], dtype=bool))


def _samples(
    store: Reader,
    scope: Scope,
    scored: Scored,
    series: Sequence[str],
    followed: set[str],
    panel: Panel,
    metric: Metric,
) -> pd.DataFrame:
    if not followed:
        return pd.DataFrame(columns=_BY_SAMPLE)
    rows = rows_of_series(store, "sample_tallies", scope, series)
    rows = rows[rows["donor"].isin(followed) & rows["timepoint"].ne("Healthy")]
    samples = rows.drop_duplicates(["donor", "timepoint", "sample", "day"])
    samples = samples[["donor", "timepoint", "sample", "day"]].reset_index(drop=True)
    # A sample's place in the list stands for its name, which is a donor's own.
    keyed = rows.merge(samples.assign(place=samples.index.astype(str)), how="left")
    keyed = keyed.assign(donor=keyed["place"])
    places = tuple(samples.index.astype(str))
    tallies = Tallies.stack(
        [
            Tallies.from_frame(
                keyed[keyed["series_id"] == name], donors=places, types=scored.counts.types
            )
            for name in series
        ]
    )
    totals = totals_of_donors(tallies, "", panel, metric, scope)
    columns = totals[["metric", "value", "n_cells", "n_types"]]
    return pd.concat([samples, columns], axis=1)[_BY_SAMPLE]


def _shared_types(both: tuple[Tallies, Tallies], scope: Scope) -> tuple[str, ...]:
    """Return the types with enough labelled cells on both sides."""
    enough = ~is_grey(both[0].n_label[0].sum(axis=0)) & ~is_grey(both[1].n_label[0].sum(axis=0))
    return tuple(
        name
        for name, kept in zip(both[0].types, enough, strict=True)
        if kept and (not scope.cell_types or name in scope.cell_types)
    )


def _change(
    both: tuple[Tallies, Tallies], names: tuple[str, str], metric: Metric, scope: Scope
) -> list[dict[str, Any]]:
    types = _shared_types(both, scope)
    if not types:
        return []
    # A type can lose its last label with a donor, so the function is asked, not the whole panel.
    mask = both[0].mask(types)
    before, after = (
        leave_one_out(side, lambda *counts: metric.function(*counts, panel=mask)).mean_over_seeds()
        for side in both
    )
    estimate = paired_difference(after, before, bounds=metric.difference_range)
    return [
        {
            "timepoint": names[1],
            "reference": names[0],
            "metric": metric.key,
            "before": float(before.value),
            "after": float(after.value),
            "difference": estimate.value,
            **interval_columns(estimate),
            "n_donors": estimate.n_donors,
            "n_types": len(types),
            "n_cells": int(both[1].n_label[0][:, mask].sum()),
        }
    ]


def _change_by_type(
    both: tuple[Tallies, Tallies], names: tuple[str, str], scope: Scope
) -> list[dict[str, Any]]:
    rows = []
    types = _shared_types(both, scope)
    samples = [leave_one_out(side, f1_by_class).mean_over_seeds() for side in both]
    for name in types:
        place = both[0].types.index(name)
        n_before, n_after = (side.n_label[0][:, place] for side in both)
        # Every donor is deleted, because any can add a wrong prediction; those with the label on
        # both sides decide how much the difference is worth.
        n_donors = int(((n_before > 0) & (n_after > 0)).sum())
        before, after = (sample.at(place) for sample in samples)
        estimate = paired_difference(after, before, n_donors=n_donors)
        rows.append(
            {
                "cell_type": name,
                "timepoint": names[1],
                "reference": names[0],
                "before": float(before.value),
                "after": float(after.value),
                "difference": estimate.value,
                **interval_columns(estimate),
                "n_donors": n_donors,
                "n_cells_before": int(n_before.sum()),
                "n_cells": int(n_after.sum()),
                "top_donor_share": float(n_after.max() / n_after.sum()),
            }
        )
    return sorted(rows, key=lambda row: row["difference"])
