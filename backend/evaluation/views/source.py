"""From the store to arrays: which series are in scope, their counts, and the labels behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pandas as pd

from backend.data.labels import is_malignant_label
from backend.errors import InputError
from backend.evaluation.panel import Panel, make_panel
from backend.evaluation.tallies import Tallies
from backend.evaluation.wording import cautions
from backend.types import LABEL_LEVELS, TIMEPOINTS, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "NO_DONOR",
    "NO_TIMEPOINT",
    "Configuration",
    "Counts",
    "Labels",
    "Reader",
    "configurations_in",
    "in_clinical_order",
    "load_counts",
    "load_labels",
    "one_configuration",
    "series_of",
]

NO_TIMEPOINT: Final = "No timepoint"
"""Slice of all cells of a dataset without timepoints."""

NO_DONOR: Final = "unknown donor"
"""Cells of a dataset without donors count as one donor, so they never get an interval."""


class Reader(Protocol):
    """The part of the store that views use."""

    def query(self, name: str, **params: Any) -> pd.DataFrame:
        """Run a named query and return its rows."""


def in_clinical_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return timepoints in clinical order, unknown names after them by name."""
    rank = {name: index for index, name in enumerate(TIMEPOINTS)}
    return tuple(sorted(names, key=lambda name: (rank.get(name, len(rank)), name)))


@dataclass(frozen=True)
class Configuration:
    """What the user compares: one or more series that differ in seeds only.

    `series` and `seeds` name the complete ones, in step; `replicates` are their (split seed,
    seed) pairs, by which protocols are matched.
    """

    key: str
    display_name: str
    note: str
    series: tuple[str, ...]
    seeds: tuple[int, ...]
    replicates: tuple[tuple[int, int], ...]
    status_text: str
    is_default: bool
    preset: str | None
    init: str
    checkpoint: str | None
    n_train: float
    created_at: str

    @property
    def is_complete(self) -> bool:
        """Whether at least one of its series has all folds."""
        return bool(self.series)


_SERIES_FIELDS: Final = [
    "dataset_id",
    "protocol",
    "folds",
    "split_seed",
    "budget",
    "model",
    "preset",
    "init",
    "checkpoint",
    "label_level",
    "fraction",
    "seed",
    "configuration",
    "display_name",
]


def series_of(store: Reader, scope: Scope, *, protocol: str | None = None) -> pd.DataFrame:
    """Return one row per series that can be scored in `scope`, from its runs.

    A series trained at a finer label level than the scope's is scored at the scope's level under a
    configuration of its own (`logreg@fine`). So is each number of folds but the commonest
    (`logreg@10-fold`), because other training sizes make another thing to compare.
    """
    runs = store.query("runs", dataset_id=scope.dataset_id, owner=scope.owner)
    finest = LABEL_LEVELS[: LABEL_LEVELS.index(scope.label_level) + 1]
    runs = runs[
        (runs["protocol"] == (protocol or scope.protocol))
        & (runs["budget"] == scope.budget)
        & runs["label_level"].isin(finest)
        & runs["is_current"].astype(bool)
    ]
    rows = [_series_row(series_id, folds) for series_id, folds in runs.groupby("series_id")]
    table = pd.DataFrame(
        rows,
        columns=[
            "series_id",
            *_SERIES_FIELDS,
            "n_folds",
            "n_folds_done",
            "n_folds_failed",
            "is_complete",
            "status_text",
            "notes",
            "n_train",
            "created_at",
        ],
    )
    if table.empty:
        return table.assign(is_default=pd.Series(dtype=bool))
    return _with_variants(table, scope.label_level).sort_values(
        ["configuration", "split_seed", "seed", "series_id"], ignore_index=True
    )


def _series_row(series_id: str, runs: pd.DataFrame) -> dict[str, Any]:
    first = runs.iloc[0]
    is_scored = (runs["status"] == "done") & runs["problem"].isna()
    done = runs[is_scored]
    n_folds, n_done = int(first["folds"]), int(done["fold"].nunique())
    failed = runs[~is_scored & ~runs["fold"].isin(done["fold"])]
    status = f"{n_done} of {n_folds} folds"
    if len(failed):
        status += f", {len(failed)} failed"
    notes = dict.fromkeys(note for notes in runs["notes"] for note in notes)
    reasons = failed["reason"].fillna(failed["problem"]).dropna()
    notes |= dict.fromkeys(f"failed: {reason}" for reason in reasons)
    return {
        "series_id": series_id,
        **{name: first[name] for name in _SERIES_FIELDS},
        "n_folds": n_folds,
        "n_folds_done": n_done,
        "n_folds_failed": len(failed),
        "is_complete": n_done == n_folds,
        "status_text": status,
        "notes": "; ".join(notes),
        "n_train": float(done["n_train"].mean()) if len(done) else float("nan"),
        "created_at": str(runs["created_at"].max()),
    }


def _with_variants(table: pd.DataFrame, label_level: str) -> pd.DataFrame:
    native = set(table.loc[table["label_level"] == label_level, "configuration"])
    usual = table["n_folds"].mode().max()
    keys, names, defaults = [], [], []
    for row in table.itertuples():
        key, name = row.configuration, row.display_name
        is_native = row.label_level == label_level
        defaults.append(is_native or key not in native)
        if not is_native:
            key, name = f"{key}@{row.label_level}", f"{name} (trained on {row.label_level} labels)"
        if row.n_folds != usual:
            key, name = f"{key}@{row.n_folds}-fold", f"{name} ({row.n_folds} folds)"
        keys.append(key)
        names.append(name)
    table = table.assign(configuration=keys, display_name=names, is_default=defaults)
    # One name for two configurations would put two models on one line of a chart.
    keys_of_name = table.groupby("display_name")["configuration"].transform("nunique")
    named = table["display_name"] + " (" + table["configuration"] + ")"
    return table.assign(display_name=table["display_name"].where(keys_of_name == 1, named))


def configurations_in(
    store: Reader, scope: Scope, *, protocol: str | None = None, every: bool = False
) -> list[Configuration]:
    """Return the configurations in scope by name; `every` ignores the user's choice of them.

    Without a choice, a configuration trained at a finer level is left out where the same one
    was trained at the scope's level.
    """
    series = series_of(store, scope, protocol=protocol)
    if not every:
        chosen = series["configuration"].isin(scope.configurations)
        series = series[chosen if scope.configurations else series["is_default"].astype(bool)]
    return [_configuration(key, rows) for key, rows in series.groupby("configuration")]


def _configuration(key: str, rows: pd.DataFrame) -> Configuration:
    complete, first = rows[rows["is_complete"].astype(bool)], rows.iloc[0]
    if len(rows) == 1:
        status = str(first["status_text"])
    elif len(complete) == len(rows):
        status = f"{len(rows)} seeds, {first['n_folds']} of {first['n_folds']} folds each"
    else:
        open_ones = rows[~rows["is_complete"].astype(bool)]
        parts = [f"seed {row.seed}: {row.status_text}" for row in open_ones.itertuples()]
        status = f"{len(complete)} of {len(rows)} seeds complete ({'; '.join(parts)})"
    return Configuration(
        key=key,
        display_name=str(first["display_name"]),
        note="; ".join(dict.fromkeys(note for note in rows["notes"] if note)),
        series=tuple(complete["series_id"]),
        seeds=tuple(int(seed) for seed in complete["seed"]),
        replicates=tuple(
            (int(split), int(seed))
            for split, seed in zip(complete["split_seed"], complete["seed"], strict=True)
        ),
        status_text=status,
        is_default=bool(first["is_default"]),
        preset=first["preset"] if isinstance(first["preset"], str) else None,
        init=str(first["init"]),
        checkpoint=first["checkpoint"] if isinstance(first["checkpoint"], str) else None,
        n_train=float(complete["n_train"].mean()) if len(complete) else float("nan"),
        created_at=str(rows["created_at"].max()),
    )


def one_configuration(store: Reader, scope: Scope, key: str) -> Configuration:
    """Return one configuration in scope.

    Raises
    ------
    InputError
        If the scope has none of that name.
    """
    known = configurations_in(store, scope, every=True)
    for configuration in known:
        if configuration.key == key:
            return configuration
    names = ", ".join(configuration.key for configuration in known) or "none"
    msg = f'No series "{key}" under protocol {scope.protocol} at level {scope.label_level}. Found: {names}.'
    raise InputError(msg, "Choose one of them, or another protocol or label level.")


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
        """Return what must be said beside a score: panel notes, skipped slices, left-out cells."""
        notes = [*panel.notes, *(f"{name}: {why}." for name, why in panel.skipped.items())]
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
    rows = store.query(
        "tallies",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=list(series),
        timepoints=list(scope.timepoints) or None,
        truth=scope.truth,
        owner=scope.owner,
    )
    rows = rows.assign(donor=rows["donor"].fillna(NO_DONOR))
    if labels.timepoints == (NO_TIMEPOINT,):
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
