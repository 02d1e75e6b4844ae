"""Cells on a map and what chosen cells have in common."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app.cache.store import Reader, apart, shared_store, store_version
from backend.config import home
from backend.evaluation.cells import computed_map, map_cells, selection
from backend.evaluation.cells.columns import CellColumns, Hits, load_columns, load_hits
from backend.evaluation.cells.summary import CellReader, summarise_selection
from backend.evaluation.views.series import all_shown_series
from backend.types import Scope, canonical_json

if TYPE_CHECKING:
    import pandas as pd

    from backend.evaluation.cells.neighbourhood import Sides
    from backend.evaluation.cells.summary import SelectionSummary, Whole

__all__ = [
    "cells_on_map",
    "columns_of",
    "probability_vector",
    "selected_cells",
    "selected_rows",
    "selection_summary",
    "wrong_models",
]


def _unfiltered(scope: Scope) -> Scope:
    """Return the scope without what only filters cells: it keys the columns of all cells."""
    return scope.with_(configurations=(), timepoints=(), cell_types=(), truth="all")


# As resources: read-only arrays are shared, cached data would be copied each time. A million cells
# take 20 MB as columns, 9 MB as a map, 6 MB as sides and 5 MB as hits.
@apart(st.cache_resource, max_entries=4, show_spinner=False)
def _columns(version: str, owner: str, dataset_id: str) -> CellColumns:
    return load_columns(Reader(version), Scope(dataset_id=dataset_id, owner=owner))


@apart(st.cache_resource, max_entries=16, show_spinner=False)
def _map_cells(
    version: str, scope: Scope, configuration: str, placed_at: int
) -> map_cells.MapCells:
    known = _columns(version, owner=scope.owner, dataset_id=scope.dataset_id)
    found = None
    if placed_at and not known.coordinates.is_placed.any():
        found = computed_map.read_computed_map(home(), scope.owner, scope.dataset_id, len(known))
    reader = Reader(version)
    return map_cells.load_cells(reader, scope, configuration, places=found, columns=known)


def columns_of(scope: Scope) -> CellColumns:
    """Return what is known of every cell of the scope's dataset before any prediction."""
    return _columns(store_version(), owner=scope.owner, dataset_id=scope.dataset_id)


def cells_on_map(scope: Scope, configuration: str) -> map_cells.MapCells:
    """Return all cells of the scope's dataset under one model, unfiltered, for a map."""
    file = computed_map.computed_map_file(home(), scope.owner, scope.dataset_id)
    placed_at = file.stat().st_mtime_ns if file.is_file() else 0
    return _map_cells(store_version(), _unfiltered(scope), configuration, placed_at)


@apart(st.cache_resource, max_entries=48, show_spinner=False)
def _hits(version: str, scope: Scope, series_id: str, n_cells: int) -> Hits:
    return load_hits(Reader(version), scope, series_id, n_cells)


# For minutes only: neighbours are added to a dataset without a new version of the store.
@apart(st.cache_resource, max_entries=16, ttl=600, show_spinner=False)
def _sides(version: str, scope: Scope, configuration: str) -> tuple[int, Sides] | None:
    return CellReader.sides(_CachedCells(shared_store()), scope, configuration)


@apart(st.cache_resource, max_entries=64, show_spinner=False)
def _whole(version: str, scope: Scope) -> Whole:
    return CellReader.whole(_CachedCells(shared_store()), scope)


@apart(st.cache_data, max_entries=64, show_spinner=False)
def _shown(version: str, scope: Scope) -> pd.DataFrame:
    return all_shown_series(Reader(version), scope)


class _CachedCells(CellReader):
    """The columns that selections are summarised from, as all sessions share them."""

    def columns(self, scope: Scope) -> CellColumns:
        return columns_of(scope)

    def cells(self, scope: Scope, configuration: str) -> map_cells.MapCells:
        return cells_on_map(scope, configuration)

    def shown(self, scope: Scope) -> pd.DataFrame:
        only_models = scope.with_(timepoints=(), cell_types=(), truth="all")
        return _shown(store_version(), only_models)

    def hits(self, scope: Scope, series_id: str, n_cells: int) -> Hits:
        return _hits(store_version(), _unfiltered(scope), series_id, n_cells)

    def sides(self, scope: Scope, configuration: str) -> tuple[int, Sides] | None:
        return _sides(store_version(), _unfiltered(scope), configuration)

    def whole(self, scope: Scope) -> Whole:
        all_models = scope.with_(configurations=(), cell_types=())
        return _whole(store_version(), all_models)


@apart(st.cache_resource, max_entries=8, show_spinner=False)
def _wrong_models(
    version: str, scope: Scope, configurations: tuple[str, ...], n_cells: int
) -> tuple[np.ndarray, int]:
    def hits_of(series_id: str) -> Hits:
        return _hits(version, scope, series_id, n_cells)

    reader = Reader(version)
    return map_cells.wrong_models(reader, scope, configurations, n_cells, hits_of=hits_of)


def wrong_models(
    scope: Scope, configurations: tuple[str, ...], n_cells: int
) -> tuple[np.ndarray, int]:
    """Return how many of some models call each cell wrong, and how many models there are."""
    return _wrong_models(store_version(), _unfiltered(scope), configurations, n_cells)


@apart(st.cache_data, max_entries=64, show_spinner=False)
def _selected_cells(version: str, owner: str, saved: str) -> np.ndarray:
    chosen = selection.SavedSelection.from_json(json.loads(saved))
    return selection.cells_of(shared_store(), owner, chosen)


def selected_cells(owner: str, saved: selection.SavedSelection) -> np.ndarray:
    """Return the `cell_index` of the cells of a saved selection that is no area of the map."""
    return _selected_cells(store_version(), owner=owner, saved=canonical_json(saved.to_json()))


# Keyed by the hash of all bytes of the cells: of large arrays only a sample would be. For minutes.
@apart(st.cache_data, max_entries=64, ttl=600, show_spinner=False)
def _selection_summary(
    version: str, scope: Scope, digest: str, configuration: str, _cells: np.ndarray
) -> SelectionSummary:
    return summarise_selection(_CachedCells(shared_store()), scope, _cells, configuration)


def selection_summary(scope: Scope, cells: np.ndarray, configuration: str) -> SelectionSummary:
    """Return what some cells have in common."""
    return _selection_summary(store_version(), scope, _digest(cells), configuration, cells)


def _digest(cells: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(cells, dtype=np.int64), digest_size=16).hexdigest()


@apart(st.cache_data, max_entries=64, show_spinner=False)
def _selected_rows(
    version: str, scope: Scope, digest: str, configuration: str, limit: int, _cells: np.ndarray
) -> pd.DataFrame:
    cells = cells_on_map(scope, configuration)
    return map_cells.selected_rows(shared_store(), scope, cells, _cells, limit=limit)


def selected_rows(
    scope: Scope, cells: np.ndarray, configuration: str, limit: int | None = None
) -> pd.DataFrame:
    """Return selected cells with all that is known of them; not kept without a `limit`."""
    if limit is None:
        known = cells_on_map(scope, configuration)
        return map_cells.selected_rows(shared_store(), scope, known, cells)
    digest = _digest(cells)
    return _selected_rows(store_version(), _unfiltered(scope), digest, configuration, limit, cells)


@apart(st.cache_data, max_entries=64, show_spinner=False)
def probability_vector(scope: Scope, cell_id: str, run_id: str) -> pd.DataFrame:
    """Return the probability of every type for one cell under the run that tested it."""
    return map_cells.probability_vector(shared_store(), scope, cell_id, run_id)
