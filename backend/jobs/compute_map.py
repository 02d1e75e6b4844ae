"""The job that computes a map for a dataset that came without coordinates of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backend.errors import InputError
from backend.evaluation.cells.computed_map import map_by_predictions, write_computed_map
from backend.store.cache import Store, default_roots
from backend.types import Scope

if TYPE_CHECKING:
    from backend.jobs.handlers import JobContext

__all__ = ["run"]

_SCOPE = ("dataset_id", "label_level", "protocol", "budget")


def run(request: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Map the cells of one dataset by the predictions of one model.

    Parameters
    ----------
    request
        `dataset_id`, `label_level`, `protocol`, `budget` and `configuration`, all texts.

    Returns
    -------
    `dataset_id`, `n_cells` and `n_placed`.

    Raises
    ------
    InputError
        If the request is wrong or the model has no probabilities for these cells.
    """
    names = (*_SCOPE, "configuration")
    if missing := [name for name in names if not isinstance(request.get(name), str)]:
        msg = f"The request says nothing of: {', '.join(missing)}."
        raise InputError(msg, "Start the job from the Failure map.")
    scope = Scope(owner=context.owner, **{name: request[name] for name in _SCOPE})
    with Store(":memory:", default_roots) as store:
        context.log(f"mapping the cells of {scope.dataset_id} by {request['configuration']}")
        store.sync()
        coordinates = map_by_predictions(
            store, scope, request["configuration"], progress=context.progress
        )
    write_computed_map(context.home, context.owner, scope.dataset_id, coordinates)
    n_placed = int(np.isfinite(coordinates).all(axis=1).sum())
    return {"dataset_id": scope.dataset_id, "n_cells": len(coordinates), "n_placed": n_placed}
