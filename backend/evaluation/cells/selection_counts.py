"""Counts, shares and quartiles of some cells, from columns of all cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.evaluation.cells.columns import UNKNOWN
from backend.evaluation.error_kinds import error_kind

if TYPE_CHECKING:
    from backend.evaluation.cells import CellColumns, Hits, MapCells

__all__ = [
    "beside_whole",
    "composition_of",
    "confusion_of",
    "count_donors",
    "count_roles",
    "hits_of",
    "quality_of",
]

ROLES: Final = ("donor", "genotype", "label", "label_source", "timepoint")
"""What a composition counts cells by."""

NOT_KNOWN: Final = "not known"
_MEASURES: Final = {"n_counts": "Counts a cell", "n_genes": "Genes a cell"}
_FEW: Final = 1 << 20
"""Possible values up to which a table of all of them is cheaper than sorting those that occur."""


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


def count_donors(columns: CellColumns, rows: np.ndarray) -> int:
    """Count the donors of some cells; cells without one count as one more."""
    donors, n_possible = _donors(columns, rows)
    return len(_counted(donors, n_possible)[0])


def count_roles(columns: CellColumns, level: str, rows: np.ndarray) -> pd.DataFrame:
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


def composition_of(inside: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Add to the counts of some cells the share of each value among all cells in scope.

    Both are what `count_roles` gives; the column is `share_of_all`.
    """
    shares = whole.set_index(["role", "value"])["share"]
    keys = pd.MultiIndex.from_frame(inside[["role", "value"]])
    return inside.assign(share_of_all=shares.reindex(keys).to_numpy())


def confusion_of(columns: CellColumns, cells: MapCells, rows: np.ndarray) -> pd.DataFrame:
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


def hits_of(hits: Hits, columns: CellColumns, rows: np.ndarray) -> dict[str, Any]:
    """Return how often a series is right on some cells, and how sure it was, by column."""
    rows = rows[hits.is_right[rows] != UNKNOWN]
    is_right, confidence = hits.is_right[rows] == 1, hits.confidence[rows]
    n_right = int(np.count_nonzero(is_right))
    return {
        "n_cells": len(rows),
        "n_right": n_right,
        "n_donors": count_donors(columns, rows),
        "confidence": _median(confidence),
        "confidence_right": _median(confidence[is_right]),
        "confidence_wrong": _median(confidence[~is_right]),
        "hit_rate": n_right / len(rows) if len(rows) else float("nan"),
    }


def quality_of(columns: CellColumns, words: str, rows: np.ndarray) -> pd.DataFrame:
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


def beside_whole(inside: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Join what `quality_of` gave for some cells and for all: one measure after the other."""
    joined = pd.concat([inside, whole], ignore_index=True)
    order = list(_MEASURES.values())
    return joined.sort_values(
        "measure", key=lambda names: names.map(order.index), kind="stable", ignore_index=True
    )
