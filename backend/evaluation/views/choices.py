"""What there is to choose from: datasets, scopes, series and configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from backend.evaluation.views.series import Reader, configurations_in, series_of
from backend.store.cache import PUBLIC
from backend.types import LABEL_LEVELS

if TYPE_CHECKING:
    from backend.types import Scope

__all__ = ["absent_models", "configurations", "scope_choices", "series_table"]

_SERIES: Final = [
    "series_id",
    "configuration",
    "display_name",
    "model",
    "preset",
    "init",
    "checkpoint",
    "label_level",
    "seed",
    "split_seed",
    "n_folds",
    "n_folds_done",
    "n_folds_failed",
    "is_complete",
    "status_text",
    "notes",
    "created_at",
]
_CHOICES: Final = [
    "dataset_id",
    "name",
    "simulated",
    "is_upload",
    "label_level",
    "protocol",
    "budget",
    "made_at",
]


def series_table(store: Reader, scope: Scope) -> pd.DataFrame:
    """Return one row per series in scope, all seeds, failed and unfinished ones included."""
    series = series_of(store, scope)
    if scope.configurations:
        series = series[series["configuration"].isin(scope.configurations)]
    return series[_SERIES].reset_index(drop=True)


def configurations(store: Reader, scope: Scope) -> pd.DataFrame:
    """Return the choices of the model filter.

    Columns `configuration`, `display_name`, `note`, `status_text`, `is_complete`, `is_default`
    (shown when the user has chosen none), `is_baseline` (no foundation model).
    """
    rows = [
        {
            "configuration": item.key,
            "display_name": item.display_name,
            "note": item.note,
            "status_text": item.status_text,
            "is_complete": item.is_complete,
            "is_default": item.is_default,
            "is_baseline": item.preset is None,
        }
        for item in configurations_in(store, scope, every=True)
    ]
    columns = [
        "configuration",
        "display_name",
        "note",
        "status_text",
        "is_complete",
        "is_default",
        "is_baseline",
    ]
    return pd.DataFrame(rows, columns=columns)


def absent_models(store: Reader, scope: Scope) -> tuple[str, ...]:
    """Name the models of the scope's dataset that have results elsewhere, but none in the scope."""
    runs = store.query("runs", dataset_id=scope.dataset_id, owner=scope.owner)
    here = {item.key.split("@")[0] for item in configurations_in(store, scope, every=True)}
    names = dict(zip(runs["configuration"], runs["display_name"], strict=True))
    return tuple(sorted({name for key, name in names.items() if key not in here}))


def scope_choices(store: Reader, owner: str = "local") -> pd.DataFrame:
    """Return the combinations that have runs, real datasets before simulated ones.

    Columns `dataset_id`, `name`, `simulated`, `is_upload`, `label_level`, `protocol`, `budget`,
    `made_at` (when the latest run of the dataset was made). A
    fine-trained series is offered at the lineage level too.
    """
    datasets = store.query("datasets", owner=owner).sort_values(["simulated", "name"])
    rows = []
    for dataset in datasets.itertuples():
        runs = store.query("runs", dataset_id=dataset.dataset_id, owner=owner)
        combinations = runs[["label_level", "protocol", "budget"]].drop_duplicates()
        seen = {
            (level, row.protocol, row.budget)
            for row in combinations.itertuples()
            for level in LABEL_LEVELS[LABEL_LEVELS.index(row.label_level) :]
        }
        rows += [
            (
                dataset.dataset_id,
                dataset.name,
                bool(dataset.simulated),
                dataset.owner != PUBLIC,
                *choice,
                str(runs["created_at"].max()),
            )
            for choice in sorted(seen)
        ]
    return pd.DataFrame(rows, columns=_CHOICES)
