"""Model source: the donor-held-out series that an upload's model is the final fit of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from backend.evaluation.wording import plural
from backend.types import Scope

if TYPE_CHECKING:
    from backend.evaluation.views.series import Reader

__all__ = ["ModelSource", "model_source"]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Folds of the series whose final fit predicted an upload.

    Parameters
    ----------
    series_id, dataset_id, name
        The series, its dataset and what that is called.
    runs
        (run id, classes) of the folds that are done.
    n_folds
        Folds that there should be.
    scope
        The scope that the series is read in.
    """

    series_id: str
    dataset_id: str
    name: str
    runs: tuple[tuple[str, tuple[str, ...]], ...]
    n_folds: int
    scope: Scope

    @property
    def reason(self) -> str:
        """Why the series cannot stand for the model; empty when it can."""
        if len(self.runs) >= self.n_folds:
            return ""
        return f"only {len(self.runs)} of {plural(self.n_folds, 'fold')} of its series are here"


def model_source(store: Reader, scope: Scope, series_id: str) -> ModelSource | None:
    """Return the series behind an upload's predictions; None for imported ones and other runs."""
    here = store.query("runs", owner=scope.owner, dataset_id=scope.dataset_id)
    here = here[here["series_id"] == series_id]
    if here.empty:
        return None
    final_id = json.loads(here["settings"].iloc[0] or "{}").get("final_run")
    if not final_id:
        return None
    runs = store.query("runs", owner=scope.owner, dataset_id=None)
    final = runs[runs["run_id"] == str(final_id)]
    if final.empty:
        return None
    fit = final.iloc[0]
    folds = runs[
        (runs["series_id"] == fit["series_id"])
        & (runs["fold"] >= 0)
        & (runs["status"] == "done")
        & runs["problem"].isna()
        & runs["is_current"].astype(bool)
    ].drop_duplicates("fold")
    datasets = store.query("datasets", owner=scope.owner)
    names = datasets.loc[datasets["dataset_id"] == fit["dataset_id"], "name"]
    if names.empty:
        return None
    return ModelSource(
        series_id=str(fit["series_id"]),
        dataset_id=str(fit["dataset_id"]),
        name=str(names.iloc[0]),
        runs=tuple(
            (str(run_id), tuple(classes))
            for run_id, classes in zip(folds["run_id"], folds["classes"], strict=True)
        ),
        n_folds=int(fit["folds"]) if pd.notna(fit["folds"]) else 0,
        scope=Scope(
            dataset_id=str(fit["dataset_id"]),
            owner=scope.owner,
            label_level=scope.label_level,
            protocol=str(fit["protocol"]),
            budget=str(fit["budget"]),
        ),
    )
