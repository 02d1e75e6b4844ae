"""The nearest cells of each cell of a dataset: an optional file of its bundle.

`neighbours.parquet` holds one list of row numbers of `cells.parquet` a cell, nearest first. A
bundle without it is complete; it can be added later, because it follows from the counts alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import StoreError
from backend.store.roots import Location, check_id, open_root

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "COLUMN",
    "NEIGHBOURS_FILE",
    "add_neighbours",
    "checked_neighbours",
    "write_neighbours",
]

NEIGHBOURS_FILE: Final = "neighbours.parquet"
COLUMN: Final = "neighbours"


def checked_neighbours(neighbours: np.ndarray, n_cells: int, what: str) -> np.ndarray:
    """Return (n_cells, k) int32 row numbers.

    Raises
    ------
    StoreError
        If the shape does not fit the cells or a number is not one of their rows (or -1: none).
    """
    found = np.asarray(neighbours)
    if found.ndim != 2 or len(found) != n_cells or not np.issubdtype(found.dtype, np.integer):
        shape = " × ".join(map(str, found.shape))
        msg = f"The neighbours of {what} are {shape} {found.dtype} for {n_cells:,} cells."
        raise StoreError(msg, "Give one row of whole numbers a cell.")
    if found.size and not (found.min() >= -1 and found.max() < n_cells):
        msg = f"The neighbours of {what} name rows from {found.min()} to {found.max():,}."
        raise StoreError(msg, f"Rows are 0 to {n_cells - 1:,}; -1 stands for none.")
    return np.ascontiguousarray(found, dtype=np.int32)


def write_neighbours(path: Path, neighbours: np.ndarray) -> None:
    """Write checked neighbours so that equal numbers give equal bytes."""
    values = pa.array(neighbours.ravel(), pa.int32())
    lists = pa.FixedSizeListArray.from_arrays(values, neighbours.shape[1])
    pq.write_table(pa.table({COLUMN: lists}), path, compression="zstd", use_dictionary=False)


def add_neighbours(
    root: Location, dataset_id: str, cell_ids: Sequence[str] | np.ndarray, neighbours: np.ndarray
) -> Location:
    """Add neighbours to a dataset's bundle, or replace those that are there.

    Parameters
    ----------
    cell_ids
        The cells in the order of `neighbours`; must be that of the bundle.

    Raises
    ------
    StoreError
        If there is no such bundle, or if it holds other cells.
    """
    opened = open_root(root)
    what = f"dataset {check_id(dataset_id, '`dataset_id`')}"
    if opened.read_bytes("datasets", dataset_id, "dataset.json") is None:
        msg = f"There is no {what} in this folder."
        raise StoreError(msg, "Run a model on the file first, or name the folder of its results.")
    with opened.local_file("datasets", dataset_id, "cells.parquet") as path:
        kept = pq.read_table(path, columns=["cell_id"])["cell_id"].to_pylist()
    if kept != list(cell_ids):
        msg = f"The file holds other cells than {what}, or in another order."
        raise StoreError(msg, "Use the file that its results were made from.")
    checked = checked_neighbours(neighbours, len(kept), what)
    opened.add_file(
        "datasets", dataset_id, NEIGHBOURS_FILE, lambda path: write_neighbours(path, checked)
    )
    opened.list_file("datasets", dataset_id, NEIGHBOURS_FILE, head="dataset.json")
    return opened.folder("datasets", dataset_id)
