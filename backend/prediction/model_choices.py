"""Which stored models there are to choose from, with the quality that their folds measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from backend.evaluation import views
from backend.evaluation.intervals import Estimate
from backend.evaluation.metrics import metric_of
from backend.evaluation.wording import plural, score_text
from backend.models.reference import FILE
from backend.protocols import protocol_label
from backend.types import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.evaluation.views.series import Reader
    from backend.prediction.saved_models import SavedModel

__all__ = ["MODEL_COLUMNS", "describe_models"]

MODEL_COLUMNS: Final = (
    "run_id",
    "display_name",
    "trained_on",
    "label_level",
    "n_train",
    "n_train_donors",
    "n_types",
    "quality",
    "has_reference",
    "types",
    "donors",
    "created_at",
)


def describe_models(store: Reader, models: Sequence[SavedModel], *, owner: str) -> pd.DataFrame:
    """Describe stored models.

    Parameters
    ----------
    store
        Holds the folds of their series.
    models
        See `backend.prediction.saved_models.list_saved_models`.

    Returns
    -------
    One row a model in their order, columns `MODEL_COLUMNS`. `quality` quotes macro-F1 by timepoint
    from the folds of the same series: the final fit itself has no test cells.
    """
    rows = [
        {
            "run_id": model.run_id,
            "display_name": model.run.display_name,
            "trained_on": model.trained_on(),
            "label_level": model.run.label_level,
            "n_train": model.run.n_train,
            "n_train_donors": model.run.n_train_donors,
            "n_types": len(model.classes),
            "quality": _quality(store, model, owner),
            "has_reference": (model.folder / FILE).is_file(),
            "types": model.classes,
            "donors": tuple(sorted(model.train_donors())),
            "created_at": model.run.created_at,
        }
        for model in models
    ]
    return pd.DataFrame(rows, columns=list(MODEL_COLUMNS))


def _quality(store: Reader, model: SavedModel, owner: str) -> str:
    run = model.run
    unknown = "quality not known: its series has no complete set of folds here"
    datasets = store.query("datasets", owner=owner)
    if run.dataset_id not in set(datasets["dataset_id"]):
        return unknown
    scope = Scope(
        dataset_id=run.dataset_id,
        owner=owner,
        label_level=run.label_level,
        protocol=run.protocol,
        budget=run.budget,
    )
    series = views.series_table(store, scope)
    found = series[(series["series_id"] == run.series_id) & series["is_complete"].astype(bool)]
    if found.empty:
        return unknown
    key = found["configuration"].iloc[0]
    scores = views.scores_by_timepoint(store, scope.with_(configurations=(key,))).scores
    scores = scores[scores["value"].notna()]
    parts = [
        f"{row.timepoint} "
        + score_text(
            Estimate(row.value, row.low, row.high, row.interval, int(row.n_donors), row.reason),
            n_cells=int(row.n_cells),
        )
        for row in scores.itertuples()
    ]
    if not parts:
        return "quality not known: no type has enough cells and donors to be scored"
    how = protocol_label(run.protocol)
    folds = plural(int(found["n_folds"].iloc[0]), "fold")
    return f"{metric_of(scores).label} {', '.join(parts)}; {how}, {folds}"
