"""Bring in the predictions of any model: one table becomes a dataset and its runs.

The table is CSV or Parquet with a row for each cell (and model): `cell_id`, `label`, `predicted`,
and optionally `confidence`, `proba_<type>` columns, `donor`, `timepoint`, `fold`, `model`, further
columns of `cells.parquet`, and `umap_x`, `umap_y`. Nothing of it was run here, and views say so.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from backend.data.labels import (
    is_malignant_label,
    normalise_genotype,
    normalise_label_source,
    not_labelled,
    to_lineage,
)
from backend.data.problems import some
from backend.data.roles import map_timepoint
from backend.errors import InputError, LabelError
from backend.store.bundle import RunRecord, predictions_frame, write_dataset, write_run
from backend.store.frames import PREDICTIONS_SCHEMA
from backend.store.import_table import PROBA, read_table, template
from backend.types import EXTERNAL, LABEL_LEVELS, PROTOCOLS, TIMEPOINTS, Series, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["MODEL", "NOT_RUN_HERE", "Imported", "import_predictions", "read_table", "template"]

MODEL: Final = "external"
"""Key of every imported model; it is in no registry."""
NOT_RUN_HERE: Final = "imported predictions: not run here"

_MOST_FOLDS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import made."""

    dataset_id: str
    name: str
    label_level: str
    protocol: str
    n_cells: int
    n_unlabelled: int
    models: tuple[str, ...]
    run_ids: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = dataclasses.asdict(self)
        return values | {name: list(values[name]) for name in ("models", "run_ids", "notes")}


def import_predictions(
    path: Path,
    out: Path,
    *,
    name: str,
    protocol: str = EXTERNAL,
    label_level: str | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> Imported:
    """Import a table of predictions as a dataset with one series a model.

    Parameters
    ----------
    path
        CSV or Parquet.
    out
        Folder that holds `runs/` and `datasets/`.
    name
        What pages call the dataset, and the model where the table does not name one.
    protocol
        How the importer says that cells were kept apart; "external" when nothing is said.
    label_level
        "fine" or "lineage"; by default fine where a label names a malignant type (`X-like`).
    facts
        Further facts for `dataset.json`.
    progress
        Called with the share done and what is done now.

    Raises
    ------
    InputError
        If the table is wrong, with line and column.
    """
    if protocol not in (*PROTOCOLS, EXTERNAL):
        msg = f'There is no protocol "{protocol}".'
        raise InputError(msg, f"Choose one of: {', '.join((*PROTOCOLS, EXTERNAL))}.")
    if label_level not in (None, *LABEL_LEVELS):
        msg = f'There is no label level "{label_level}".'
        raise InputError(msg, f"Choose one of: {', '.join(LABEL_LEVELS)}.")
    progress(0.05, "Reading the table")
    table = read_table(path)
    models = table["model"].fillna(name) if "model" in table else pd.Series(name, table.index)
    _check_folds(table, models)
    progress(0.5, "Writing the results")
    if label_level is None:
        labels = set(table["label"].dropna()) | set(table["predicted"])
        label_level = "fine" if any(map(is_malignant_label, labels)) else "lineage"
    notes = []
    if "confidence" not in table and not any(str(c).startswith(PROBA) for c in table):
        notes.append("no confidence was given: it stands as 1")
    cells = _cells(table, label_level, notes)
    dataset_id = sha256_of(
        {
            "cells": _digest(cells),
            "level": label_level,
            "name": name,
            "place": out.name,
        }
    )[:16]
    info = {
        "dataset_id": dataset_id,
        "name": name,
        "simulated": False,
        "source": f"imported table ({NOT_RUN_HERE})",
        "citation": None,
        "licence_note": None,
        "hashes": {},
        "parent": None,
        "n_cells": len(cells),
        "n_donors": int(cells["donor"].nunique()),
        "n_genes": 0,
        "timepoints": [t for t in TIMEPOINTS if (cells["timepoint"] == t).any()],
        "not_labelled": list(not_labelled(table["label"].dropna().unique())),
        "imported": True,
        **(facts or {}),
    }
    write_dataset(out, info, cells)
    run_ids: list[str] = []
    names = sorted(models.unique())
    for number, model in enumerate(names):
        rows = table[(models == model).to_numpy()]
        run_ids += _write_model(out, rows, model, dataset_id, protocol, label_level, notes)
        progress(0.5 + 0.5 * (number + 1) / len(names), "Writing the results")
    return Imported(
        dataset_id=dataset_id,
        name=name,
        label_level=label_level,
        protocol=protocol,
        n_cells=len(cells),
        n_unlabelled=int(cells[f"cell_type_{label_level}"].isna().sum()),
        models=tuple(names),
        run_ids=tuple(run_ids),
        notes=tuple(notes),
    )


def _check_folds(table: pd.DataFrame, models: pd.Series) -> None:
    if "fold" not in table:
        return
    counts = table.groupby(models)["fold"].nunique()
    if (most := int(counts.max())) > _MOST_FOLDS:
        msg = f'The model "{str(counts.idxmax())[:60]}" has {most:,} folds.'
        raise InputError(msg, f"Give at most {_MOST_FOLDS:,}.")


def _cells(table: pd.DataFrame, label_level: str, notes: list[str]) -> pd.DataFrame:
    """Return the cells in the columns of `cells.parquet`, in order of first appearance."""
    first = table.drop_duplicates("cell_id").reset_index(drop=True)
    nothing = pd.Series([None] * len(first), dtype=object)
    text = {column: first.get(column, nothing) for column in ("donor", "study", "sample")}
    donor = text["donor"].fillna("unknown")
    timepoint = first.get("timepoint", nothing).map(lambda v: v and map_timepoint(v))
    source, strange = [], set()
    for word in first.get("label_source", nothing):
        try:
            source.append(normalise_label_source(word or "unknown"))
        except LabelError:
            strange.add(word)
            source.append("unknown")
    if strange:
        notes.append(f'label sources that are not known count as "unknown": {some(strange)}')
    label = first["label"]
    lineage = label.map(lambda v: v and to_lineage(v))

    def whole(column: str) -> pd.Series:
        values = first.get(column, pd.Series(np.nan, first.index))
        return values.astype("Int32")

    def number(column: str) -> pd.Series:
        values = first.get(column, pd.Series(np.nan, first.index))
        return values.astype(np.float32)

    has_map = {"umap_x", "umap_y"} <= set(first)
    if not has_map:
        notes.append("no umap_x and umap_y were given: the cells have no place on the map")
    return pd.DataFrame(
        {
            "cell_id": first["cell_id"],
            "cell_type_fine": label,
            "cell_type_lineage": lineage,
            "timepoint": timepoint.where(timepoint.notna(), None),
            "donor": donor,
            "study": text["study"],
            "sample": text["sample"].fillna(donor),
            "day": whole("day"),
            "label_source": source,
            "genotype": first.get("genotype", nothing).map(lambda v: normalise_genotype(v or "")),
            "is_malignant": pd.array([pd.NA] * len(first), dtype="boolean"),
            "n_counts": number("n_counts"),
            "n_genes": whole("n_genes"),
            "umap_x": number("umap_x"),
            "umap_y": number("umap_y"),
        }
    )


def _digest(frame: pd.DataFrame) -> str:
    hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    names = ",".join(map(str, frame.columns)).encode("utf-8")
    return hashlib.sha256(names + hashes.astype("<u8").tobytes()).hexdigest()


def _write_model(
    out: Path,
    rows: pd.DataFrame,
    model: str,
    dataset_id: str,
    protocol: str,
    label_level: str,
    notes: list[str],
) -> list[str]:
    """Write the runs of one model, one a fold; return their ids."""
    values = rows["fold"] if "fold" in rows else pd.Series(0.0, rows.index)
    folds = sorted(values.unique())
    given = [name for name in rows if str(name).startswith(PROBA)]
    kept = [name for name in given if rows[name].notna().all()]
    classes = (
        tuple(sorted(name.removeprefix(PROBA) for name in kept))
        if kept
        else tuple(sorted(set(rows["predicted"]) | set(rows["label"].dropna())))
    )
    series = Series(
        dataset_id=dataset_id,
        protocol=protocol,
        folds=len(folds),
        budget="full",
        model=MODEL,
        label_level=label_level,
        settings={"name": model, "table": _digest(rows)[:16]},
    )
    ids = []
    for fold, value in enumerate(folds):
        part = rows[(values == value).to_numpy()]
        record = RunRecord.for_series(
            series,
            fold=fold,
            split_sha256=sha256_of({"imported": dataset_id, "folds": len(folds)}),
            status="done",
            display_name=model,
            classes=classes,
            n_test=len(part),
            device="not known",
            notes=(NOT_RUN_HERE, *notes),
        )
        write_run(out, record, _frame(part, classes, fold), log=f"{NOT_RUN_HERE}\n")
        ids.append(record.run_id)
    return ids


def _frame(rows: pd.DataFrame, classes: tuple[str, ...], fold: int) -> pd.DataFrame:
    """Return rows in the columns of `predictions.parquet`."""
    names = [f"{PROBA}{label}" for label in classes]
    place = {label: number for number, label in enumerate(classes)}
    chosen = rows["predicted"].map(place).to_numpy(dtype=np.int64)
    ids, labels = rows["cell_id"].to_numpy(), rows["label"].to_numpy()
    if set(names) <= set(rows):
        proba = rows[names].to_numpy(dtype=np.float64)
        # Of equally probable types the table's own choice stands.
        proba[np.arange(len(rows)), chosen] += 1e-9
        proba /= np.maximum(proba.sum(axis=1, keepdims=True), 1e-12)
        frame = predictions_frame(ids, labels, proba.astype(np.float32), classes, fold, "test")
        frame["predicted"] = rows["predicted"].to_numpy()
    else:
        one = np.zeros((len(rows), len(classes)), dtype=np.float32)
        one[np.arange(len(rows)), chosen] = 1.0
        frame = predictions_frame(ids, labels, one, classes, fold, "test")
        confidence = rows["confidence"].to_numpy() if "confidence" in rows else np.ones(len(rows))
        frame["confidence"] = confidence.astype(np.float32)
        only = [
            [{"class_index": int(c), "proba": np.float16(p)}]
            for c, p in zip(chosen, confidence, strict=True)
        ]
        # Only the predicted type has a known probability.
        frame["proba"] = None
        frame["top5"] = pd.Series(
            pd.arrays.ArrowExtensionArray(pa.array(only, PREDICTIONS_SCHEMA.field("top5").type))
        )
    return frame
