"""Where the summary of a selection gets its columns of all cells from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from backend.evaluation.cell_map import load_cells, load_columns, load_hits
from backend.evaluation.views.series import all_shown_series
from backend.store.neighbours import neighbours_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from backend.evaluation.cell_map import CellColumns, Hits, MapCells
    from backend.store.cache import Store
    from backend.types import Scope

__all__ = ["Source", "StoreSource"]


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

    def neighbours(self, scope: Scope) -> np.ndarray | None:
        """Return the nearest cells of each cell, or None when they are not stored."""


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

    def neighbours(self, scope: Scope) -> np.ndarray | None:
        """Return the nearest cells of each cell, or None when they are not stored."""
        return neighbours_of(self.store, scope.dataset_id, owner=scope.owner)
