"""All cells of a dataset under one series, as columns of numbers that a map can be drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.data.labels import to_lineage
from backend.errors import InputError
from backend.evaluation.cells.columns import (
    SLICED,
    UNKNOWN,
    CellColumns,
    Hits,
    Role,
    SeriesRows,
    by_family,
    fixed,
    load_columns,
    load_hits,
    load_series_rows,
    passes,
)
from backend.evaluation.cells.coordinates import Coordinates, quantise
from backend.evaluation.outcomes import OUTCOMES, is_wrong, outcome_codes, threshold_of
from backend.evaluation.views.series import Reader, series_of, shown_first, shown_series
from backend.store.per_cell import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.store.cache import Store
    from backend.types import Scope

__all__ = [
    "MapCells",
    "count_outcomes",
    "distinct_cells",
    "load_cells",
    "most_confident_first",
    "probability_vector",
    "selected_rows",
    "wrong_models",
]

_ROW_COLUMNS: Final = (
    "cell_id", "label", "predicted", "confidence", "outcome", "donor", "timepoint", "study",
    "sample", "day", "label_source", "genotype", "n_counts", "n_genes", "umap_x", "umap_y", "fold",
    "configuration", "cell_index", "run_id",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class MapCells:
    """Every cell of a dataset with its outcome under one series; row i has `cell_index` i.

    Parameters
    ----------
    roles
        `label`, `predicted`, `donor`, `timepoint`, `label_source` and `genotype`.
    confidence
        (n,) float32, NaN without a prediction.
    outcome
        (n,) uint8 into `OUTCOMES`.
    threshold
        Confidence from which a wrong cell is confidently wrong; None when that is not known.
    is_computed
        Whether the places come from predictions, because the dataset has none of its own.
    """

    dataset_id: str
    configuration: str
    display_name: str
    series_id: str
    threshold: float | None
    coordinates: Coordinates
    roles: dict[str, Role]
    confidence: np.ndarray
    outcome: np.ndarray
    is_computed: bool = False

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def is_wrong(self) -> np.ndarray:
        """Which cells are called wrongly: (n,) bool."""
        return is_wrong(self.outcome)

    def in_scope(self, scope: Scope) -> np.ndarray:
        """Say which cells pass the filters of a scope: (n,) bool."""
        mask = passes(self.roles, scope, len(self))
        if scope.cell_types:
            mask &= self.roles["label"].is_among(scope.cell_types)
        return mask


def _labels(own: Role, rows: SeriesRows) -> Role:
    """Return the label that a series was scored against; the dataset's own where it tested none."""
    if rows.is_tested.all():
        return rows.label
    untested = own.codes[~rows.is_tested]
    kept = {own.names[code] for code in np.unique(untested[untested >= 0])}
    names = by_family(kept.union(rows.label.names))
    codes = np.where(rows.is_tested, rows.label.coded_as(names), own.coded_as(names))
    return Role(fixed(codes), tuple(names))


def load_cells(
    store: Reader,
    scope: Scope,
    configuration: str,
    *,
    places: np.ndarray | None = None,
    columns: CellColumns | None = None,
) -> MapCells:
    """Read all cells of the scope's dataset under one series; filters of the scope are not applied.

    Parameters
    ----------
    places
        (n, 2) places by `cell_index`, for a dataset that has none of its own.
    columns
        What `load_columns` gave for this dataset, which all its series share; read when left out.

    Raises
    ------
    InputError
        If there is no such configuration.
    """
    row = shown_series(store, scope, configuration)
    series_id = str(row["series_id"])
    columns = load_columns(store, scope) if columns is None else columns
    rows = load_series_rows(store, scope, series_id, len(columns))
    is_computed = places is not None and not columns.coordinates.is_placed.any()
    threshold = threshold_of(store, scope, series_id)
    label = _labels(columns.roles[scope.label_level], rows)
    called = rows.predicted.coded_as(label.names)
    return MapCells(
        dataset_id=scope.dataset_id,
        configuration=configuration,
        display_name=str(row["display_name"]),
        series_id=series_id,
        threshold=threshold,
        coordinates=quantise(*places.T) if is_computed else columns.coordinates,  # type: ignore[union-attr]
        is_computed=is_computed,
        roles={
            "label": label,
            "predicted": rows.predicted,
            **{name: columns.roles[name] for name in SLICED},
        },
        confidence=rows.confidence,
        outcome=fixed(outcome_codes(label.codes, called, rows.confidence, threshold)),
    )


def wrong_models(
    store: Reader,
    scope: Scope,
    configurations: Sequence[str],
    n_cells: int,
    *,
    hits_of: Callable[[str], Hits] | None = None,
) -> tuple[np.ndarray, int]:
    """Count for each cell how many of some models call it wrong.

    Parameters
    ----------
    hits_of
        Gives the hits of a series by its id; read when left out.

    Returns
    -------
    (n_cells,) int16, -1 where a cell has no label or not every model a prediction for it, and the
    number of models.
    """
    table = series_of(store, scope)
    known = set(table["configuration"])
    series = [
        str(shown_first(table[table["configuration"] == name])["series_id"].iloc[0])
        for name in configurations
        if name in known
    ]
    counts = np.zeros(n_cells, dtype=np.int16)
    is_known = np.full(n_cells, bool(series))
    for series_id in series:
        hits = hits_of(series_id) if hits_of else load_hits(store, scope, series_id, n_cells)
        counts += hits.is_right == 0
        is_known &= hits.is_right != UNKNOWN
    counts[~is_known] = -1
    return fixed(counts), len(series)


def count_outcomes(cells: MapCells, in_scope: np.ndarray) -> pd.DataFrame:
    """Count cells and donors by outcome; without a threshold nothing is confidently wrong.

    Returns
    -------
    Columns `outcome`, `n_cells`, `n_donors`, in the order of legends.
    """
    donors = cells.roles["donor"]
    pairs = cells.outcome[in_scope].astype(np.int64) * (len(donors.names) + 1)
    pairs += donors.codes[in_scope] + 1
    table = np.bincount(pairs, minlength=len(OUTCOMES) * (len(donors.names) + 1))
    table = table.reshape(len(OUTCOMES), -1)
    counts = pd.DataFrame(
        {
            "outcome": list(OUTCOMES),
            "n_cells": table.sum(axis=1),
            "n_donors": (table[:, 1:] > 0).sum(axis=1),
        }
    )
    if cells.threshold is None:
        counts = counts[counts["outcome"] != OUTCOMES[2]].reset_index(drop=True)
    return counts


def most_confident_first(cells: MapCells, rows: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Return some cells, at most `limit`: wrong ones first, the most confident first.

    Parameters
    ----------
    rows
        Values of `cell_index`, in order; of equal cells the first is taken.
    """
    limit = len(rows) if limit is None else limit
    wrong = cells.is_wrong[rows]
    first = _by_confidence(cells, rows[wrong], limit)
    return np.concatenate([first, _by_confidence(cells, rows[~wrong], limit - len(first))])


def _by_confidence(cells: MapCells, rows: np.ndarray, limit: int) -> np.ndarray:
    """Sort cells by confidence, highest first and those without one last; cut the rest off."""
    lowness = -cells.confidence[rows]
    if 0 < limit < len(rows):
        # Only cells up to the last value that is kept need to be sorted.
        last = np.partition(lowness, limit - 1)[limit - 1]
        if not np.isnan(last):
            near = np.flatnonzero(lowness <= last)
            rows, lowness = rows[near], lowness[near]
    return rows[np.argsort(lowness, kind="stable")[:limit]]


def distinct_cells(cells: np.ndarray, n_cells: int) -> np.ndarray:
    """Return values of `cell_index`, each once and in order.

    Raises
    ------
    InputError
        If the dataset has no such cell.
    """
    rows = np.asarray(cells, dtype=np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= n_cells):
        msg = f"The dataset has {n_cells:,} cells; cell {rows.max():,} is not one of them."
        raise InputError(msg, "Select the cells again.")
    # As a mask: nothing is sorted.
    is_chosen = np.zeros(n_cells, dtype=bool)
    is_chosen[rows] = True
    return np.flatnonzero(is_chosen)


def selected_rows(
    store: Reader, scope: Scope, cells: MapCells, selected: np.ndarray, *, limit: int | None = None
) -> pd.DataFrame:
    """Return selected cells with all that is known of them, wrong and confident ones first.

    Parameters
    ----------
    selected
        Values of `cell_index`.
    limit
        At most so many rows; all by default.

    Returns
    -------
    `cell_id`, `label`, `predicted`, `confidence`, `outcome`, `donor`, `timepoint`, `study`,
    `sample`, `day`, `label_source`, `genotype`, `n_counts`, `n_genes`, `umap_x`, `umap_y`, `fold`,
    `configuration`, `cell_index`, `run_id`.
    """
    chosen = most_confident_first(cells, distinct_cells(selected, len(cells)), limit)
    rows = store.query(
        "selection_rows",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=cells.series_id,
        # No cell and no filter look the same to the store.
        cell_indices=chosen if len(chosen) else [-1],
    )
    rows = rows.set_index("cell_index", drop=False).loc[chosen].reset_index(drop=True)
    rows = rows.assign(
        label=pd.Series(cells.roles["label"].words(chosen), dtype=object),
        predicted=pd.Series(cells.roles["predicted"].words(chosen), dtype=object),
        confidence=cells.confidence[chosen],
        outcome=[OUTCOMES[code] for code in cells.outcome[chosen]],
        configuration=cells.configuration,
    )
    return rows[list(_ROW_COLUMNS)]


def probability_vector(store: Store, scope: Scope, cell_id: str, run_id: str) -> pd.DataFrame:
    """Return the probability of every class for one cell, from the bundle of the run that tested it.

    At lineage level the probabilities of a model of fine labels are summed by lineage, as its
    predictions are.

    Returns
    -------
    `cell_type`, `probability`; most probable first.

    Raises
    ------
    StoreError
        If the run is gone.
    InputError
        If the run did not predict this cell.
    """
    found = probabilities(store, run_id, [cell_id], owner=scope.owner).iloc[0]
    if found.isna().any():
        msg = f'The run {run_id} did not predict the cell "{cell_id[:60]}".'
        raise InputError(msg, "Choose one of the selected cells.")
    names = [to_lineage(name) if scope.label_level == "lineage" else name for name in found.index]
    summed = found.groupby(pd.Index(names), sort=False).sum()
    table = summed.rename("probability").rename_axis("cell_type").reset_index()
    return table.sort_values("probability", ascending=False, kind="stable", ignore_index=True)
