"""Single cells for tests: their outcomes one by one, and the bytes of a map read back."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from backend.evaluation.views.series import Reader
    from backend.types import Scope

__all__ = ["decoded", "judged_cells", "threshold_in"]


def threshold_in(store: Reader, scope: Scope, series_id: str) -> float | None:
    """Return from which confidence on a wrong cell is confidently wrong."""
    rows = store.query(
        "valid_confidence",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=[series_id],
        owner=scope.owner,
    )
    return rows["threshold"].iloc[0] if len(rows) else None


def judged_cells(store: Reader, scope: Scope, configuration: str) -> pd.DataFrame:
    """Return each cell of a scope with its `outcome` under a model, judged one by one."""
    from backend.evaluation.views.series import shown_series

    series_id = str(shown_series(store, scope, configuration)["series_id"])
    cells = store.query(
        "cells_of_series",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=series_id,
        timepoints=list(scope.timepoints) or None,
        truth=scope.truth,
        owner=scope.owner,
    )
    if scope.cell_types:
        cells = cells[cells["label"].isin(scope.cell_types)].reset_index(drop=True)
    threshold = threshold_in(store, scope, series_id)
    outcomes = []
    for cell in cells.itertuples():
        if not isinstance(cell.label, str) or not isinstance(cell.predicted, str):
            outcomes.append("not scored")
        elif cell.label == cell.predicted:
            outcomes.append("correct")
        elif threshold is not None and float(cell.confidence) >= threshold:
            outcomes.append("confidently wrong")
        else:
            outcomes.append("wrong")
    return cells.assign(outcome=outcomes)


def decoded(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and columns of a cell map, as its documentation lays them out."""
    assert message[:4] == b"FLM1"
    (length,) = struct.unpack_from("<I", message, 4)
    header = json.loads(message[8 : 8 + length])
    offset = 8 + length + (-(8 + length) % 8)
    columns = {}
    for name in header["columns"]:
        columns[name] = np.frombuffer(
            message, "<u2" if name in ("x", "y") else "u1", header["n"], offset
        )
        offset += columns[name].nbytes
    assert offset == len(message)
    return header, columns
