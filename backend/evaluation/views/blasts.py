"""Blasts: are leukaemic cells called normal, and normal cells leukaemic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.labels import is_malignant_label, to_lineage
from backend.evaluation.intervals import Estimate, jackknife, leave_one_out
from backend.evaluation.metrics import MALIGNANCY_METRICS
from backend.evaluation.views.series import (
    Configuration,
    Reader,
    configurations_in,
    rows_of_series,
    trained_at,
)
from backend.evaluation.views.source import (
    NO_DONOR,
    NO_TIMEPOINT,
    Counts,
    Labels,
    load_labels,
)
from backend.evaluation.views.timepoints import INTERVAL_COLUMNS, interval_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.evaluation.tallies import Tallies
    from backend.types import Scope

__all__ = ["CALLED", "Blasts", "blasts"]

_SIDES: Final = ("malignant", "normal")
CALLED: Final = (
    "the same malignant state",
    "another malignant state",
    "its normal counterpart",
    "another normal type",
)
"""What a malignant cell can be called, from right to worst."""

_RATES: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "metric",
    "value",
    *INTERVAL_COLUMNS,
    "n_cells",
    "n_donors",
    "top_donor_share",
    "n_seeds",
    "status_text",
]
_DONORS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "donor",
    "metric",
    "value",
    "n_cells",
    "n_types",
]
_SHARES: Final = [
    "configuration",
    "display_name",
    "donor",
    "timepoint",
    "labelled_share",
    "predicted_share",
    "difference",
    "n_malignant",
    "n_cells",
]
_STATES: Final = [
    "configuration",
    "display_name",
    "label",
    "called",
    "predicted",
    "share",
    "n_cells",
    "n_label",
    "n_donors",
    "top_donor_share",
    "n_label_donors",
    "label_top_donor_share",
]
_MUTANTS: Final = [
    "configuration",
    "display_name",
    "timepoint",
    "labelled_share",
    "predicted_share",
    "n_cells",
    "n_donors",
    "top_donor_share",
]


@dataclass(frozen=True, eq=False)
class Blasts:
    """Malignant against normal, from labels at level fine.

    Parameters
    ----------
    malignant
        Malignant types that the dataset labels; empty: the question has no answer here.
    rates
        Sensitivity and specificity by model and timepoint, with the donors that carry them:
        `metric` is a key of `MALIGNANCY_METRICS`, `n_cells` and `n_donors` are of the malignant
        (normal) labelled cells, `top_donor_share` is the largest donor's share of them.
    donors
        The same donor by donor, seeds averaged.
    shares
        Labelled and predicted malignant share of the labelled cells of a donor at a timepoint;
        healthy donors are left out, because some of their samples are sorted.
    states
        What each malignant state is called: `share` of its `n_label` cells, `called` is one of
        `CALLED`, `n_donors` and `top_donor_share` are of the cells so called, `n_label_donors` and
        `label_top_donor_share` of all cells of the state. Over all timepoints.
    mutants
        Labelled cells in which a mutant transcript was seen, the check that needs no label: share
        labelled and share called malignant.
    missing
        Timepoints without cells.
    cautions
        What stands beside every score on these labels.
    """

    malignant: tuple[str, ...]
    rates: pd.DataFrame
    donors: pd.DataFrame
    shares: pd.DataFrame
    states: pd.DataFrame
    mutants: pd.DataFrame
    missing: tuple[str, ...]
    cautions: tuple[str, ...]


def blasts(store: Reader, scope: Scope) -> Blasts:
    """Compare labelled with predicted malignancy, for each model trained at level fine.

    A malignant state is a label `X-like`. A cell that is called another malignant state than it is
    labelled counts as found, because the question is whether leukaemia is seen. Seeds are averaged;
    a configuration without a complete series has its status and no score.
    """
    chosen = tuple(trained_at(name, "fine") for name in scope.configurations)
    fine = scope.with_(label_level="fine", cell_types=(), configurations=chosen)
    labels = load_labels(store, fine)
    malignant = tuple(name for name in labels.types if is_malignant_label(name))
    configurations = configurations_in(store, fine) if malignant else []
    rows = _rows(store, fine, configurations, labels)
    counts = _counts(rows, configurations, labels)
    rates, donors = [], []
    for item in configurations:
        for timepoint in labels.timepoints:
            tallies = counts.of(item.series, timepoint) if item.is_complete else None
            for key in MALIGNANCY_METRICS:
                rates.append(_rate(item, timepoint, key, tallies, labels))
                if tallies is not None:
                    donors += _donor_rates(item, timepoint, key, tallies)
    return Blasts(
        malignant=malignant,
        rates=_frame([row for row in rates if row["n_cells"] > 0], _RATES),
        donors=_frame(donors, _DONORS),
        shares=_shares(rows, configurations),
        states=_states(rows, configurations),
        mutants=_mutants(rows, configurations, labels.timepoints),
        missing=labels.missing,
        cautions=labels.cautions,
    )


def _frame(rows: Sequence[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


def _rows(
    store: Reader, scope: Scope, configurations: Sequence[Configuration], labels: Labels
) -> pd.DataFrame:
    """Return confusion counts of all complete series, with `configuration` and both sides' kind."""
    owner = {name: item.key for item in configurations for name in item.series}
    rows = rows_of_series(store, "confusion_slices", scope, owner)
    rows = rows.assign(
        donor=rows["donor"].fillna(NO_DONOR), configuration=rows["series_id"].map(owner)
    )
    # As with every score: where some cells have a timepoint, those without are left out.
    if labels.timepoints == (NO_TIMEPOINT,):
        rows = rows.assign(timepoint=NO_TIMEPOINT)
    else:
        rows = rows[rows["timepoint"].isin(labels.timepoints)]
    for name in ("label", "predicted"):
        kinds = {word: is_malignant_label(word) for word in rows[name].unique()}
        rows[f"is_{name}_malignant"] = rows[name].map(kinds).astype(bool)
    return rows


def _counts(rows: pd.DataFrame, configurations: Sequence[Configuration], labels: Labels) -> Counts:
    """Return the counts of both sides as if they were two types."""
    series = tuple(name for item in configurations for name in item.series)
    axes = (series, labels.timepoints, labels.donors)
    places = [
        pd.Index(axis).get_indexer(rows[name])
        for axis, name in zip(axes, ("series_id", "timepoint", "donor"), strict=True)
    ]
    table = np.zeros((*map(len, axes), 2, 2), dtype=np.int64)
    sides = [
        1 - rows[f"is_{name}_malignant"].to_numpy(dtype=np.int64) for name in ("label", "predicted")
    ]
    np.add.at(table, (*places, *sides), rows["n"].to_numpy(dtype=np.int64))
    hits = np.diagonal(table, axis1=-2, axis2=-1).copy()
    return Counts(*axes, _SIDES, hits, table.sum(axis=-1), table.sum(axis=-2))


def _side(key: str, tallies: Tallies) -> tuple[np.ndarray, Tallies]:
    """Return the mask of the side that a rate is over, and the counts of donors that have it."""
    side = "malignant" if key == "sensitivity" else "normal"
    mask = tallies.mask((side,))
    leading = tuple(range(tallies.n_label.ndim - 2))
    return mask, tallies.with_donors(tallies.n_label[..., mask].sum(axis=(*leading, -1)) > 0)


def _rate(
    item: Configuration, timepoint: str, key: str, tallies: Tallies | None, labels: Labels
) -> dict[str, Any]:
    metric = MALIGNANCY_METRICS[key]
    is_side = np.array([is_malignant_label(name) for name in labels.types]) == (
        key == "sensitivity"
    )
    support = labels.counts[labels.timepoints.index(timepoint)][:, is_side].sum(axis=1)
    n_cells, n_donors = int(support.sum()), int((support > 0).sum())
    if tallies is None:
        reason = f"{item.status_text}: no headline number"
        estimate = Estimate(np.nan, np.nan, np.nan, "none", n_donors, reason)
    else:
        mask, mine = _side(key, tallies)
        sample = leave_one_out(mine, metric.statistic(mask)).mean_over_seeds()
        estimate = jackknife(sample, bounds=metric.range)
    return {
        "configuration": item.key,
        "display_name": item.display_name,
        "timepoint": timepoint,
        "metric": key,
        "value": estimate.value,
        **interval_columns(estimate),
        "n_cells": n_cells,
        "n_donors": n_donors,
        "top_donor_share": support.max(initial=0) / n_cells if n_cells else np.nan,
        "n_seeds": len(item.series),
        "status_text": item.status_text,
    }


def _donor_rates(
    item: Configuration, timepoint: str, key: str, tallies: Tallies
) -> list[dict[str, Any]]:
    mask, mine = _side(key, tallies)
    values = MALIGNANCY_METRICS[key].score(mine.tp, mine.n_label, mine.n_predicted, panel=mask)
    return [
        {
            "configuration": item.key,
            "display_name": item.display_name,
            "timepoint": timepoint,
            "donor": donor,
            "metric": key,
            "value": value,
            "n_cells": int(n),
            "n_types": 1,
        }
        for donor, value, n in zip(
            mine.donors, values.mean(axis=0), mine.n_label[0][:, mask].sum(axis=-1), strict=True
        )
    ]


def _names(configurations: Sequence[Configuration]) -> tuple[dict[str, str], dict[str, int]]:
    return (
        {item.key: item.display_name for item in configurations},
        {item.key: max(len(item.series), 1) for item in configurations},
    )


def _shares(rows: pd.DataFrame, configurations: Sequence[Configuration]) -> pd.DataFrame:
    names, seeds = _names(configurations)
    patients = rows[rows["timepoint"] != "Healthy"]
    weighted = patients.assign(
        n_malignant=patients["n"] * patients["is_label_malignant"],
        n_called=patients["n"] * patients["is_predicted_malignant"],
    )
    table = weighted.groupby(["configuration", "timepoint", "donor"], as_index=False, sort=False)[
        ["n", "n_malignant", "n_called"]
    ].sum()
    divisor = table["configuration"].map(seeds)
    table = table.assign(
        display_name=table["configuration"].map(names),
        labelled_share=table["n_malignant"] / table["n"],
        predicted_share=table["n_called"] / table["n"],
        n_malignant=table["n_malignant"] // divisor,
        n_cells=table["n"] // divisor,
    )
    table["difference"] = table["predicted_share"] - table["labelled_share"]
    return table[_SHARES].reset_index(drop=True)


def _called(label: str, predicted: str) -> str:
    if label == predicted:
        return CALLED[0]
    if is_malignant_label(predicted):
        return CALLED[1]
    return CALLED[2] if to_lineage(label) == predicted else CALLED[3]


def _states(rows: pd.DataFrame, configurations: Sequence[Configuration]) -> pd.DataFrame:
    names, seeds = _names(configurations)
    mine = rows[rows["is_label_malignant"]]
    cells = ["configuration", "label", "predicted"]
    by_donor = mine.groupby([*cells, "donor"], as_index=False, sort=False)["n"].sum()
    by_pair = by_donor.groupby(cells, as_index=False, sort=False).agg(
        n=("n", "sum"), n_donors=("donor", "nunique"), largest=("n", "max")
    )
    n_label = by_pair.groupby(["configuration", "label"])["n"].transform("sum")
    of_label = by_donor.groupby(["configuration", "label", "donor"])["n"].sum()
    largest = of_label.groupby(level=[0, 1]).max()
    label_donors = of_label.groupby(level=[0, 1]).size()
    key = pd.MultiIndex.from_frame(by_pair[["configuration", "label"]])
    divisor = by_pair["configuration"].map(seeds)
    table = by_pair.assign(
        display_name=by_pair["configuration"].map(names),
        called=[
            _called(label, predicted)
            for label, predicted in zip(by_pair["label"], by_pair["predicted"], strict=True)
        ],
        share=by_pair["n"] / n_label,
        n_cells=by_pair["n"] / divisor,
        n_label=n_label // divisor,
        top_donor_share=by_pair["largest"] / by_pair["n"],
        n_label_donors=label_donors.reindex(key).to_numpy(),
        label_top_donor_share=largest.reindex(key).to_numpy() / n_label.to_numpy(),
    )
    return table.sort_values(
        ["configuration", "label", "share"], ascending=[True, True, False], ignore_index=True
    )[_STATES]


def _mutants(
    rows: pd.DataFrame, configurations: Sequence[Configuration], timepoints: Sequence[str]
) -> pd.DataFrame:
    names, seeds = _names(configurations)
    mine = rows[rows["is_mutant"].astype(bool)]
    weighted = mine.assign(
        n_labelled=mine["n"] * mine["is_label_malignant"],
        n_called=mine["n"] * mine["is_predicted_malignant"],
    )
    slices = ["configuration", "timepoint"]
    by_donor = weighted.groupby([*slices, "donor"], as_index=False, sort=False)[
        ["n", "n_labelled", "n_called"]
    ].sum()
    table = by_donor.groupby(slices, as_index=False, sort=False).agg(
        n=("n", "sum"),
        n_labelled=("n_labelled", "sum"),
        n_called=("n_called", "sum"),
        n_donors=("donor", "nunique"),
        largest=("n", "max"),
    )
    table = table.assign(
        display_name=table["configuration"].map(names),
        labelled_share=table["n_labelled"] / table["n"],
        predicted_share=table["n_called"] / table["n"],
        n_cells=table["n"] // table["configuration"].map(seeds),
        top_donor_share=table["largest"] / table["n"],
    )
    order = {name: index for index, name in enumerate(timepoints)}
    return table.sort_values(
        ["configuration", "timepoint"],
        key=lambda column: column.map(order) if column.name == "timepoint" else column,
        ignore_index=True,
    )[_MUTANTS]
