"""A map of cells that came without coordinates, from what a model predicted: for display only."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backend.data.uploads import user_folder
from backend.errors import InputError
from backend.evaluation.views.series import shown_series
from backend.files import replaced
from backend.store.per_cell import probabilities
from backend.store.roots import check_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backend.store.cache import Store
    from backend.types import Scope

__all__ = ["computed_map_file", "map_by_predictions", "read_computed_map", "write_computed_map"]

logger = logging.getLogger(__name__)


def computed_map_file(home: Path, owner: str, dataset_id: str) -> Path:
    """Return where the computed map of a dataset is kept for an owner."""
    name = check_id(dataset_id, "`dataset_id`")
    return user_folder(home, owner) / "places" / f"{name}.npy"


def write_computed_map(home: Path, owner: str, dataset_id: str, coordinates: np.ndarray) -> Path:
    """Keep coordinates, (n, 2) float32, in the order of `cell_index`."""
    target = computed_map_file(home, owner, dataset_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target, what="the map of the cells") as draft:
        np.save(draft, coordinates.astype(np.float32), allow_pickle=False)
    return target


def read_computed_map(home: Path, owner: str, dataset_id: str, n_cells: int) -> np.ndarray | None:
    """Return the coordinates that were computed for a dataset, (n, 2) float32; None without any.

    A file that is damaged or of other cells counts as none, so that they can be computed again; the
    log names it.
    """
    path = computed_map_file(home, owner, dataset_id)
    try:
        coordinates: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        logger.warning("The map of %s cannot be read: %s", dataset_id, error)
        return None
    if coordinates.shape != (n_cells, 2):
        logger.warning("The map of %s is %s for %d cells", dataset_id, coordinates.shape, n_cells)
        return None
    return coordinates


def map_by_predictions(
    store: Store,
    scope: Scope,
    configuration: str,
    *,
    progress: Callable[[float, str], None],
    seed: int = 0,
) -> np.ndarray:
    """Place cells so that those with similar class probabilities lie together.

    UMAP on the square roots of the probabilities that the model's shown series gave to its test
    cells. This is no map of expression: types that the model confuses overlap.

    Returns
    -------
    (n_cells, 2) float32 by `cell_index`, NaN for cells without probabilities.

    Raises
    ------
    InputError
        If no cell has probabilities.
    """
    from backend.data.cell_map import map_components, part_of

    row = shown_series(store, scope, configuration)
    asked = {"dataset_id": scope.dataset_id, "owner": scope.owner}
    cells = store.query(
        "cells_of_series",
        label_level=scope.label_level,
        series_id=row["series_id"],
        timepoints=None,
        truth="all",
        **asked,
    )
    runs = store.query("runs", **asked)
    is_used = (runs["series_id"] == row["series_id"]) & (runs["status"] == "done")
    runs = runs[is_used & runs["is_current"].astype(bool) & runs["problem"].isna()]
    parts = []
    for number, run in enumerate(runs.itertuples()):
        progress(0.3 * number / len(runs), "reading the probabilities")
        tested = cells[cells["fold"] == run.fold]
        found = probabilities(store, run.run_id, tested["cell_id"].tolist(), owner=scope.owner)
        parts.append(found.set_axis(tested["cell_index"].to_numpy(), axis=0))
    table = pd.concat(parts).fillna(0.0) if parts else pd.DataFrame()
    table = table[table.sum(axis=1) > 0]
    if table.empty:
        msg = f"No cell has class probabilities of {row['display_name']}."
        raise InputError(
            msg, "Choose another model, or bring a table with coordinates for its cells."
        )
    rows = table.index.to_numpy(dtype=np.int64)
    found = map_components(
        np.sqrt(np.clip(table.to_numpy(dtype=np.float32), 0, 1)),
        cells["donor"].to_numpy()[rows],
        seed=seed,
        progress=part_of(progress, 0.3, 1.0),
    )
    coordinates = np.full((len(cells), 2), np.nan, dtype=np.float32)
    coordinates[rows] = found.coordinates
    return coordinates
