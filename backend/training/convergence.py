"""Whether a fit stopped because nothing improved any more, or was stopped while it improved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.training.settings import best_epoch
from backend.types import STILL_IMPROVING, STOPPED_IMPROVING

if TYPE_CHECKING:
    import pandas as pd

    from backend.models.base import RecipeDefaults

__all__ = ["USUAL_PATIENCE", "convergence_of"]

USUAL_PATIENCE: Final = 3
"""Epochs without a better one that count as the end of improvement, where a recipe names none."""


def convergence_of(history: pd.DataFrame, recipe: RecipeDefaults) -> dict[str, Any] | None:
    """Say how a fit ended, with the numbers that say so.

    Parameters
    ----------
    history
        One row an epoch, see `backend.training.finetune.Classifier`.
    recipe
        What was fitted by, the settings of the series in it.

    Returns
    -------
    `state` ("stopped improving" when the best epoch was followed by `patience` epochs that were
    not better, otherwise "still improving when stopped"), `select_by`, `best_epoch`,
    `last_epoch`, `max_epochs`, `patience`, and the scores `best` and `last` by `select_by`.
    None without validation cells, or where a score is not finite.
    """
    scores = history.get(recipe.select_by)
    if scores is None or not len(scores) or not np.isfinite(scores).all():
        return None
    patience = int(recipe.schedule_values.get("patience", USUAL_PATIENCE))
    best, last = best_epoch(history, recipe.select_by), int(history["epoch"].iloc[-1])
    is_over = last - best >= patience
    return {
        "state": STOPPED_IMPROVING if is_over else STILL_IMPROVING,
        "select_by": recipe.select_by,
        "best_epoch": best,
        "last_epoch": last,
        "max_epochs": recipe.epochs,
        "patience": patience,
        "best": float(scores[history["epoch"] == best].iloc[0]),
        "last": float(scores.iloc[-1]),
    }
