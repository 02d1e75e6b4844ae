"""What is read from files: stored models, bundles of runs, uploads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.cache.store import apart, shared_store, store_version
from backend.config import home
from backend.data.inspect_upload import inspect_upload
from backend.evaluation.views import runs
from backend.jobs.trainable_models import list_trainable
from backend.prediction.imported_table import inspect_table
from backend.prediction.model_choices import describe_models
from backend.prediction.out_of_distribution import count_outside
from backend.prediction.own_labels import read_own_labels
from backend.prediction.saved_models import list_saved_models, visible_roots

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "inspected_table",
    "inspected_upload",
    "outside",
    "own_labels",
    "run_cards",
    "runs_overview",
    "stored_models",
    "trainable_models",
]


@apart(st.cache_data, max_entries=8, show_spinner="Reading the stored models …")
def _stored_models(version: str, owner: str) -> tuple[pd.DataFrame, dict[str, str]]:
    models = list_saved_models(visible_roots(owner))
    files = {model.run_id: str(model.folder / "genes.json") for model in models}
    return describe_models(shared_store(), models, owner=owner), files


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


@apart(st.cache_data, max_entries=8, show_spinner=False)
def _runs_overview(version: str, owner: str) -> runs.RunsOverview:
    return runs.runs_overview(shared_store(), owner, visible_roots(owner))


def runs_overview(owner: str) -> runs.RunsOverview:
    """Return all runs that an owner may see, and their series."""
    return _runs_overview(store_version(), owner=owner)


@apart(st.cache_data, max_entries=32, show_spinner=False)
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
