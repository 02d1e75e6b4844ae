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
from backend.data.vocabularies import ABSTAINED
from backend.errors import InputError, LabelError
from backend.store.bundle import RunRecord, predictions_frame, write_dataset, write_run
from backend.store.frames import PREDICTIONS_SCHEMA
from backend.store.import_table import PROBA, read_table, template
from backend.store.known_cells import known_cells
from backend.types import EXTERNAL, LABEL_LEVELS, PROTOCOLS, TIMEPOINTS, Series, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from backend.store.roots import Location

__all__ = [
    "MODEL",
    "NOT_RUN_HERE",
    "Imported",
    "import_predictions",
    "read_table",
    "renamed",
    "template",
]

MODEL: Final = "external"
"""Key of every imported model; it is in no registry."""
NOT_RUN_HERE: Final = "imported predictions: not run here"

_MOST_FOLDS: Final = 1000
_CELLS_A_DONOR: Final = 2
"""Donors of fewer cells on average are no donors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import made."""

    dataset_id: str
    name: str
    label_level: str
    protocol: str
    n_cells: int
    n_unlabelled: int
    n_abstained: int
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
    predicted_as: Mapping[str, str] | None = None,
    add_to: str | None = None,
    roots: Sequence[Location] = (),
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
    predicted_as
        Predicted name → the label that it means, where the two are of different vocabularies.
    add_to
        Id of a dataset that is known: the runs join it, with its labels, donors and map.
    roots
        Where that dataset is looked for.
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
    table = renamed(read_table(path), predicted_as or {})
    models = table["model"].fillna(name) if "model" in table else pd.Series(name, table.index)
    _check_folds(table, models)
    progress(0.5, "Writing the results")
    if label_level is None:
        labels = set(table["label"].dropna()) | set(table["predicted"])
        label_level = "fine" if any(map(is_malignant_label, labels)) else "lineage"
    notes = []
    n_abstained = int((table["predicted"] == ABSTAINED).sum())
    if n_abstained:
        notes.append(
            f"{n_abstained:,} of {len(table):,} predictions name no type: they count as wrong where "
            f"the cell has a label; the model named a type for {1 - n_abstained / len(table):.0%}"
        )
    if predicted_as:
        told = some(f"{name} as {label}" for name, label in predicted_as.items())
        notes.append(f"predictions were read in the words of the labels ({told})")
    if "confidence" not in table and not any(str(c).startswith(PROBA) for c in table):
        notes.append("no confidence was given: it stands as 1")
    if add_to is None:
        cells = _cells(table, label_level, notes)
        dataset_id = sha256_of(
            {
                "cells": _digest(cells),
                "level": label_level,
                "name": name,
                "place": out.name,
            }
        )[:16]
    else:
        cells, dataset_id = known_cells(add_to, roots), add_to
        table = _with_known_labels(table, cells, label_level, notes)
        models = models.loc[table.index]
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
    if add_to is None:
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
        n_abstained=n_abstained,
        models=tuple(names),
        run_ids=tuple(run_ids),
        notes=tuple(notes),
    )


def renamed(table: pd.DataFrame, predicted_as: Mapping[str, str]) -> pd.DataFrame:
    """Return a table whose predictions are named by the labels that they mean.

    Raises
    ------
    LabelError
        If a name is no prediction of the table.
    """
    if not predicted_as:
        return table
    if strange := sorted(set(predicted_as) - set(table["predicted"])):
        msg = f"The table predicts no {some(strange)}. It predicts {some(set(table['predicted']))}."
        raise LabelError(msg, "Map predictions of the table, written as they are there.")
    table = table.assign(
        predicted=table["predicted"].map(lambda name: predicted_as.get(name, name))
    )
    proba = [name for name in table if str(name).startswith(PROBA)]
    new = {name: PROBA + predicted_as.get(own := name.removeprefix(PROBA), own) for name in proba}
    if all(name == target for name, target in new.items()):
        return table
    summed = table[proba].rename(columns=new).T.groupby(level=0).sum(min_count=1).T
    return pd.concat([table.drop(columns=proba), summed], axis=1)


def _with_known_labels(
    table: pd.DataFrame, cells: pd.DataFrame, label_level: str, notes: list[str]
) -> pd.DataFrame:
    """Return the rows of cells that a dataset has, with its labels."""
    is_known = table["cell_id"].isin(cells["cell_id"])
    if not is_known.any():
        msg = f"None of the {len(table):,} cells is in that dataset."
        raise InputError(msg, "Import the table as a dataset of its own.")
    if n := int((~is_known).sum()):
        notes.append(f"{n:,} rows name cells that the dataset does not have: left out")
    label = cells.set_index("cell_id")[f"cell_type_{label_level}"]
    table = table[is_known]
    return table.assign(
        label=table["cell_id"].map(label).astype(object).where(lambda v: v.notna(), None)
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
    if (n := first["donor"].nunique() if "donor" in first else 0) > len(first) / _CELLS_A_DONOR:
        # Barcodes, not people: as donors they would make an interval out of single cells.
        text["donor"] = nothing
        notes.append(
            f"`donor` has {n:,} values for {len(first):,} cells: these are no donors, so none is "
            "counted and no interval is given"
        )
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
        else tuple(sorted((set(rows["predicted"]) | set(rows["label"].dropna())) - {ABSTAINED}))
    )
    if (rows["predicted"] == ABSTAINED).any():
        classes = (*classes, ABSTAINED)
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
    if set(names) - {f"{PROBA}{ABSTAINED}"} <= set(rows) and any(name in rows for name in names):
        rows = rows if set(names) <= set(rows) else rows.assign(**{f"{PROBA}{ABSTAINED}": 0.0})
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
