"""Every cached call of the dashboard; nothing else caches.

Results are keyed by the scope and by the version of the store, so that new bundles replace old
answers by key. What belongs to an upload is kept in the sessions of its owner, everything else for
all. The store itself is one handle for the process; it takes a cursor per call.
"""

from __future__ import annotations

import json
from functools import wraps
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import streamlit as st

from app.identity import LOCAL
from backend.config import home
from backend.data.inspect_upload import inspect_upload
from backend.evaluation import views
from backend.evaluation.cells import computed_map, map_cells, selection
from backend.evaluation.cells.columns import CellColumns, Hits, load_columns, load_hits
from backend.evaluation.cells.summary import CellReader, summarise_selection
from backend.evaluation.views import runs
from backend.evaluation.views.series import all_shown_series
from backend.jobs.trainable_models import list_trainable
from backend.prediction.imported_table import inspect_table
from backend.prediction.model_choices import describe_models
from backend.prediction.out_of_distribution import count_outside
from backend.prediction.own_labels import read_own_labels
from backend.prediction.saved_models import list_saved_models, visible_roots
from backend.store.cache import PUBLIC, Store
from backend.types import Scope, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from backend.evaluation.cells.neighbourhood import Sides
    from backend.evaluation.cells.summary import SelectionSummary, Whole

__all__ = [
    "absent_models",
    "answers",
    "ask",
    "averages",
    "blasts",
    "cells_on_map",
    "configurations",
    "confusions",
    "disagreement",
    "f1_by_cell_type",
    "inspected_upload",
    "model_differences",
    "optimism",
    "outside",
    "overview",
    "patient_courses",
    "probability_vector",
    "provenance",
    "refresh",
    "run_cards",
    "runs_of",
    "runs_overview",
    "scope_choices",
    "scores_by_donor",
    "scores_by_timepoint",
    "selected_cells",
    "selected_rows",
    "selection_summary",
    "series_table",
    "stored_models",
    "timepoints",
    "trainable_models",
    "wrong_models",
]

P = ParamSpec("P")
R = TypeVar("R")
_SYNC_SECONDS = 30


def _is_private(owner: str, dataset_id: str | None) -> bool:
    """Tell whether an answer may hold what somebody brought to a server of several people."""
    if owner in (LOCAL, PUBLIC):
        return False
    own = home() / "users" / owner / "datasets"
    return (own / dataset_id if dataset_id else own).is_dir()


def _apart(kind: Any, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Cache for all sessions, but what belongs to an upload in the session that asks.

    The wrapped function gets a `Scope`, or `owner` and `dataset_id` by their names.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        shared, own = kind(**options)(function), kind(scope="session", **options)(function)

        @wraps(function)
        def asked(*args: P.args, **kwargs: P.kwargs) -> R:
            scope = next((value for value in args if isinstance(value, Scope)), None)
            owner = scope.owner if scope else str(kwargs["owner"])
            dataset_id = scope.dataset_id if scope else kwargs.get("dataset_id")
            is_own = _is_private(owner, dataset_id)  # type: ignore[arg-type]
            return (own if is_own else shared)(*args, **kwargs)

        return asked

    return wrap


@st.cache_resource(show_spinner="Reading the results …")
def _store() -> Store:
    return Store.open_default()


@st.cache_data(ttl=_SYNC_SECONDS, max_entries=1, show_spinner=False)
def store_version() -> str:
    """Return the store's version after bringing it up to date, at most every half minute."""
    store = _store()
    store.sync()
    return store.version


def store_notice() -> str:
    """Return what became of a damaged store file, or "" when nothing did."""
    return _store().notice


# What every view asks first: small answers over all runs or cells.
_COMMON = frozenset({"cell_support", "datasets", "label_sources", "runs"})


@_apart(st.cache_data, max_entries=64, show_spinner=False)
def _common(version: str, name: str, **parameters: Any) -> pd.DataFrame:
    return _store().query(name, **parameters)


@_apart(st.cache_data, max_entries=8, show_spinner=False)
def _tallies(version: str, **parameters: Any) -> pd.DataFrame:
    return _store().query("tallies", **parameters)


class _Reader:
    """The store of one version, as views read it."""

    def __init__(self, version: str) -> None:
        self.version = version

    def query(self, name: str, **parameters: Any) -> pd.DataFrame:
        if name in _COMMON:
            return _common(self.version, name, **parameters)
        if name == "tallies":
            return _tallies(self.version, **parameters)
        return _store().query(name, **parameters)

    def sql(self, statement: str, **parameters: Any) -> pd.DataFrame:
        return _store().sql(statement, **parameters)


@_apart(st.cache_data, max_entries=256, show_spinner=False)
def _view(name: str, version: str, scope: Scope, **arguments: Any) -> Any:
    question: Callable[..., Any] = getattr(views, name)
    return question(_Reader(version), scope, **arguments)


def ask(name: str, scope: Scope, **arguments: Any) -> Any:
    """Return what a view of `backend.evaluation.views` says of a scope."""
    return _view(name, store_version(), scope, **arguments)


@_apart(st.cache_data, max_entries=16, show_spinner=False)
def _choices(owner: str, version: str) -> pd.DataFrame:
    return views.scope_choices(_Reader(version), owner)


def scope_choices(owner: str) -> pd.DataFrame:
    """Return the combinations of dataset, label level, protocol and budget that have results."""
    return _choices(owner=owner, version=store_version())


def configurations(scope: Scope) -> pd.DataFrame:
    """Return the models that were run in this scope."""
    return ask("configurations", scope)


def absent_models(scope: Scope) -> tuple[str, ...]:
    """Return the models of the dataset that have no results in this scope."""
    return ask("absent_models", scope)


def series_table(scope: Scope) -> pd.DataFrame:
    """Return one row per series in scope."""
    return ask("series_table", scope)


def provenance(scope: Scope) -> views.Provenance:
    """Return where the numbers of this scope come from."""
    return ask("provenance", scope)


def answers(scope: Scope) -> tuple[views.Answer, ...]:
    """Return how each model did on all scored cells of the scope."""
    return ask("answers", scope)


def overview(scope: Scope, metric: str) -> views.Overview:
    """Return sentences, scores, collapsed types and provenance."""
    return ask("overview", scope, metric=metric)


def scores_by_timepoint(scope: Scope, metric: str) -> views.TimepointScores:
    """Return a metric per model and timepoint, with every donor's own."""
    return ask("scores_by_timepoint", scope, metric=metric)


def model_differences(scope: Scope, reference: str, metric: str) -> views.ModelDifferences:
    """Return every model against one of them, paired by donor."""
    return ask("model_differences", scope, reference=reference, metric=metric)


def f1_by_cell_type(
    scope: Scope, *, by: str = "model", configuration: str | None = None
) -> views.CellTypeScores:
    """Return F1 per cell type and model, or per cell type and timepoint of one model."""
    return ask("f1_by_cell_type", scope, by=by, configuration=configuration)


def _unfiltered(scope: Scope) -> Scope:
    """Return the scope without what only filters cells: it keys the columns of all cells."""
    return scope.with_(configurations=(), timepoints=(), cell_types=(), truth="all")


# As resources: read-only arrays are shared, cached data would be copied each time. A million cells
# take 20 MB as columns, 9 MB as a map, 6 MB as sides and 5 MB as hits.
@_apart(st.cache_resource, max_entries=4, show_spinner=False)
def _columns(version: str, owner: str, dataset_id: str) -> CellColumns:
    return load_columns(_Reader(version), Scope(dataset_id=dataset_id, owner=owner))


@_apart(st.cache_resource, max_entries=16, show_spinner=False)
def _map_cells(
    version: str, scope: Scope, configuration: str, placed_at: int
) -> map_cells.MapCells:
    known = _columns(version, owner=scope.owner, dataset_id=scope.dataset_id)
    found = None
    if placed_at and not known.coordinates.is_placed.any():
        found = computed_map.read_computed_map(home(), scope.owner, scope.dataset_id, len(known))
    reader = _Reader(version)
    return map_cells.load_cells(reader, scope, configuration, places=found, columns=known)


def cells_on_map(scope: Scope, configuration: str) -> map_cells.MapCells:
    """Return all cells of the scope's dataset under one model, unfiltered, for a map."""
    file = computed_map.computed_map_file(home(), scope.owner, scope.dataset_id)
    placed_at = file.stat().st_mtime_ns if file.is_file() else 0
    return _map_cells(store_version(), _unfiltered(scope), configuration, placed_at)


@_apart(st.cache_resource, max_entries=48, show_spinner=False)
def _hits(version: str, scope: Scope, series_id: str, n_cells: int) -> Hits:
    return load_hits(_Reader(version), scope, series_id, n_cells)


# For minutes only: neighbours are added to a dataset without a new version of the store.
@_apart(st.cache_resource, max_entries=16, ttl=600, show_spinner=False)
def _sides(version: str, scope: Scope, configuration: str) -> tuple[int, Sides] | None:
    return CellReader.sides(_CachedCells(_store()), scope, configuration)


@_apart(st.cache_resource, max_entries=64, show_spinner=False)
def _whole(version: str, scope: Scope) -> Whole:
    return CellReader.whole(_CachedCells(_store()), scope)


@_apart(st.cache_data, max_entries=64, show_spinner=False)
def _shown(version: str, scope: Scope) -> pd.DataFrame:
    return all_shown_series(_Reader(version), scope)


class _CachedCells(CellReader):
    """The columns that selections are summarised from, as all sessions share them."""

    def columns(self, scope: Scope) -> CellColumns:
        return _columns(store_version(), owner=scope.owner, dataset_id=scope.dataset_id)

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


@_apart(st.cache_resource, max_entries=8, show_spinner=False)
def _wrong_models(
    version: str, scope: Scope, configurations: tuple[str, ...], n_cells: int
) -> tuple[np.ndarray, int]:
    def hits_of(series_id: str) -> Hits:
        return _hits(version, scope, series_id, n_cells)

    reader = _Reader(version)
    return map_cells.wrong_models(reader, scope, configurations, n_cells, hits_of=hits_of)


def wrong_models(
    scope: Scope, configurations: tuple[str, ...], n_cells: int
) -> tuple[np.ndarray, int]:
    """Return how many of some models call each cell wrong, and how many models there are."""
    return _wrong_models(store_version(), _unfiltered(scope), configurations, n_cells)


@_apart(st.cache_data, max_entries=64, show_spinner=False)
def _selected_cells(version: str, owner: str, saved: str) -> np.ndarray:
    chosen = selection.SavedSelection.from_json(json.loads(saved))
    return selection.cells_of(_store(), owner, chosen)


def selected_cells(owner: str, saved: selection.SavedSelection) -> np.ndarray:
    """Return the `cell_index` of the cells of a saved selection that is no area of the map."""
    return _selected_cells(store_version(), owner=owner, saved=canonical_json(saved.to_json()))


# Keyed by the hash of all bytes of the cells: of large arrays only a sample would be. For minutes.
@_apart(st.cache_data, max_entries=64, ttl=600, show_spinner=False)
def _selection_summary(
    version: str, scope: Scope, digest: str, configuration: str, _cells: np.ndarray
) -> SelectionSummary:
    return summarise_selection(_CachedCells(_store()), scope, _cells, configuration)


def selection_summary(scope: Scope, cells: np.ndarray, configuration: str) -> SelectionSummary:
    """Return what some cells have in common."""
    return _selection_summary(store_version(), scope, _digest(cells), configuration, cells)


def _digest(cells: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(cells, dtype=np.int64), digest_size=16).hexdigest()


@_apart(st.cache_data, max_entries=64, show_spinner=False)
def _selected_rows(
    version: str, scope: Scope, digest: str, configuration: str, limit: int, _cells: np.ndarray
) -> pd.DataFrame:
    cells = cells_on_map(scope, configuration)
    return map_cells.selected_rows(_store(), scope, cells, _cells, limit=limit)


def selected_rows(
    scope: Scope, cells: np.ndarray, configuration: str, limit: int | None = None
) -> pd.DataFrame:
    """Return selected cells with all that is known of them; not kept without a `limit`."""
    if limit is None:
        known = cells_on_map(scope, configuration)
        return map_cells.selected_rows(_store(), scope, known, cells)
    digest = _digest(cells)
    return _selected_rows(store_version(), _unfiltered(scope), digest, configuration, limit, cells)


@_apart(st.cache_data, max_entries=64, show_spinner=False)
def probability_vector(scope: Scope, cell_id: str, run_id: str) -> pd.DataFrame:
    """Return the probability of every type for one cell under the run that tested it."""
    return map_cells.probability_vector(_store(), scope, cell_id, run_id)


def confusions(scope: Scope, configuration: str) -> views.Confusions:
    """Return labels against predictions of one model."""
    return ask("confusions", scope, configuration=configuration)


def disagreement(scope: Scope, first: str, second: str) -> views.Disagreement:
    """Return on which cells two models are right."""
    return ask("disagreement", scope, first=first, second=second)


def averages(scope: Scope) -> pd.DataFrame:
    """Return accuracy, weighted and macro-F1 beside the worst types, by model and timepoint."""
    return ask("averages", scope)


def patient_courses(scope: Scope, configuration: str, metric: str) -> views.PatientCourses:
    """Return the donors that have cells at several timepoints, and what changes in them."""
    return ask("patient_courses", scope, configuration=configuration, metric=metric)


def blasts(scope: Scope) -> views.Blasts:
    """Return labelled against predicted malignancy of every model trained at level fine."""
    return ask("blasts", scope)


def scores_by_donor(scope: Scope, configuration: str, metric: str) -> views.DonorScores:
    """Return F1 per donor and cell type, a metric per donor, and labelled against predicted composition."""
    return ask("scores_by_donor", scope, configuration=configuration, metric=metric)


def optimism(scope: Scope, metric: str) -> views.OptimismScores:
    """Return a metric under each protocol on one panel, and the gaps between them."""
    return ask("optimism", scope, metric=metric)


@_apart(st.cache_data, max_entries=16, show_spinner=False)
def _timepoints(owner: str, dataset_id: str, version: str) -> tuple[str, ...]:
    rows = _store().query("timepoint_list", owner=owner, dataset_id=dataset_id)
    return tuple(rows["timepoint"].dropna().astype(str))


def timepoints(scope: Scope) -> tuple[str, ...]:
    """Return the timepoints that have cells in the scope's dataset."""
    return _timepoints(owner=scope.owner, dataset_id=scope.dataset_id, version=store_version())


def runs_of(owner: str, dataset_id: str) -> pd.DataFrame:
    """Return every run of a dataset that the owner may see."""
    return _store().query("runs", owner=owner, dataset_id=dataset_id)


def refresh() -> None:
    """Bring the store up to date at the next question, for results that were just made."""
    store_version.clear()


@_apart(st.cache_data, max_entries=8, show_spinner="Reading the stored models …")
def _stored_models(version: str, owner: str) -> tuple[pd.DataFrame, dict[str, str]]:
    models = list_saved_models(visible_roots(owner))
    files = {model.run_id: str(model.folder / "genes.json") for model in models}
    return describe_models(_store(), models, owner=owner), files


def stored_models(owner: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the models to choose from, and the file of each one's genes by run id."""
    return _stored_models(store_version(), owner=owner)


# What belongs to an upload stays in the session that brought it.
@st.cache_data(scope="session", max_entries=4, show_spinner="Checking the file …")
def inspected_upload(
    path: str, size: int, roles: str, gene_files: dict[str, str]
) -> dict[str, Any]:
    """Return what `inspect_upload` finds in a file; `roles` as JSON, "" to guess."""
    chosen = json.loads(roles) if roles else None
    return inspect_upload(Path(path), roles=chosen, gene_files=gene_files)


@st.cache_data(scope="session", max_entries=4, show_spinner="Checking the table …")
def inspected_table(path: str, size: int, owner: str) -> dict[str, Any]:
    """Return what `inspect_table` finds in a table of predictions."""
    return inspect_table(Path(path), [*visible_roots(owner), home() / "users" / owner])


@st.cache_data(scope="session", max_entries=4, show_spinner=False)
def outside(owner: str, dataset_id: str, run_id: str, by: str) -> pd.DataFrame:
    """Return the share of an owner's cells that lie outside a model's training data."""
    return count_outside(home() / "users" / owner, dataset_id, run_id, by)  # type: ignore[arg-type]


@st.cache_data(scope="session", max_entries=2, show_spinner=False)
def own_labels(owner: str, run_id: str) -> pd.DataFrame:
    """Return the labels of an owner's file as they stand in it, with what became of each."""
    return read_own_labels(home() / "users" / owner, run_id)


@_apart(st.cache_data, max_entries=8, show_spinner=False)
def _runs_overview(version: str, owner: str) -> runs.RunsOverview:
    return runs.runs_overview(_store(), owner, visible_roots(owner))


def runs_overview(owner: str) -> runs.RunsOverview:
    """Return all runs that an owner may see, and their series."""
    return _runs_overview(store_version(), owner=owner)


@_apart(st.cache_data, max_entries=32, show_spinner=False)
def _run_cards(version: str, owner: str, run_ids: tuple[str, ...]) -> list[runs.RunCard]:
    roots = visible_roots(owner)
    return [runs.find_card(roots, run_id) for run_id in run_ids]


def run_cards(owner: str, run_ids: tuple[str, ...]) -> list[runs.RunCard]:
    """Return what the bundles of some runs tell."""
    return _run_cards(store_version(), owner=owner, run_ids=run_ids)


@st.cache_data(max_entries=1, ttl=600, show_spinner="Reading the list of models, once …")
def trainable_models() -> list[dict[str, Any]]:
    """Return the models that a job may fit, asked of another process."""
    return list_trainable()
