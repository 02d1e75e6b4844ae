"""Bundles: the immutable folders that finished runs and datasets leave.

Writers need only a folder (or an fsspec URL) and never touch the store. A bundle is complete or
absent: see `backend.store.roots`.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backend.data.expression import FOLDER as EXPRESSION
from backend.errors import StoreError
from backend.files import remove_folder
from backend.store.frames import (
    CELLS_SCHEMA,
    MAX_PROBA_CLASSES,
    PREDICTIONS_SCHEMA,
    cells_table_of,
    predictions_frame,
    predictions_table_of,
    write_parquet,
)
from backend.store.neighbours import NEIGHBOURS_FILE, checked_neighbours, write_neighbours
from backend.store.record import FORMAT_VERSION, RunRecord, is_damaged, parse_dataset, parse_run
from backend.store.roots import Location, check_id, open_root, split_location
from backend.store.seals import file_hashes, head_text
from backend.types import ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

__all__ = [
    "CELLS_SCHEMA",
    "FORMAT_VERSION",
    "MAX_PROBA_CLASSES",
    "PREDICTIONS_SCHEMA",
    "RunRecord",
    "delete_dataset",
    "delete_run",
    "is_damaged",
    "is_done",
    "list_runs",
    "parse_dataset",
    "parse_run",
    "predictions_frame",
    "read_dataset",
    "read_predictions",
    "read_run",
    "write_dataset",
    "write_run",
]

Where = TypeVar("Where", "Path", str)
"""A local path or a URL; functions give back what they are given."""


def _same_kind(root: Where, folder: Location) -> Where:
    return str(folder) if isinstance(root, str) else cast("Where", folder)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(head_text(values), encoding="utf-8")


def _write_head(path: Path, values: Mapping[str, Any]) -> None:
    """Write the head of a bundle last: it lists the sha256 of all other files."""
    _write_json(path, dict(values) | {"files": file_hashes(path.parent)})


def write_run(
    root: Where,
    record: RunRecord,
    predictions: pd.DataFrame | None,
    *,
    history: pd.DataFrame | None = None,
    load_report: Mapping[str, Any] | None = None,
    model_writer: Callable[[Path], None] | None = None,
    tables: Mapping[str, pa.Table] | None = None,
    log: str = "",
) -> Where:
    """Write one run's bundle; complete or absent, whenever the process is killed.

    Parameters
    ----------
    root
        Folder or URL that holds `runs/`.
    predictions
        As `predictions_frame` makes them; None for failed and for `final` runs. Of a failed run
        only `run.json` and `log.txt` are kept.
    model_writer
        Writes the fitted model into the empty folder that it is given.
    tables
        File name without `.parquet` → a further table of a done run.

    Returns
    -------
    The bundle's folder. A `done` bundle that is already there stays as it is; a `failed` one is
    replaced.
    """
    is_failed = record.status == "failed"
    table = None
    if predictions is not None and not is_failed:
        table = predictions_table_of(predictions, record)
    if table is None and not is_failed and record.fold != "final":
        msg = f"Run {record.run_id} is done, but has no predictions."
        raise StoreError(msg, "Give its predictions, or write it as failed with a reason.")

    def fill(folder: Path) -> None:
        (folder / "log.txt").write_text(log, encoding="utf-8")
        if not is_failed:
            fill_done(folder)
        _write_head(folder / "run.json", record.to_json())

    def fill_done(folder: Path) -> None:
        if table is not None:
            write_parquet(folder / "predictions.parquet", table)
        if history is not None:
            history_table = pa.Table.from_pandas(history, preserve_index=False)
            write_parquet(folder / "history.parquet", history_table)
        for name, extra in (tables or {}).items():
            write_parquet(folder / f"{name}.parquet", extra)
        if load_report is not None:
            _write_json(folder / "load_report.json", load_report)
        if model_writer is not None:
            (folder / "model").mkdir()
            model_writer(folder / "model")

    def is_replaceable(head: bytes) -> bool:
        return is_damaged(head) or parse_run(head, record.run_id).status == "failed"

    folder = open_root(root).publish(
        "runs", record.run_id, fill, head="run.json", is_replaceable=is_replaceable
    )
    return _same_kind(root, folder)


def _open_bundle(folder: Location, kind: str) -> tuple[Any, str]:
    parent, name = split_location(folder)
    top, found = split_location(parent)
    check_id(name, "Folder")
    if found != kind:
        msg = f"Bundle {name} lies in a folder called {found!r}."
        raise StoreError(msg, f"Bundles of this kind lie in `{kind}/`.")
    return open_root(top), name


def _head(folder: Location, kind: str, file: str) -> tuple[Any, str, bytes]:
    root, name = _open_bundle(folder, kind)
    content = root.read_bytes(kind, name, file)
    if content is None:
        msg = f"No bundle {name} in `{kind}/`: it has no `{file}`."
        raise StoreError(msg, "Check the folder, or make the bundle again.")
    return root, name, content


def _read_table(root: Any, kind: str, name: str, file: str, schema: pa.Schema) -> pa.Table:
    try:
        with root.local_file(kind, name, file) as path:
            table = pq.read_table(path)
            table = table.select(schema.names).cast(schema)
    except (FileNotFoundError, pa.ArrowException, KeyError, OSError) as error:
        msg = f"`{file}` of {name} cannot be read ({type(error).__name__})."
        raise StoreError(msg, "Delete the bundle's folder and make it again.") from error
    return table


def read_run(folder: Location) -> RunRecord:
    """Return the record of the bundle in `folder`."""
    _, name, content = _head(folder, "runs", "run.json")
    return parse_run(content, name)


def read_predictions(folder: Location) -> pd.DataFrame:
    """Return the predictions of a done run in the columns of `PREDICTIONS_SCHEMA`."""
    root, name, content = _head(folder, "runs", "run.json")
    record = parse_run(content, name)
    if record.status == "failed":
        msg = f"Run {name} failed and has no predictions: {record.reason}"
        raise StoreError(msg, "Run it again.")
    table = _read_table(root, "runs", name, "predictions.parquet", PREDICTIONS_SCHEMA)
    frame = table.drop_columns(["proba", "top5"]).to_pandas()
    for column in ("proba", "top5"):
        values = pd.arrays.ArrowExtensionArray(table[column])
        frame[column] = pd.Series(values)
    return frame


def list_runs(root: Where) -> list[Where]:
    """Return the folders of all complete run bundles below `root`, by name."""
    opened = open_root(root)
    names = opened.names("runs")
    return [
        _same_kind(root, opened.folder("runs", name))
        for name in names
        if opened.read_bytes("runs", name, "run.json") is not None
    ]


def is_done(root: Location, run_id: str) -> bool:
    """Say whether `root` holds run `run_id` with status `done`."""
    content = open_root(root).read_bytes("runs", check_id(run_id, "`run_id`"), "run.json")
    if content is None:
        return False
    try:
        return parse_run(content, run_id).status == "done"
    except StoreError:
        return False


def write_dataset(
    root: Where,
    info: Mapping[str, Any],
    cells: pd.DataFrame,
    *,
    neighbours: np.ndarray | None = None,
    fill_expression: Callable[[Path], None] | None = None,
) -> Where:
    """Write a dataset's bundle, or keep the one that is already there.

    Parameters
    ----------
    info
        `DatasetInfo.to_json()`: at least dataset_id, name, simulated.
    cells
        One row a cell, in the order that becomes `cell_index`; columns of `CELLS_SCHEMA`.
    neighbours
        (n_cells, k) row numbers of the nearest cells, -1 for none; see `backend.store.neighbours`.
    fill_expression
        Writes the counts by gene into the folder that it is given; see `backend.data.expression`.
    """
    dataset_id = check_id(info.get("dataset_id"), "`dataset_id`")
    values = {"format_version": FORMAT_VERSION} | dict(info)
    head = json.dumps(values, ensure_ascii=False).encode("utf-8")
    parse_dataset(head, dataset_id)
    table = cells_table_of(cells, dataset_id)
    if neighbours is not None:
        neighbours = checked_neighbours(neighbours, len(cells), f"dataset {dataset_id}")

    def fill(folder: Path) -> None:
        write_parquet(folder / "cells.parquet", table)
        if neighbours is not None:
            write_neighbours(folder / NEIGHBOURS_FILE, neighbours)
        if fill_expression is not None:
            (folder / EXPRESSION).mkdir()
            fill_expression(folder / EXPRESSION)
        _write_head(folder / "dataset.json", values)

    folder = open_root(root).publish(
        "datasets", dataset_id, fill, head="dataset.json", is_replaceable=is_damaged
    )
    return _same_kind(root, folder)


def read_dataset(folder: Location) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the values of `dataset.json` and the cells of the bundle in `folder`."""
    root, name, content = _head(folder, "datasets", "dataset.json")
    values = parse_dataset(content, name)
    cells = _read_table(root, "datasets", name, "cells.parquet", CELLS_SCHEMA)
    # What it is, not how it is stored.
    values.pop("files", None)
    return values, cells.to_pandas()


def _runs_on(root: Path, dataset_id: str) -> list[Path]:
    """Return the folders of the runs below a local root that are on a dataset."""
    found = []
    for head in sorted(root.glob("runs/*/run.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, AttributeError):
            if json.loads(head.read_bytes()).get("dataset_id") == dataset_id:
                found.append(head.parent)
    return found


def delete_run(root: Path, run_id: str) -> None:
    """Remove a run from one local root, and its dataset when no run below that root is left on it.

    Raises
    ------
    StoreError
        If the root has no such run.
    """
    folder = root / "runs" / check_id(run_id, "Run")
    try:
        dataset_id = str(json.loads((folder / "run.json").read_bytes())["dataset_id"])
    except (FileNotFoundError, ValueError, KeyError) as error:
        msg = "Run not found."
        raise StoreError(msg, "It may have expired or been deleted, or is not yours.") from error
    remove_folder(folder)
    if not _runs_on(root, dataset_id):
        remove_folder(root / "datasets" / check_id(dataset_id, "Dataset"))


def delete_dataset(root: Path, dataset_id: str) -> int:
    """Remove a dataset with its runs from one local root; return how many runs went.

    Raises
    ------
    StoreError
        If the root has no such dataset.
    """
    folder = root / "datasets" / dataset_id
    # Imported runs may belong to a dataset of another root: then only they are here.
    runs = _runs_on(root, dataset_id) if ID.fullmatch(dataset_id) else []
    if not ID.fullmatch(dataset_id) or not (folder.is_dir() or runs):
        msg = "Results not found."
        raise StoreError(msg, "They may have expired or been deleted already.")
    for run in runs:
        remove_folder(run)
    remove_folder(folder)
    return len(runs)
