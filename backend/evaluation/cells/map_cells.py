"""All cells of a dataset under one series, as columns of numbers that a map can be drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

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
from backend.evaluation.views.failures import OUTCOMES, threshold_of
from backend.evaluation.views.series import Reader, series_of, shown_first, shown_series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.types import Scope

__all__ = ["MapCells", "Role", "cell_details", "load_cells", "wrong_models"]

CORRECT: Final = OUTCOMES.index("correct")
WRONG: Final = OUTCOMES.index("wrong")
CONFIDENT: Final = OUTCOMES.index("confidently wrong")
NOT_SCORED: Final = OUTCOMES.index("not scored")


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
        (n,) uint8 into `views.OUTCOMES`.
    threshold
        Confidence from which a wrong cell is confidently wrong; None when that is not known.
    is_computed
        Whether the places come from predictions, because the dataset has none of its own.
    """

    dataset_id: str
    configuration: str
    display_name: str
    series_id: str
    seed: int
    status_text: str
    threshold: float | None
    coordinates: Coordinates
    roles: dict[str, Role]
    confidence: np.ndarray
    outcome: np.ndarray
    is_computed: bool = False

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def n_unplaced(self) -> int:
        """Number of cells without a place on the map."""
        return int(np.count_nonzero(~self.coordinates.is_placed))

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
    names = tuple(by_family(kept.union(rows.label.names)))
    place = {name: code for code, name in enumerate(names)}
    codes = np.array([*(place[name] for name in rows.label.names), -1])[rows.label.codes]
    renamed = np.array([*(place.get(name, -1) for name in own.names), -1])
    codes[~rows.is_tested] = renamed[untested]
    return Role(fixed(codes.astype(np.promote_types(own.codes.dtype, np.int16))), names)


def _outcomes(
    label: Role, predicted: Role, confidence: np.ndarray, threshold: float | None
) -> np.ndarray:
    place = {name: code for code, name in enumerate(label.names)}
    same = np.array([place.get(name, -2) for name in predicted.names] + [-2], dtype=np.int32)
    is_scored = (label.codes >= 0) & (predicted.codes >= 0)
    is_right = is_scored & (same[predicted.codes] == label.codes)
    is_confident = np.zeros(len(confidence), dtype=bool)
    if threshold is not None:
        is_confident = confidence >= threshold
    conditions = [~is_scored, is_right, is_confident]
    chosen = np.select(conditions, [NOT_SCORED, CORRECT, CONFIDENT], default=WRONG)
    return chosen.astype(np.uint8)


def load_cells(
    store: Reader,
    scope: Scope,
    configuration: str,
    seed: int | None = None,
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
        If there is no such configuration or seed.
    """
    row = shown_series(store, scope, configuration, seed)
    series_id = str(row["series_id"])
    columns = load_columns(store, scope) if columns is None else columns
    rows = load_series_rows(store, scope, series_id, len(columns))
    is_computed = places is not None and not columns.coordinates.is_placed.any()
    threshold = threshold_of(store, scope, series_id)
    label = _labels(columns.roles[scope.label_level], rows)
    outcome = _outcomes(label, rows.predicted, rows.confidence, threshold)
    return MapCells(
        dataset_id=scope.dataset_id,
        configuration=configuration,
        display_name=str(row["display_name"]),
        series_id=series_id,
        seed=int(row["seed"]),
        status_text=str(row["status_text"]),
        threshold=threshold,
        coordinates=quantise(*places.T) if is_computed else columns.coordinates,  # type: ignore[union-attr]
        is_computed=is_computed,
        roles={
            "label": label,
            "predicted": rows.predicted,
            **{name: columns.roles[name] for name in SLICED},
        },
        confidence=rows.confidence,
        outcome=fixed(outcome),
    )


def cell_details(
    store: Reader, scope: Scope, cells: MapCells, cell_indices: Sequence[int] | None
) -> pd.DataFrame:
    """Return one row for each cell asked for, in that order; None gives all cells.

    Returns
    -------
    Columns `cell_id`, `cell_index`, `label`, `predicted`, `confidence`, `outcome`, `donor`,
    `timepoint`, `study`, `sample`, `day`, `genotype`, `label_source`, `n_counts`, `n_genes`.
    """
    asked = None if cell_indices is None else [int(index) for index in cell_indices]
    columns = ["cell_id", "cell_index", "label", "predicted", "confidence", "outcome"]
    rows = store.query(
        "map_details",
        dataset_id=scope.dataset_id,
        # No cell and no filter look the same to the store.
        cell_indices=[-1] if asked == [] else asked,
        owner=scope.owner,
    )
    if asked is not None:
        rows = rows.set_index("cell_index", drop=False).loc[asked].reset_index(drop=True)
    place = rows["cell_index"].to_numpy(dtype=np.int64)
    added = rows.assign(
        label=pd.Series(cells.roles["label"].words(place), dtype=object),
        predicted=pd.Series(cells.roles["predicted"].words(place), dtype=object),
        confidence=cells.confidence[place],
        outcome=[OUTCOMES[code] for code in cells.outcome[place]],
    )
    return added[columns + [name for name in rows.columns if name not in columns]]


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
