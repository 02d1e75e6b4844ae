"""Bundles: the immutable folders that finished runs and datasets leave.

Writers need only a folder (or an fsspec URL) and never touch the store. A bundle is complete or
absent: see `backend.store.roots`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import StoreError
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
from backend.store.roots import Location, check_id, open_root, split_location

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from backend.types import Series

__all__ = [
    "CELLS_SCHEMA",
    "FORMAT_VERSION",
    "MAX_PROBA_CLASSES",
    "PREDICTIONS_SCHEMA",
    "RunRecord",
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

FORMAT_VERSION: Final = 1

Where = TypeVar("Where", "Path", str)
"""A local path or a URL; functions give back what they are given."""


def _same_kind(root: Where, folder: Location) -> Where:
    return str(folder) if isinstance(root, str) else cast("Where", folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What `run.json` says: which fit this is, whether it ended, and on what.

    `fold` is a number from 0 or `"final"` (fitted on all cells, nothing tested). `classes` is
    the order of every `proba` list. `notes` are sentences that every view of the run shows.
    """

    status: Literal["done", "failed"]
    reason: str | None = None
    error_kind: str | None = None
    created_at: str = field(default_factory=_now)

    run_id: str
    series_id: str

    dataset_id: str
    protocol: str
    folds: int
    split_seed: int = 0
    budget: str = "equal"
    model: str
    preset: str | None = None
    init: str = "scratch"
    checkpoint: str | None = None
    label_level: str
    fraction: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    fold: int | Literal["final"]
    split_sha256: str
    checkpoint_sha256: str | None = None
    recipe_version: int = 1

    display_name: str
    configuration: str
    classes: tuple[str, ...] = ()
    n_train: int = 0
    n_valid: int = 0
    n_test: int = 0
    n_train_donors: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    wall_seconds: float | None = None
    peak_memory_mib: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("run_id", "series_id", "dataset_id"):
            check_id(getattr(self, name), f"`{name}`")
        if self.status not in ("done", "failed"):
            msg = f"Run {self.run_id} has the status {self.status!r}."
            raise StoreError(msg, "A bundle is `done` or `failed`; running jobs leave none.")
        is_number = isinstance(self.fold, int) and not isinstance(self.fold, bool)
        if self.fold != "final" and not (is_number and 0 <= self.fold < 2**15):
            msg = f"Run {self.run_id} has the fold {self.fold!r}."
            raise StoreError(msg, 'A fold is a number from 0, or "final".')
        if len(set(self.classes)) != len(self.classes):
            msg = f"Run {self.run_id} lists a class twice: {', '.join(self.classes[:5])}."
            raise StoreError(msg, "Classes must be unique; they name the columns of `proba`.")

    @classmethod
    def for_series(
        cls,
        series: Series,
        *,
        fold: int | Literal["final"],
        split_sha256: str,
        checkpoint_sha256: str | None = None,
        recipe_version: int = 1,
        **values: Any,
    ) -> Self:
        """Return the record of one fit of `series`, its ids worked out."""
        identity = {
            "fold": fold,
            "split_sha256": split_sha256,
            "checkpoint_sha256": checkpoint_sha256,
            "recipe_version": recipe_version,
        }
        return cls(
            run_id=series.run_id(**identity),  # type: ignore[arg-type]
            series_id=series.series_id,
            configuration=series.configuration,
            **dataclasses.asdict(series),
            **identity,  # type: ignore[arg-type]
            **values,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        return {"format_version": FORMAT_VERSION} | dataclasses.asdict(self)


def _parse_head(content: bytes, what: str) -> dict[str, Any]:
    """Read a head file and refuse what this version does not understand."""
    try:
        values = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{what} is damaged: it is not JSON ({type(error).__name__})."
        raise StoreError(msg, "Delete the bundle's folder and make it again.") from error
    if not isinstance(values, dict):
        msg = f"{what} is damaged: found a {type(values).__name__} where an object belongs."
        raise StoreError(msg, "Delete the bundle's folder and make it again.")
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        msg = f"{what} has format version {version!r}; this Faultline reads {FORMAT_VERSION}."
        raise StoreError(msg, "Update Faultline, or make the bundle again with this one.")
    return values


def is_damaged(content: bytes) -> bool:
    """Say whether a head is not even JSON. One of an unknown version is not damaged."""
    try:
        return not isinstance(json.loads(content), dict)
    except (UnicodeDecodeError, json.JSONDecodeError):
        return True


def parse_run(content: bytes, name: str) -> RunRecord:
    """Return the record in the bytes of a `run.json` of folder `name`."""
    what = f"`run.json` of {name}"
    values = _parse_head(content, what)
    known = {item.name for item in dataclasses.fields(RunRecord)}
    values = {key: value for key, value in values.items() if key in known}
    for key in ("classes", "notes"):
        values[key] = tuple(values.get(key) or ())
    try:
        record = RunRecord(**values)
    except TypeError as error:
        msg = f"{what} is damaged: {str(error).removeprefix('RunRecord.__init__() ')}."
        raise StoreError(msg, "Delete the bundle's folder and make it again.") from error
    if record.run_id != name:
        msg = f"{what} names run {record.run_id}."
        raise StoreError(msg, "A bundle's folder bears its run id; do not rename it.")
    return record


def parse_dataset(content: bytes, name: str) -> dict[str, Any]:
    """Return the values in the bytes of a `dataset.json` of folder `name`."""
    what = f"`dataset.json` of {name}"
    values = _parse_head(content, what)
    if values.get("dataset_id") != name:
        msg = f"{what} names dataset {values.get('dataset_id')!r}."
        raise StoreError(msg, "A bundle's folder bears its dataset id; do not rename it.")
    if not isinstance(values.get("name"), str) or not isinstance(values.get("simulated"), bool):
        msg = f"{what} is damaged: `name` must be text and `simulated` true or false."
        raise StoreError(msg, "Delete the bundle's folder and make it again.")
    return values


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


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
        _write_json(folder / "run.json", record.to_json())
        (folder / "log.txt").write_text(log, encoding="utf-8")
        if is_failed:
            return
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
    """
    dataset_id = check_id(info.get("dataset_id"), "`dataset_id`")
    values = {"format_version": FORMAT_VERSION} | dict(info)
    head = json.dumps(values, ensure_ascii=False).encode("utf-8")
    parse_dataset(head, dataset_id)
    table = cells_table_of(cells, dataset_id)
    if neighbours is not None:
        neighbours = checked_neighbours(neighbours, len(cells), f"dataset {dataset_id}")

    def fill(folder: Path) -> None:
        _write_json(folder / "dataset.json", values)
        write_parquet(folder / "cells.parquet", table)
        if neighbours is not None:
            write_neighbours(folder / NEIGHBOURS_FILE, neighbours)

    folder = open_root(root).publish(
        "datasets", dataset_id, fill, head="dataset.json", is_replaceable=is_damaged
    )
    return _same_kind(root, folder)


def read_dataset(folder: Location) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the values of `dataset.json` and the cells of the bundle in `folder`."""
    root, name, content = _head(folder, "datasets", "dataset.json")
    values = parse_dataset(content, name)
    cells = _read_table(root, "datasets", name, "cells.parquet", CELLS_SCHEMA)
    return values, cells.to_pandas()
