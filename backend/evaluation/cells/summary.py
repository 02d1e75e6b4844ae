"""What a set of cells is made of: composition, confusions, hits, confidence, quality, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.errors import InputError
from backend.evaluation.cells.columns import UNKNOWN, load_columns, load_hits, passes
from backend.evaluation.cells.map_cells import distinct_cells, load_cells
from backend.evaluation.cells.neighbourhood import (
    Neighbourhood,
    Sides,
    describe_neighbourhood,
    sides_of_roles,
)
from backend.evaluation.outcomes import error_kind
from backend.evaluation.views.series import all_shown_series
from backend.evaluation.wording import plain, plural
from backend.store.per_cell import neighbours_of

if TYPE_CHECKING:
    from backend.evaluation.cells.columns import CellColumns, Hits
    from backend.evaluation.cells.map_cells import MapCells
    from backend.store.cache import Store
    from backend.types import Scope

__all__ = ["CellReader", "SelectionSummary", "Whole", "describe_scope", "summarise_selection"]

ROLES: Final = ("donor", "genotype", "label", "label_source", "timepoint")
"""What a composition counts cells by."""

NOT_KNOWN: Final = "not known"
_MEASURES: Final = {"n_counts": "Counts a cell", "n_genes": "Genes a cell"}
_FEW: Final = 1 << 20
"""Possible values up to which a table of all of them is cheaper than sorting those that occur."""


@dataclass(frozen=True, eq=False)
class Whole:
    """What the cells in scope are: `roles` as `_count_roles` gives, `quality` as `_quality`."""

    roles: pd.DataFrame
    quality: pd.DataFrame


class CellReader:
    """Reads columns of all cells of a scope's dataset; a page's reader keeps what it has read."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def columns(self, scope: Scope) -> CellColumns:
        """Return what is known before any prediction."""
        return load_columns(self.store, scope)

    def cells(self, scope: Scope, configuration: str) -> MapCells:
        """Return the outcome of every cell under one model."""
        return load_cells(self.store, scope, configuration)

    def shown(self, scope: Scope) -> pd.DataFrame:
        """Return the series that are compared, one for each model of the scope."""
        return all_shown_series(self.store, scope)

    def hits(self, scope: Scope, series_id: str, n_cells: int) -> Hits:
        """Return on which cells one series is right."""
        return load_hits(self.store, scope, series_id, n_cells)

    def sides(self, scope: Scope, configuration: str) -> tuple[int, Sides] | None:
        """Return how many neighbours each cell has, and on whose side they are under one model.

        None when no neighbours are stored.
        """
        neighbours = neighbours_of(self.store, scope.dataset_id, owner=scope.owner)
        if neighbours is None:
            return None
        label = self.columns(scope).roles[scope.label_level]
        predicted = self.cells(scope, configuration).roles["predicted"]
        return neighbours.shape[1], sides_of_roles(neighbours, label, predicted)

    def whole(self, scope: Scope) -> Whole:
        """Return what the cells in scope are, whatever their type."""
        return describe_scope(self.columns(scope), scope)


@dataclass(frozen=True, eq=False)
class SelectionSummary:
    """What some cells of a scope have in common; every table with its n.

    Parameters
    ----------
    composition
        `role`, `value`, `n_cells`, `n_donors`, `share` (of the selection), `share_of_all` (of the
        cells of the scope).
    confusion
        `label`, `predicted`, `n_cells`, `n_donors`, `share`, `kind`, `confidence` (median) of one
        model.
    hits
        One row a model: `configuration`, `display_name`, `n_cells` (labelled and predicted),
        `n_right`, `hit_rate`, `n_donors`, `confidence`, `confidence_right`, `confidence_wrong`
        (medians), `status_text`.
    quality
        `measure`, `cells` ("selected" or "all in scope"), `n_cells`, `low` (lower quartile),
        `median`, `high` (upper quartile).
    neighbourhood
        None when the dataset's bundle has no neighbours.
    """

    n_cells: int
    n_donors: int
    configuration: str
    display_name: str
    sentences: tuple[str, ...]
    composition: pd.DataFrame
    confusion: pd.DataFrame
    hits: pd.DataFrame
    quality: pd.DataFrame
    neighbourhood: Neighbourhood | None


def summarise_selection(
    reader: CellReader, scope: Scope, cells: np.ndarray, configuration: str
) -> SelectionSummary:
    """Return what some cells have in common.

    Parameters
    ----------
    cells
        Values of `cell_index`; at least one.
    configuration
        The model whose confusions and neighbours are told.

    Raises
    ------
    InputError
        If there are no cells, or if dataset or model are gone.
    """
    if not len(cells):
        msg = "No cell is selected."
        raise InputError(msg, "Select cells first.")
    columns = reader.columns(scope)
    rows = distinct_cells(cells, len(columns))
    mapped = reader.cells(scope, configuration)
    whole = reader.whole(scope)
    composition = _composition(_count_roles(columns, scope.label_level, rows), whole.roles)
    confusion = _confusion(columns, mapped, rows)
    n_donors = _count_donors(columns, rows)
    quality = pd.concat([_quality(columns, "selected", rows), whole.quality], ignore_index=True)
    counted = reader.sides(scope, configuration)
    neighbourhood = None
    if counted is not None:
        label, predicted = columns.roles[scope.label_level], mapped.roles["predicted"]
        neighbourhood = describe_neighbourhood(*counted, label, predicted, rows)
    return SelectionSummary(
        n_cells=len(rows),
        n_donors=n_donors,
        configuration=configuration,
        display_name=mapped.display_name,
        sentences=_sentences(len(rows), n_donors, composition, confusion, mapped.display_name),
        composition=composition,
        confusion=confusion,
        hits=_hits(reader, scope, columns, rows),
        # One measure after the other.
        quality=quality.sort_values(
            "measure",
            key=lambda names: names.map(list(_MEASURES.values()).index),
            kind="stable",
            ignore_index=True,
        ),
        neighbourhood=neighbourhood,
    )


def _hits(reader: CellReader, scope: Scope, columns: CellColumns, rows: np.ndarray) -> pd.DataFrame:
    """Return the hit rate of every configuration of the scope, by name."""
    shown = reader.shown(scope)
    counts = [
        _hit_rate(reader.hits(scope, series_id, len(columns)), columns, rows)
        for series_id in shown["series_id"]
    ]
    kept = shown[["configuration", "display_name", "status_text"]]
    return kept.join(pd.DataFrame(counts, index=shown.index))


def _sentences(
    n_cells: int, n_donors: int, composition: pd.DataFrame, confusion: pd.DataFrame, name: str
) -> tuple[str, ...]:
    """Say in Markdown what the cells are and how often the model is right on them."""
    n_times = int((composition["role"] == "timepoint").sum())
    text = f"**{plural(n_cells, 'cell')}** of {plural(n_donors, 'donor')}"
    text += f" at {plural(n_times, 'timepoint')}." if n_times else "."
    sentences = [text]
    largest = composition[composition["role"] == "donor"].head(1)
    if n_donors > 1 and len(largest) and largest["share"].iloc[0] >= 0.5:
        sentences.append(
            f"{largest['share'].iloc[0]:.0%} of them are of one donor, "
            f"{plain(largest['value'].iloc[0])}."
        )
    n_scored = int(confusion["n_cells"].sum())
    if not n_scored:
        return (*sentences, f"None has both a label and a prediction of **{plain(name)}**.")
    n_right = int(confusion["n_cells"][confusion["label"] == confusion["predicted"]].sum())
    told = f"**{plain(name)}** is right on {n_right:,} of {n_scored:,} labelled ones"
    if n_right == n_scored:
        told = f"**{plain(name)}** is right on all {n_scored:,} labelled ones"
    elif n_right == 0:
        told = f"**{plain(name)}** is wrong on all {n_scored:,} labelled ones"
    else:
        told += f" ({n_right / n_scored:.0%})"
    if n_scored < n_cells:
        told += f"; {n_cells - n_scored:,} have no label or no prediction"
    return (*sentences, told + ".")


def describe_scope(columns: CellColumns, scope: Scope) -> Whole:
    """Describe the cells that pass the filters of a scope, whatever their type."""
    rows = np.flatnonzero(passes(columns.roles, scope, len(columns)))
    roles = _count_roles(columns, scope.label_level, rows)
    return Whole(roles, _quality(columns, "all in scope", rows))


def _counted(keys: np.ndarray, n_possible: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole numbers that occur, sorted, and how often each does."""
    if n_possible > _FEW:
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys, minlength=n_possible)
    present = np.flatnonzero(counts)
    return present, counts[present]


def _donors(columns: CellColumns, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Return a number for the donor of each cell, 0 for none, and how many numbers there may be."""
    role = columns.roles["donor"]
    return role.codes[rows].astype(np.int64) + 1, len(role.names) + 1


def _count_donors(columns: CellColumns, rows: np.ndarray) -> int:
    """Count the donors of some cells; cells without one count as one more."""
    donors, n_possible = _donors(columns, rows)
    return len(_counted(donors, n_possible)[0])


def _count_roles(columns: CellColumns, level: str, rows: np.ndarray) -> pd.DataFrame:
    """Count cells and donors by each role of some cells.

    Returns
    -------
    `role`, `value` ("not known" for none), `n_cells`, `n_donors`, `share`; by role, commonest first.
    """
    donors, n_donors = _donors(columns, rows)
    found = []
    for name in ROLES:
        role = columns.roles[level if name == "label" else name]
        keys = (role.codes[rows].astype(np.int64) + 1) * n_donors + donors
        keys, counts = _counted(keys, (len(role.names) + 1) * n_donors)
        codes = keys // n_donors
        n_cells = np.bincount(codes, weights=counts)
        n_with = np.bincount(codes)
        told = [
            (name, role.names[code - 1] if code else None, int(n_cells[code]), int(n_with[code]))
            for code in np.flatnonzero(n_with)
        ]
        found += sorted(told, key=lambda row: (-row[2], row[1] is None, row[1]))
    table = pd.DataFrame(found, columns=["role", "value", "n_cells", "n_donors"])
    share = table["n_cells"] / table.groupby("role")["n_cells"].transform("sum")
    return table.assign(value=table["value"].astype(object).fillna(NOT_KNOWN), share=share)


def _composition(inside: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Add to the counts of some cells the share of each value among all cells in scope.

    Both are what `_count_roles` gives; the column is `share_of_all`.
    """
    shares = whole.set_index(["role", "value"])["share"]
    keys = pd.MultiIndex.from_frame(inside[["role", "value"]])
    return inside.assign(share_of_all=shares.reindex(keys).to_numpy())


def _confusion(columns: CellColumns, cells: MapCells, rows: np.ndarray) -> pd.DataFrame:
    """Count labels against predictions among those of some cells that have both.

    Returns
    -------
    `label`, `predicted`, `n_cells`, `n_donors`, `confidence` (median), `share`, `kind`; commonest
    first.
    """
    label, predicted = cells.roles["label"], cells.roles["predicted"]
    rows = rows[(label.codes[rows] >= 0) & (predicted.codes[rows] >= 0)]
    n_predicted = max(len(predicted.names), 1)
    pairs = label.codes[rows].astype(np.int64) * n_predicted + predicted.codes[rows]
    n_pairs = max(len(label.names), 1) * n_predicted
    keys, n_cells = _counted(pairs, n_pairs)
    donors, n_donors = _donors(columns, rows)
    with_donor, _ = _counted(pairs * n_donors + donors, n_pairs * n_donors)
    _, n_with = _counted(with_donor // n_donors, n_pairs)
    medians = pd.Series(cells.confidence[rows], dtype=float).groupby(pairs).median()
    labels = [label.names[key // n_predicted] for key in keys]
    called = [predicted.names[key % n_predicted] for key in keys]
    table = pd.DataFrame(
        {
            "label": pd.Series(labels, dtype=object),
            "predicted": pd.Series(called, dtype=object),
            "n_cells": n_cells,
            "n_donors": n_with,
            "confidence": medians.to_numpy(dtype=float),
            "share": n_cells / len(rows) if len(rows) else n_cells.astype(float),
            "kind": pd.Series(list(map(error_kind, labels, called)), dtype=object),
        }
    )
    return table.sort_values(
        ["n_cells", "label", "predicted"], ascending=[False, True, True], ignore_index=True
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _hit_rate(hits: Hits, columns: CellColumns, rows: np.ndarray) -> dict[str, Any]:
    """Return how often a series is right on some cells, and how sure it was, by column."""
    rows = rows[hits.is_right[rows] != UNKNOWN]
    is_right, confidence = hits.is_right[rows] == 1, hits.confidence[rows]
    n_right = int(np.count_nonzero(is_right))
    return {
        "n_cells": len(rows),
        "n_right": n_right,
        "n_donors": _count_donors(columns, rows),
        "confidence": _median(confidence),
        "confidence_right": _median(confidence[is_right]),
        "confidence_wrong": _median(confidence[~is_right]),
        "hit_rate": n_right / len(rows) if len(rows) else float("nan"),
    }


def _quality(columns: CellColumns, words: str, rows: np.ndarray) -> pd.DataFrame:
    """Return quartiles of counts and genes of some cells.

    Returns
    -------
    `measure`, `cells` (the words for them), `n_cells`, `low`, `median`, `high`.
    """
    found = []
    for measure, title in _MEASURES.items():
        values = getattr(columns, measure)[rows]
        known = values[np.isfinite(values)].astype(np.float64)
        low, median, high = np.quantile(known, [0.25, 0.5, 0.75]) if len(known) else [np.nan] * 3
        found.append((title, words, len(rows), float(low), float(median), float(high)))
    return pd.DataFrame(found, columns=["measure", "cells", "n_cells", "low", "median", "high"])
