"""What the views of `backend.evaluation` say of a scope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.cache.store import Reader, apart, ask, shared_store, store_version
from backend.evaluation import views

if TYPE_CHECKING:
    import pandas as pd

    from backend.types import Scope

__all__ = [
    "absent_models",
    "answers",
    "averages",
    "blasts",
    "configurations",
    "confusions",
    "disagreement",
    "f1_by_cell_type",
    "model_differences",
    "optimism",
    "overview",
    "patient_courses",
    "provenance",
    "published",
    "runs_of",
    "scope_choices",
    "scores_by_donor",
    "scores_by_timepoint",
    "series_table",
    "timepoints",
]


@apart(st.cache_data, max_entries=16, show_spinner=False)
def _choices(owner: str, version: str) -> pd.DataFrame:
    return views.scope_choices(Reader(version), owner)


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


def published(scope: Scope) -> views.Published:
    """Return what a study reports beside what is found in this scope."""
    return ask("published", scope)


def optimism(scope: Scope, metric: str) -> views.OptimismScores:
    """Return a metric under each protocol on one panel, and the gaps between them."""
    return ask("optimism", scope, metric=metric)


@apart(st.cache_data, max_entries=16, show_spinner=False)
def _timepoints(owner: str, dataset_id: str, version: str) -> tuple[str, ...]:
    rows = shared_store().query("timepoint_list", owner=owner, dataset_id=dataset_id)
    return tuple(rows["timepoint"].dropna().astype(str))


def timepoints(scope: Scope) -> tuple[str, ...]:
    """Return the timepoints that have cells in the scope's dataset."""
    return _timepoints(owner=scope.owner, dataset_id=scope.dataset_id, version=store_version())


def runs_of(owner: str, dataset_id: str) -> pd.DataFrame:
    """Return every run of a dataset that the owner may see."""
    return shared_store().query("runs", owner=owner, dataset_id=dataset_id)
