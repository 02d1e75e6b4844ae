"""Tables of a bundle: their columns, and the checks that they pass before they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import StoreError
from backend.types import GENOTYPES, LABEL_SOURCES, TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backend.store.record import RunRecord

__all__ = [
    "CELLS_SCHEMA",
    "FINAL_FOLD",
    "MAX_PROBA_CLASSES",
    "PREDICTIONS_SCHEMA",
    "cells_table_of",
    "predictions_frame",
    "predictions_table_of",
    "write_parquet",
]

MAX_PROBA_CLASSES: Final = 64
"""Above this many classes only the five most probable ones are kept."""

FINAL_FOLD: Final = -1
"""Fold number in `predictions.parquet` of a run that was fitted on all donors."""

PREDICTIONS_SCHEMA: Final = pa.schema(
    [
        ("cell_id", pa.string()),
        ("fold", pa.int16()),
        ("role", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("confidence", pa.float32()),
        ("proba", pa.list_(pa.float16())),
        ("top5", pa.list_(pa.struct([("class_index", pa.int16()), ("proba", pa.float16())]))),
    ]
)

CELLS_SCHEMA: Final = pa.schema(
    [
        ("cell_id", pa.string()),
        ("cell_type_fine", pa.string()),
        ("cell_type_lineage", pa.string()),
        ("timepoint", pa.string()),
        ("donor", pa.string()),
        ("study", pa.string()),
        ("sample", pa.string()),
        ("day", pa.int32()),
        ("label_source", pa.string()),
        ("genotype", pa.string()),
        ("is_malignant", pa.bool_()),
        ("n_counts", pa.float32()),
        ("n_genes", pa.int32()),
        ("umap_x", pa.float32()),
        ("umap_y", pa.float32()),
    ]
)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table so that equal content gives equal bytes, quick to read."""
    # Half precision numbers hardly repeat: as a dictionary they are larger and read 3 times slower.
    repeats = [
        item.name
        for item in table.schema
        if pa.types.is_string(item.type) and item.name != "cell_id"
    ]
    # Without pandas' metadata the bytes do not depend on its version.
    pq.write_table(
        table.replace_schema_metadata(None), path, compression="zstd", use_dictionary=repeats
    )


def _to_table(frame: pd.DataFrame, schema: pa.Schema, what: str) -> pa.Table:
    missing = sorted(set(schema.names) - set(frame.columns))
    if missing:
        msg = f"{what} lacks columns: {', '.join(missing[:5])}."
        raise StoreError(msg, f"Give all of: {', '.join(schema.names)}.")
    columns = []
    for item in schema:
        values = frame[item.name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(object)
        try:
            columns.append(pa.Array.from_pandas(values, type=item.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            msg = f"Column `{item.name}` of {what} is not {item.type}: {error}."
            raise StoreError(msg, "Convert the column before writing the bundle.") from error
    flat = [pa.chunked_array(column) if isinstance(column, list) else column for column in columns]
    return pa.Table.from_arrays(flat, schema=schema)


def _check_unique(table: pa.Table, what: str) -> None:
    ids = table["cell_id"].to_pandas()
    if ids.isna().any() or (ids == "").any():
        msg = f"{what} holds empty cell ids ({int(ids.isna().sum() + (ids == '').sum())} of them)."
        raise StoreError(msg, "Every cell needs its `obs_names` entry.")
    if ids.duplicated().any():
        examples = sorted(set(ids[ids.duplicated()]))[:5]
        msg = f"{what} holds cells twice: {', '.join(examples)}."
        raise StoreError(msg, "A cell appears once in a bundle.")


def _check_predictions(table: pa.Table, record: RunRecord) -> None:
    what = f"The predictions of run {record.run_id}"
    _check_unique(table, what)
    roles = set(table["role"].unique().to_pylist())
    if roles - {"valid", "test"}:
        msg = f"{what} have the roles {', '.join(sorted(map(str, roles)))}."
        raise StoreError(msg, "Only `valid` and `test` cells are kept.")
    strange = set(table["predicted"].unique().to_pylist()) - set(record.classes)
    if strange:
        msg = f"{what} hold types outside `classes`: {', '.join(sorted(map(str, strange))[:5])}."
        raise StoreError(msg, "Predictions come from the classes that the model was trained on.")
    confidence = table["confidence"].to_numpy()
    if not (np.isfinite(confidence) & (confidence >= 0) & (confidence <= 1 + 1e-4)).all():
        msg = f"{what} have confidences outside 0-1 or missing."
        raise StoreError(msg, "Confidence is the largest probability of a cell.")
    fold = FINAL_FOLD if record.fold == "final" else record.fold
    if set(table["fold"].unique().to_pylist()) - {fold}:
        msg = f"{what} belong to other folds than {record.fold}."
        raise StoreError(msg, "A run holds the predictions of one fold.")


def _check_words(table: pa.Table, dataset_id: str) -> None:
    columns: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("timepoint", TIMEPOINTS),
        ("label_source", LABEL_SOURCES),
        ("genotype", GENOTYPES),
    )
    for column, known in columns:
        strange = set(table[column].unique().to_pylist()) - {*known, None}
        if strange:
            msg = f"Dataset {dataset_id} has unknown values of `{column}`: {', '.join(sorted(strange)[:5])}."
            raise StoreError(msg, f"Use: {', '.join(known)}.")


def predictions_table_of(frame: pd.DataFrame, record: RunRecord) -> pa.Table:
    """Return checked predictions of one run as a table."""
    table = _to_table(frame, PREDICTIONS_SCHEMA, f"The table of run {record.run_id}")
    _check_predictions(table, record)
    return table


def cells_table_of(frame: pd.DataFrame, dataset_id: str) -> pa.Table:
    """Return the checked cells of one dataset as a table."""
    table = _to_table(frame, CELLS_SCHEMA, f"The cells of dataset {dataset_id}")
    _check_unique(table, f"Dataset {dataset_id}")
    _check_words(table, dataset_id)
    return table


def predictions_frame(
    cell_ids: Sequence[str] | np.ndarray,
    labels: Sequence[str | None] | np.ndarray | pd.Series,
    proba: np.ndarray,
    classes: Sequence[str],
    fold: int | Literal["final"],
    role: str | Sequence[str] | np.ndarray,
) -> pd.DataFrame:
    """Return predictions in the columns of `predictions.parquet`.

    Parameters
    ----------
    labels
        Truth at the trained label level; None or NaN where a cell has none.
    proba
        (n_cells, n_classes), rows sum to 1, columns in the order of `classes`.
    role
        `valid` or `test`, one for all cells or one each.

    Notes
    -----
    Label and confidence come from `proba` as given, before it is rounded to half precision.
    Of equally probable classes the first wins.
    """
    proba = np.asarray(proba)
    n, k = proba.shape
    if n != len(cell_ids) or k != len(classes):
        msg = (
            f"`proba` is {n} × {k}, but there are {len(cell_ids)} cells and {len(classes)} classes."
        )
        raise StoreError(msg, "Give one row a cell and one column a class.")
    if n and not np.isfinite(proba).all():
        msg = f"`proba` holds {int((~np.isfinite(proba)).sum())} values that are not numbers."
        raise StoreError(msg, "The model diverged: lower its learning rate or check its input.")
    best = proba.argmax(axis=1) if n else np.zeros(0, dtype=np.int64)
    half = proba.astype(np.float16)
    kept: pa.Array
    top: pa.Array
    if k <= MAX_PROBA_CLASSES:
        kept = _lists(half, pa.array(half.ravel(), pa.float16()))
        top = pa.nulls(n, PREDICTIONS_SCHEMA.field("top5").type)
    else:
        kept = pa.nulls(n, PREDICTIONS_SCHEMA.field("proba").type)
        order = np.argsort(-proba, axis=1, kind="stable")[:, :5]
        values = pa.StructArray.from_arrays(
            [
                pa.array(order.ravel().astype(np.int16)),
                pa.array(np.take_along_axis(half, order, axis=1).ravel(), pa.float16()),
            ],
            fields=list(PREDICTIONS_SCHEMA.field("top5").type.value_type),
        )
        top = _lists(order, values)
    truth = pd.Series(np.asarray(labels, dtype=object))
    return pd.DataFrame(
        {
            "cell_id": np.asarray(cell_ids, dtype=object),
            "fold": np.full(n, FINAL_FOLD if fold == "final" else fold, dtype=np.int16),
            "role": np.full(n, role, dtype=object) if isinstance(role, str) else np.asarray(role),
            "label": truth.where(truth.notna(), None),
            "predicted": np.asarray(classes, dtype=object)[best],
            "confidence": proba[np.arange(n), best].astype(np.float32),
            "proba": pd.Series(pd.arrays.ArrowExtensionArray(kept)),
            "top5": pd.Series(pd.arrays.ArrowExtensionArray(top)),
        }
    )


def _lists(shape_of: np.ndarray, values: pa.Array) -> pa.Array:
    """Return a list array with one list of equal length a row."""
    n, k = shape_of.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * k), values)
