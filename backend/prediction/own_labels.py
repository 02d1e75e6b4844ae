"""The labels of a file as they stand in it, with what became of each cell's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import StoreError
from backend.types import ID

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__all__ = ["OWN_LABELS_SCHEMA", "own_labels_table", "read_own_labels"]

OWN_LABELS_SCHEMA: Final = pa.schema(
    [
        ("cell_id", pa.string()),
        ("own_label", pa.string()),
        ("counts_as", pa.string()),
        ("outcome", pa.string()),
    ]
)
"""Columns of `own_labels.parquet` beside the predictions of an evaluated file."""


def own_labels_table(
    cell_ids: np.ndarray,
    own: np.ndarray,
    mapped: np.ndarray,
    *,
    in_training: np.ndarray,
    is_empty: np.ndarray,
) -> pa.Table:
    """Return what became of each cell's label.

    Parameters
    ----------
    cell_ids, own, mapped
        (n_cells,) id, label of the file and type of the models; None for none.
    in_training, is_empty
        (n_cells,) bool.

    Returns
    -------
    `outcome` is the first that holds of "no counts", "no label", "not mapped", "in training" and
    "scored".
    """
    no_label = np.array([value is None or value != value for value in own], dtype=bool)
    not_mapped = np.array([value is None for value in mapped], dtype=bool)
    outcome = np.select(
        [is_empty, no_label, not_mapped, in_training],
        ["no counts", "no label", "not mapped", "in training"],
        "scored",
    )
    plain = own.copy()
    plain[no_label] = None
    return pa.table(
        [pa.array(values, pa.string()) for values in (cell_ids, plain, mapped, outcome)],
        schema=OWN_LABELS_SCHEMA,
    )


def read_own_labels(root: Path, run_id: str) -> pd.DataFrame:
    """Return the table of a run below a local root.

    Raises
    ------
    StoreError
        If the run keeps none.
    """
    path = root / "runs" / run_id / "own_labels.parquet"
    if not ID.fullmatch(run_id) or not path.is_file():
        msg = "The labels of the file were not kept."
        raise StoreError(msg, "Evaluate the file again.")
    return pq.read_table(path, schema=OWN_LABELS_SCHEMA).to_pandas()
