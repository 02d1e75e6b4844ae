"""Where the summary of a selection gets its columns of all cells from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from backend.evaluation.cells import load_cells, load_columns, load_hits, passes
from backend.evaluation.cells.selection_counts import count_roles, quality_of
from backend.evaluation.neighbours import Sides, sides_of
from backend.evaluation.views.series import all_shown_series
from backend.store.per_cell import neighbours_of

if TYPE_CHECKING:
    import pandas as pd

    from backend.evaluation.cells import CellColumns, Hits, MapCells
    from backend.store.cache import Store
    from backend.types import Scope

__all__ = ["Source", "StoreSource", "Whole", "sides_in", "whole_of"]


class Source(Protocol):
    """Gives columns of all cells of a scope's dataset; a page's source keeps what it has read."""

    def columns(self, scope: Scope) -> CellColumns:
        """Return what is known before any prediction."""

    def cells(self, scope: Scope, configuration: str) -> MapCells:
        """Return the outcome of every cell under one model."""

    def shown(self, scope: Scope) -> pd.DataFrame:
        """Return the series that are compared, one for each model of the scope."""

    def hits(self, scope: Scope, series_id: str, n_cells: int) -> Hits:
        """Return on which cells one series is right."""

    def sides(self, scope: Scope, configuration: str) -> tuple[int, Sides] | None:
        """Return how many neighbours each cell has, and on whose side they are under one model.

        None when no neighbours are stored.
        """

    def whole(self, scope: Scope) -> Whole:
        """Return what the cells in scope are, whatever their type."""


@dataclass(frozen=True, eq=False)
class Whole:
    """What the cells in scope are: `roles` as `count_roles` gives, `quality` as `quality_of`."""

    roles: pd.DataFrame
    quality: pd.DataFrame


def sides_in(
    columns: CellColumns, cells: MapCells, level: str, neighbours: np.ndarray | None
) -> tuple[int, Sides] | None:
    """Count on whose side the neighbours of each cell are; None without neighbours."""
    if neighbours is None:
        return None
    own, called = columns.roles[level], cells.roles["predicted"]
    names = dict.fromkeys((*own.names, *called.names))
    place = {name: code for code, name in enumerate(names, start=1)}  # 0: none
    kind = np.int16 if len(place) < 30_000 else np.int32
    labels, predicted = (
        np.array([*(place[name] for name in role.names), 0], dtype=kind)[role.codes]
        for role in (own, called)
    )
    return neighbours.shape[1], sides_of(neighbours, labels, predicted)


def whole_of(columns: CellColumns, scope: Scope) -> Whole:
    """Describe the cells that pass the filters of a scope, whatever their type."""
    rows = np.flatnonzero(passes(columns.roles, scope, len(columns)))
    roles = count_roles(columns, scope.label_level, rows)
    return Whole(roles, quality_of(columns, "all in scope", rows))


@dataclass(frozen=True, slots=True)
class StoreSource:
    """Reads from the store whenever it is asked."""

    store: Store

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
        """Return how many neighbours each cell has, and on whose side they are under one model."""
        neighbours = neighbours_of(self.store, scope.dataset_id, owner=scope.owner)
        columns, cells = self.columns(scope), self.cells(scope, configuration)
        return sides_in(columns, cells, scope.label_level, neighbours)

    def whole(self, scope: Scope) -> Whole:
        """Return what the cells in scope are, whatever their type."""
        return whole_of(self.columns(scope), scope)
