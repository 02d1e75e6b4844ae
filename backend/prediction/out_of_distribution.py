"""Cells of a file that lie outside the training data of a model: kept, and counted by group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import StoreError
from backend.models.reference import OUTSIDE
from backend.store.bundle import read_dataset
from backend.store.roots import check_id

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OOD_SCHEMA", "count_outside", "share_outside"]

OOD_SCHEMA: Final = pa.schema(
    [("cell_id", pa.string()), ("distance", pa.float32()), ("percentile", pa.float32())]
)
"""Columns of `ood.parquet` beside the predictions of an evaluated file."""


def share_outside(percentiles: np.ndarray) -> float | None:
    """Return the share (0–1) of cells beyond the 95th percentile of unseen training donors.

    None where the model can place no cell.
    """
    known = percentiles[np.isfinite(percentiles)]
    return round(float((known > OUTSIDE).mean()), 4) if len(known) else None


def count_outside(
    root: Path, dataset_id: str, run_id: str, by: Literal["donor", "cell_type_fine", "predicted"]
) -> pd.DataFrame:
    """Count the cells beyond the 95th percentile of unseen training donors.

    Parameters
    ----------
    root
        Folder that holds `runs/` and `datasets/`.
    by
        "donor", "cell_type_fine" (the file's own label) or "predicted".

    Returns
    -------
    Columns `by`, `n_cells`, `n_outside`, `share` (0–1), the largest share first. Cells that the
    model cannot place are left out.

    Raises
    ------
    StoreError
        If the run keeps no such table.
    """
    folder = root / "runs" / check_id(run_id, "`run_id`")
    try:
        table = pq.read_table(folder / "ood.parquet", columns=["percentile"]).to_pandas()
    except (OSError, pa.ArrowException) as error:
        msg = f"Run {run_id} keeps no distances to its training data ({type(error).__name__})."
        raise StoreError(msg, "Evaluate the file again.") from error
    if by == "predicted":
        values = pq.read_table(folder / "predictions.parquet", columns=["predicted"])
        groups = values["predicted"].to_pandas()
    else:
        _, cells = read_dataset(root / "datasets" / check_id(dataset_id, "`dataset_id`"))
        groups = cells[by].fillna("no label")
    known = table["percentile"].notna()
    is_outside = (table["percentile"] > OUTSIDE)[known]
    counted = is_outside.groupby(groups[known].to_numpy()).agg(["size", "sum"])
    found = pd.DataFrame(
        {
            by: counted.index.astype(str),
            "n_cells": counted["size"].to_numpy(dtype=int),
            "n_outside": counted["sum"].to_numpy(dtype=int),
        }
    )
    found["share"] = found["n_outside"] / found["n_cells"]
    return found.sort_values(["share", by], ascending=[False, True], ignore_index=True)
