"""Donors: is it one patient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.evaluation.description import is_grey, kind_of, scores_of_donors
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.metrics import DEFAULT, metric_named
from backend.evaluation.views.results import DonorScores
from backend.evaluation.views.series import Reader, one_configuration, rows_of_series
from backend.evaluation.views.source import NO_DONOR, NO_TIMEPOINT, load_scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.evaluation.metrics import Metric
    from backend.evaluation.panel import Panel
    from backend.evaluation.tallies import Tallies
    from backend.types import Scope

__all__ = ["joined", "scores_by_donor", "totals_of_donors"]

_SCORES: Final = ["donor", "timepoint", "cell_type", "f1", "n_cells", "is_small"]
_TOTALS: Final = ["donor", "timepoint", "metric", "value", "n_types", "n_cells"]
_COMPOSITION: Final = [
    "donor",
    "timepoint",
    "cell_type",
    "labelled_share",
    "predicted_share",
    "difference",
    "n_cells",
]


def scores_by_donor(
    store: Reader, scope: Scope, configuration: str, *, metric: str = DEFAULT
) -> DonorScores:
    """Score one configuration donor by donor, and compare predicted with labelled composition.

    A donor seen at several timepoints has one row for each. Seeds are averaged. Composition is
    over each donor's labelled cells without sorted fractions, whose shares are the sorter's.
    """
    scored_with = metric_named(metric)
    chosen = one_configuration(store, scope, configuration)
    scored = load_scored(store, scope, [chosen])
    labels, counts = scored.labels, scored.counts
    panel = labels.panel(scope)
    scores, totals = [], []
    for timepoint in labels.timepoints if chosen.is_complete else ():
        tallies = counts.of(chosen.series, timepoint)
        scores.append(_types_of_donors(tallies, timepoint, scope.cell_types))
        totals.append(totals_of_donors(tallies, timepoint, panel, scored_with, scope))
    return DonorScores(
        configuration=chosen.key,
        display_name=chosen.display_name,
        status_text=chosen.status_text,
        scores=joined(scores, _SCORES),
        totals=joined(totals, _TOTALS),
        composition=_composition(store, scope, chosen.series),
        panel=panel,
        kind=kind_of(panel),
        cautions=labels.cautions,
    )


def joined(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Return tables below one another, or an empty one."""
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


def _types_of_donors(tallies: Tallies, timepoint: str, types: Sequence[str]) -> pd.DataFrame:
    f1 = f1_by_class(tallies.tp, tallies.n_label, tallies.n_predicted).mean(axis=0)
    n_cells = tallies.n_label[0]
    rows, columns = np.nonzero(n_cells)
    table = pd.DataFrame(
        {
            "donor": np.asarray(tallies.donors, dtype=object)[rows],
            "timepoint": timepoint,
            "cell_type": np.asarray(tallies.types, dtype=object)[columns],
            "f1": f1[rows, columns],
            "n_cells": n_cells[rows, columns],
            "is_small": is_grey(n_cells[rows, columns]),
        }
    )
    return table[table["cell_type"].isin(types)] if types else table


def totals_of_donors(
    tallies: Tallies, timepoint: str, panel: Panel, metric: Metric, scope: Scope
) -> pd.DataFrame:
    """Return the score of each donor, seeds averaged, with its types and its labelled cells."""
    values, n_types = scores_of_donors(tallies, panel, metric, chosen=scope.cell_types)
    return pd.DataFrame(
        {
            "donor": list(tallies.donors),
            "timepoint": timepoint,
            "metric": metric.key,
            "value": values.mean(axis=0),
            "n_types": n_types[0],
            "n_cells": tallies.n_label[0].sum(axis=-1),
        }
    )


def _composition(store: Reader, scope: Scope, series: Sequence[str]) -> pd.DataFrame:
    if not series:
        return pd.DataFrame(columns=_COMPOSITION)
    samples = rows_of_series(store, "sample_tallies", scope, series)
    slices = ["series_id", "donor", "timepoint"]
    rows = (
        samples.assign(
            timepoint=samples["timepoint"].fillna(NO_TIMEPOINT),
            donor=samples["donor"].fillna(NO_DONOR),
        )
        .groupby([*slices, "cell_type"], as_index=False)[["n_label", "n_predicted"]]
        .sum()
    )
    n_cells = rows.groupby(slices)["n_label"].transform("sum")
    rows = rows.assign(
        n_cells=n_cells,
        labelled_share=rows["n_label"] / n_cells,
        predicted_share=rows["n_predicted"] / n_cells,
    )
    # A type that one seed never predicts has no row there: its share is 0, so divide by all seeds.
    shares = rows.groupby(["donor", "timepoint", "cell_type"], as_index=False).agg(
        labelled_share=("labelled_share", "sum"),
        predicted_share=("predicted_share", "sum"),
        n_cells=("n_cells", "max"),
    )
    shares[["labelled_share", "predicted_share"]] /= len(series)
    shares["difference"] = shares["predicted_share"] - shares["labelled_share"]
    if scope.cell_types:
        shares = shares[shares["cell_type"].isin(scope.cell_types)]
    return shares.reset_index(drop=True)[_COMPOSITION]
