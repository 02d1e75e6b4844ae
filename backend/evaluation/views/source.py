"""From the store to arrays: the labels of a scope, and the counts of its series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.labels import is_malignant_label
from backend.errors import InputError
from backend.evaluation.panel import Panel, make_panel
from backend.evaluation.tallies import Tallies
from backend.evaluation.views.series import Configuration, Reader, configurations_in
from backend.evaluation.wording import cautions
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backend.types import Scope

__all__ = [
    "NO_DONOR",
    "NO_TIMEPOINT",
    "Counts",
    "Labels",
    "Scored",
    "in_clinical_order",
    "load_counts",
    "load_labels",
    "load_scored",
]

NO_TIMEPOINT: Final = "No timepoint"
"""Slice of all cells of a dataset without timepoints."""

NO_DONOR: Final = "unknown donor"
"""Cells of a dataset without donors count as one donor, so they never get an interval."""


def in_clinical_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return timepoints in clinical order, unknown names after them by name."""
    rank = {name: index for index, name in enumerate(TIMEPOINTS)}
    return tuple(sorted(names, key=lambda name: (rank.get(name, len(rank)), name)))


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled cells of a scope, before any score: what panels and supports are made from.

    Parameters
    ----------
    counts
        (timepoints, donors, types) labelled cells.
    sources
        Timepoint to the label sources found there.
    missing
        Timepoints that were asked for, or could be, and hold no labelled cell.
    studies
        Studies with a labelled cell.
    n_without_timepoint
        Labelled cells left out because other cells have a timepoint and they do not.
    """

    timepoints: tuple[str, ...]
    donors: tuple[str, ...]
    types: tuple[str, ...]
    counts: np.ndarray
    sources: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    studies: tuple[str, ...]
    n_without_timepoint: int
    dataset: dict[str, Any]

    @property
    def cautions(self) -> tuple[str, ...]:
        """Return what every score on these labels must carry."""
        return cautions(str(self.dataset.get("source") or ""), self.sources)

    @property
    def n_cells(self) -> int:
        """Number of labelled cells."""
        return int(self.counts.sum())

    @property
    def n_donors(self) -> int:
        """Number of donors with a labelled cell."""
        return int((self.counts.sum(axis=(0, 2)) > 0).sum())

    def panel(self, scope: Scope, *, pooled: bool = False) -> Panel:
        """Return the panel over the timepoints of the scope, or over their pooled cells."""
        if pooled:
            support = {"all": self.counts.sum(axis=0)}
        else:
            support = dict(zip(self.timepoints, self.counts, strict=True))
        malignant = [name for name in self.types if is_malignant_label(name)]
        return make_panel(support, self.types, chosen=scope.cell_types, malignant=malignant)

    def notes(self, panel: Panel) -> tuple[str, ...]:
        """Return what must be said beside a score: scope of the panel, slices and cells left out."""
        skipped = panel.skipped if panel.types else {}
        notes = [f"{name}: {why}." for name, why in skipped.items()]
        if panel.is_normal_only:
            notes.append(
                "Malignant types are not in every slice compared: normal types only are scored."
            )
        if self.n_without_timepoint:
            notes.append(
                f"{self.n_without_timepoint:,} labelled cells have no timepoint: left out."
            )
        return tuple(notes)


def load_labels(store: Reader, scope: Scope) -> Labels:
    """Return the labelled cells of the scope.

    Raises
    ------
    InputError
        If there is no such dataset for this owner.
    """
    datasets = store.query("datasets", owner=scope.owner)
    found = datasets[datasets["dataset_id"] == scope.dataset_id]
    if found.empty:
        msg = f'No dataset "{scope.dataset_id}".'
        raise InputError(msg, "Choose a dataset from the list, or bring the store up to date.")
    rows = store.query(
        "cell_support",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        timepoints=None,
        truth=scope.truth,
        owner=scope.owner,
    )
    found_sources = store.query(
        "label_sources",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        timepoints=None,
        truth=scope.truth,
        owner=scope.owner,
    )
    rows = rows.assign(donor=rows["donor"].fillna(NO_DONOR))
    has_timepoint = rows["timepoint"].notna()
    n_without = 0
    if has_timepoint.any():
        n_without = int(rows.loc[~has_timepoint, "n"].sum())
        rows = rows[has_timepoint]
        asked: Sequence[str] = scope.timepoints or TIMEPOINTS
        seen = set(rows["timepoint"])
        missing = tuple(name for name in in_clinical_order(asked) if name not in seen)
        if scope.timepoints:
            rows = rows[rows["timepoint"].isin(scope.timepoints)]
    else:
        rows, missing = rows.assign(timepoint=NO_TIMEPOINT), ()
    timepoints = in_clinical_order(rows["timepoint"].unique())
    donors, types = (tuple(sorted(rows[name].unique())) for name in ("donor", "cell_type"))
    counts = np.zeros((len(timepoints), len(donors), len(types)), dtype=np.int64)
    place = tuple(
        pd.Index(axis).get_indexer(rows[name])
        for axis, name in ((timepoints, "timepoint"), (donors, "donor"), (types, "cell_type"))
    )
    np.add.at(counts, place, rows["n"].to_numpy(dtype=np.int64))
    by_timepoint = found_sources["timepoint"].fillna(NO_TIMEPOINT)
    sources = {
        name: tuple(sorted(found_sources.loc[by_timepoint == name, "label_source"].dropna()))
        for name in timepoints
    }
    return Labels(
        timepoints=timepoints,
        donors=donors,
        types=types,
        counts=counts,
        sources=sources,
        missing=missing,
        studies=tuple(sorted(rows["study"].dropna().unique())),
        n_without_timepoint=n_without,
        dataset=found.iloc[0].to_dict(),
    )


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of several series on common axes: (series, timepoints, donors, types)."""

    series: tuple[str, ...]
    timepoints: tuple[str, ...]
    donors: tuple[str, ...]
    types: tuple[str, ...]
    tp: np.ndarray
    n_label: np.ndarray
    n_predicted: np.ndarray

    def of(self, series: Sequence[str], timepoint: str | None = None) -> Tallies:
        """Return the counts of some series (as seeds) at one timepoint or over all of them."""
        rows = [self.series.index(name) for name in series]

        def part(table: np.ndarray) -> np.ndarray:
            if timepoint is None:
                return table[rows].sum(axis=1)
            return table[rows, self.timepoints.index(timepoint)]

        tallies = Tallies(
            self.donors, self.types, part(self.tp), part(self.n_label), part(self.n_predicted)
        )
        return tallies.of_scored_donors()


def load_counts(store: Reader, scope: Scope, series: Sequence[str], labels: Labels) -> Counts:
    """Return the counts of `series` over the timepoints and donors of `labels`.

    The type axis holds every labelled type and every type that is predicted.
    """
    if not series:
        none = np.zeros((0, *labels.counts.shape), dtype=np.int64)
        return Counts((), labels.timepoints, labels.donors, labels.types, none, none, none)
    has_timepoints = labels.timepoints != (NO_TIMEPOINT,)
    rows = store.query(
        "tallies",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=list(series),
        timepoints=list(scope.timepoints) if has_timepoints else None,
        truth=scope.truth,
        owner=scope.owner,
    )
    rows = rows.assign(donor=rows["donor"].fillna(NO_DONOR))
    if not has_timepoints:
        rows = rows.assign(timepoint=NO_TIMEPOINT)
    types = tuple(sorted(set(labels.types) | set(rows["cell_type"].unique())))
    axes = (tuple(series), labels.timepoints, labels.donors, types)
    columns = ("series_id", "timepoint", "donor", "cell_type")
    place = [
        pd.Index(axis).get_indexer(rows[name]) for axis, name in zip(axes, columns, strict=True)
    ]
    keep = np.all([codes >= 0 for codes in place], axis=0)
    shape = tuple(len(axis) for axis in axes)
    flat = np.ravel_multi_index([codes[keep] for codes in place], shape) if keep.any() else []

    def table(name: str) -> np.ndarray:
        weights = rows[name].to_numpy(dtype=np.float64)[keep]
        if not len(weights):
            return np.zeros(shape, dtype=np.int64)
        size = int(np.prod(shape))
        return np.bincount(flat, weights=weights, minlength=size).astype(np.int64).reshape(shape)

    return Counts(*axes, table("tp"), table("n_label"), table("n_predicted"))


@dataclass(frozen=True, eq=False)
class Scored:
    """All that a page about the scope's configurations starts from."""

    labels: Labels
    configurations: list[Configuration]
    counts: Counts


def load_scored(
    store: Reader, scope: Scope, configurations: list[Configuration] | None = None
) -> Scored:
    """Return labels, configurations (by default those of the scope) and their counts."""
    labels = load_labels(store, scope)
    chosen = configurations_in(store, scope) if configurations is None else configurations
    series = [name for item in chosen for name in item.series]
    return Scored(labels, chosen, load_counts(store, scope, series, labels))
