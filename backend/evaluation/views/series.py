"""Which series are in scope, and how they group into what the user compares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import pandas as pd

from backend.errors import InputError
from backend.types import EXTERNAL, LABEL_LEVELS, STILL_IMPROVING, STOPPED_IMPROVING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backend.types import Scope

__all__ = [
    "Configuration",
    "Reader",
    "all_shown_series",
    "configurations_in",
    "one_configuration",
    "rows_of_series",
    "series_of",
    "shown_first",
    "shown_series",
    "trained_at",
]


NOT_RECORDED: Final = "end of training not recorded"
"""Of a network whose runs were made before they said how they ended, or without validation."""

NO_FOLDS: Final = "without folds"
"""Status of predictions that were made once, by a final model or elsewhere."""


class Reader(Protocol):
    """The part of the store that views use."""

    def query(self, name: str, **params: Any) -> pd.DataFrame:
        """Run a named query and return its rows."""


def rows_of_series(store: Reader, query: str, scope: Scope, series: Iterable[str]) -> pd.DataFrame:
    """Run a query on the test cells of some series, of the timepoints and the truth of a scope."""
    return store.query(
        query,
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=list(series),
        timepoints=list(scope.timepoints) or None,
        truth=scope.truth,
    )


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
    n_folds: int
    status_text: str
    convergence: str
    is_default: bool
    model: str
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
_SERIES_COLUMNS: Final = [
    "series_id",
    *_SERIES_FIELDS,
    "n_folds",
    "n_folds_done",
    "n_folds_failed",
    "is_complete",
    "status_text",
    "convergence",
    "notes",
    "n_train",
    "created_at",
    "is_default",
]


def series_of(store: Reader, scope: Scope, *, protocol: str | None = None) -> pd.DataFrame:
    """Return one row per series that can be scored in `scope`, from its runs.

    A series trained at a finer label level than the scope's is scored at the scope's level, under a
    configuration of its own (`logreg@fine`) where others were trained at that level. So is each number of folds but the commonest
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
    if runs.empty:
        return pd.DataFrame(columns=_SERIES_COLUMNS)
    is_scored = (runs["status"] == "done") & runs["problem"].isna()
    by_series = runs.groupby("series_id", sort=False)
    done = runs[is_scored].groupby("series_id", sort=False)
    table = by_series[_SERIES_FIELDS].nth(0).set_index(by_series["series_id"].nth(0))
    table["n_folds"] = table["folds"].astype(int)
    table["n_folds_done"] = done["fold"].nunique()
    table["n_folds_done"] = table["n_folds_done"].fillna(0).astype(int)
    table["n_folds_failed"] = by_series["fold"].nunique() - table["n_folds_done"]
    table["is_complete"] = table["n_folds_done"] == table["n_folds"]
    table["status_text"] = [
        f"{n_done} of {n} folds" if n > 1 or not n_done else NO_FOLDS
        for n_done, n in zip(table["n_folds_done"], table["n_folds"], strict=True)
    ]
    said = {key: _convergence(part) for key, part in runs[is_scored].groupby("series_id")}
    table["convergence"] = [said.get(key, "") for key in table.index]
    table["notes"] = _notes(runs, is_scored).reindex(table.index).fillna("")
    table["n_train"] = done["n_train"].mean()
    table["created_at"] = by_series["created_at"].max()
    table = _with_variants(table.reset_index(), scope.label_level)
    return table.sort_values(
        ["configuration", "split_seed", "seed", "series_id"], ignore_index=True
    )[_SERIES_COLUMNS]


def _notes(runs: pd.DataFrame, is_scored: pd.Series) -> pd.Series:
    """Join what runs say of themselves and why others failed, each once, by series."""
    reasons = "failed: " + runs["reason"].fillna(runs["problem"]).fillna("no reason given")
    said: dict[str, dict[str, None]] = {}
    for series_id, notes, reason, scored in zip(
        runs["series_id"], runs["notes"], reasons, is_scored, strict=True
    ):
        kept = said.setdefault(series_id, {})
        kept |= dict.fromkeys(notes)
        if not scored:
            kept[reason] = None
    return pd.Series({key: "; ".join(kept) for key, kept in said.items()}, dtype=object)


def _convergence(runs: pd.DataFrame) -> str:
    """Say of the finished folds of one series how their training ended; "" for a baseline."""
    if runs["preset"].isna().all():
        return ""
    states = [json.loads(text)["state"] for text in runs["convergence"].dropna()]
    if not states and (runs["protocol"] == EXTERNAL).all():
        return ""  # a stored model that predicted here; nothing was trained
    if n_open := states.count(STILL_IMPROVING):
        return f"{STILL_IMPROVING} ({n_open} of {len(runs)} folds)"
    return STOPPED_IMPROVING if len(states) == len(runs) else NOT_RECORDED


def _with_variants(table: pd.DataFrame, label_level: str) -> pd.DataFrame:
    native = set(table.loc[table["label_level"] == label_level, "configuration"])
    usual = table["n_folds"].mode().min()
    keys, names, defaults = [], [], []
    for row in table.itertuples():
        key, name = row.configuration, row.display_name
        # Where everything was trained at a finer level, there is nothing to tell apart.
        is_native = row.label_level == label_level or not native
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


def trained_at(key: str, label_level: str) -> str:
    """Return the key that a configuration has at the level that it was trained on."""
    return key.replace(f"@{label_level}", "")


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


def _status(row: Any) -> str:
    failed = f", {row.n_folds_failed} failed" if row.n_folds_failed else ""
    return f"{row.status_text}{failed}"


def _configuration(key: str, rows: pd.DataFrame) -> Configuration:
    complete, first = rows[rows["is_complete"].astype(bool)], rows.iloc[0]
    if len(rows) == 1:
        status = _status(first)
    elif len(complete) == len(rows):
        status = f"{len(rows)} seeds, {first['n_folds']} of {first['n_folds']} folds each"
    else:
        open_ones = rows[~rows["is_complete"].astype(bool)]
        parts = [f"seed {row.seed}: {_status(row)}" for row in open_ones.itertuples()]
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
        n_folds=int(first["n_folds"]),
        status_text=status,
        convergence="; ".join(dict.fromkeys(text for text in rows["convergence"] if text)),
        is_default=bool(first["is_default"]),
        model=str(first["model"]),
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


def shown_series(store: Reader, scope: Scope, configuration: str, seed: int | None = None) -> Any:
    """Return the one series of a configuration whose cells are shown: a row of `series_of`.

    Complete ones come first, then the lowest seed. One series at a time, because a cell can be
    right under one seed and wrong under another.

    Raises
    ------
    InputError
        If there is no such configuration or seed.
    """
    series = series_of(store, scope)
    mine = series[series["configuration"] == configuration]
    if mine.empty:
        one_configuration(store, scope, configuration)
    if seed is not None:
        seeds = sorted(set(mine["seed"]))
        mine = mine[mine["seed"] == seed]
        if mine.empty:
            msg = f'"{configuration}" has no seed {seed}. Found: {", ".join(map(str, seeds))}.'
            raise InputError(msg, "Choose one of them.")
    return shown_first(mine).iloc[0]


def all_shown_series(store: Reader, scope: Scope) -> pd.DataFrame:
    """Return the series whose cells are shown, of every configuration in scope, by name."""
    series = series_of(store, scope)
    chosen = series["configuration"].isin(scope.configurations)
    series = series[chosen if scope.configurations else series["is_default"].astype(bool)]
    first = shown_first(series).drop_duplicates("configuration")
    return first.sort_values("configuration", ignore_index=True)


def shown_first(series: pd.DataFrame) -> pd.DataFrame:
    """Sort rows of `series_of` so that the one whose cells are shown comes first."""
    return series.sort_values(["is_complete", "seed"], ascending=[False, True], kind="stable")
