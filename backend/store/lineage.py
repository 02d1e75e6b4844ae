"""Fine predictions at lineage level: probabilities are summed before the best class is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backend.data.labels import to_lineage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["lineage_predictions", "lineages_of", "proba_matrix"]


def lineages_of(classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the lineages in order of first appearance, and the lineage index of each class."""
    names = [to_lineage(label) for label in classes]
    lineages = tuple(dict.fromkeys(names))
    return lineages, np.array([lineages.index(name) for name in names], dtype=np.int64)


def proba_matrix(table: pa.Table, n_classes: int) -> np.ndarray:
    """Return (n_cells, n_classes) float32 probabilities of a predictions table.

    Where only the five most probable classes were kept, the others are 0.

    Raises
    ------
    ValueError
        If a row has not one value a class, or names a class that does not exist.
    """
    proba = table["proba"].combine_chunks()
    if proba.null_count == 0:
        lengths = np.diff(proba.offsets.to_numpy())
        if (lengths != n_classes).any():
            msg = f"`proba` has rows of {sorted(set(lengths.tolist()))[:5]} values for {n_classes} classes"
            raise ValueError(msg)
        values = proba.flatten().to_numpy(zero_copy_only=False)
        return values.astype(np.float32).reshape(len(proba), n_classes)
    top = table["top5"].combine_chunks()
    if top.null_count:
        msg = f"{top.null_count} cells have neither `proba` nor `top5`"
        raise ValueError(msg)
    items = top.flatten()
    column = items.field("class_index").to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(top)), np.diff(top.offsets.to_numpy()))
    if len(column) and (column.min() < 0 or column.max() >= n_classes):
        msg = f"`top5` names class {column.max()} of {n_classes}"
        raise ValueError(msg)
    matrix = np.zeros((len(top), n_classes), dtype=np.float32)
    matrix[row, column] = items.field("proba").to_numpy(zero_copy_only=False)
    return matrix


def lineage_predictions(path: Path | str, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return lineage index and summed probability of each row of one `predictions.parquet`.

    Of equally probable lineages the one whose class comes first wins. Sums are of the half
    precision values in the file, cut at 1.
    """
    lineages, index = lineages_of(classes)
    table = pq.read_table(path, columns=["proba", "top5"], use_threads=False)
    # One addition of a whole column a class: quicker than a product of thin matrices, and the
    # order of the sum does not depend on the number of threads.
    columns = np.ascontiguousarray(proba_matrix(table, len(classes)).T)
    summed = np.zeros((len(lineages), columns.shape[1]), dtype=np.float32)
    for column, lineage in zip(columns, index, strict=True):
        summed[lineage] += column
    best = summed.argmax(axis=0)
    return best, np.minimum(summed.max(axis=0), 1.0)
