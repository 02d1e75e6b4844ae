"""Read bundles into the tables: text to ids, in bulk, one transaction a batch."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backend.data.labels import to_lineage
from backend.errors import StoreError
from backend.store.frames import CELLS_SCHEMA, FINAL_FOLD, PREDICTIONS_SCHEMA
from backend.store.lineage import lineage_predictions, lineages_of
from backend.store.record import RunRecord, parse_dataset, parse_run
from backend.store.seals import check_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from backend.store.roots import Root

__all__ = ["Found", "Reader", "statement", "temporary_names"]

_BATCH_ROWS: Final = 3_000_000
"""Predictions that are staged at once: a few hundred MiB."""

_GLOB: Final = frozenset("*?[]{}")

_FILE_ERRORS: Final = (pa.ArrowException, OSError, ValueError)
_OF_VALUES: Final = (duckdb.ConstraintException, duckdb.ConversionException)
"""What DuckDB raises on a value that does not fit its column: that is the bundle's fault."""

_text, _texts = pa.string(), pa.list_(pa.string())
_RUN_ROWS: Final = pa.schema(
    [
        *((name, pa.int32()) for name in ("run_key", "edition_key", "dataset_key")),
        *((name, _text) for name in ("owner", "problem", "status", "reason", "error_kind")),
        *((name, _text) for name in ("created_at", "run_id", "series_id", "dataset_id")),
        *((name, _text) for name in ("protocol", "budget", "model", "preset", "init")),
        *((name, _text) for name in ("checkpoint", "label_level", "settings", "split_sha256")),
        *((name, _text) for name in ("checkpoint_sha256", "display_name", "configuration")),
        *((name, _text) for name in ("versions", "device", "convergence")),
        *((name, _texts) for name in ("classes", "notes")),
        *((name, pa.int16()) for name in ("folds", "fold")),
        *((name, pa.int32()) for name in ("split_seed", "seed", "recipe_version")),
        *((name, pa.int32()) for name in ("n_train", "n_valid", "n_test", "n_train_donors")),
        *((name, pa.float64()) for name in ("fraction", "wall_seconds", "peak_memory_mib")),
    ]
)


def statement(name: str) -> str:
    """Return the SQL of one step of reading."""
    path = files("backend.store") / "steps" / f"{name}.sql"
    return path.read_text(encoding="utf-8")


def temporary_names(
    connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str]
) -> None:
    """Show `names` to SQL as `table` (name) until it is shown again."""
    connection.register(table, pa.table({"name": pa.array(names, pa.string())}))


@dataclass(slots=True)
class Found:
    """One bundle below a root, with the bytes of its head."""

    owner: str
    kind: str
    name: str
    root: Root
    head: bytes
    problem: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Owner, kind and folder name."""
        return self.owner, self.kind, self.name

    @property
    def sha256(self) -> str:
        """Hex sha256 of the head."""
        return hashlib.sha256(self.head).hexdigest()

    def set_problem(self, error: Exception | str) -> None:
        """Remember in one line why the bundle cannot be used."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self.problem = lines[0][:300]

    def local_path(self, stack: ExitStack, file: str) -> str:
        """Return a path of one file that DuckDB does not take for a pattern."""
        path = stack.enter_context(self.root.local_file(self.kind, self.name, file))
        if not _GLOB.isdisjoint(str(path)):
            content = path.read_bytes()
            path = Path(stack.enter_context(TemporaryDirectory(prefix="faultline-"))) / file
            path.write_bytes(content)
        return str(path)


@dataclass(slots=True)
class _Run:
    """A run on its way into the tables."""

    found: Found
    record: RunRecord
    row: dict[str, Any]
    n_rows: int = 0

    @property
    def run_key(self) -> int:
        return int(self.row["run_key"])

    def set_problem(self, error: Exception | str) -> None:
        self.found.set_problem(error)
        self.row["problem"] = self.found.problem


def _check_file(path: str, schema: pa.Schema) -> int:
    """Return the number of rows of a parquet file of this schema, or raise `StoreError`."""
    file = Path(path).name
    try:
        metadata = pq.read_metadata(path)
        found = metadata.schema.to_arrow_schema()
    except _FILE_ERRORS as error:
        msg = f"`{file}` cannot be read ({type(error).__name__})."
        raise StoreError(msg, "Make the bundle again.") from error
    for column in schema:
        index = found.get_field_index(column.name)
        kind = found.field(index).type if index >= 0 else None
        is_nested = pa.types.is_list(column.type) and kind is not None and pa.types.is_list(kind)
        if kind != column.type and not is_nested:
            msg = f"Column `{column.name}` of `{file}` is {kind or 'missing'}, not {column.type}."
            raise StoreError(msg, "Make the bundle again.")
    return int(metadata.num_rows)


class Reader:
    """Reads bundles over one connection; not shared between threads."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        keys = connection.execute(
            """
            select
                (select coalesce(max(dataset_key), 0) from datasets),
                (select coalesce(max(run_key), 0) from runs),
                (select coalesce(max(edition_key), 0) from runs)
            """
        ).fetchall()[0]
        self._dataset_key, self._run_key, self._edition_key = (int(key) for key in keys)
        self._editions: dict[tuple[Any, ...], int] = {
            tuple(identity): key
            for *identity, key in connection.execute(
                """
                select distinct
                    owner, series_id, split_sha256, checkpoint_sha256, recipe_version, edition_key
                from runs
                """
            ).fetchall()
        }

    def _insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows by column name; `table` is a name of ours, never one from outside."""
        self._connection.register("new_rows", rows)
        self._connection.execute(f"insert into {table} by name select * from new_rows")
        self._connection.unregister("new_rows")

    def _remember(self, bundles: Iterable[Found]) -> None:
        rows = [
            {
                "owner": found.owner,
                "kind": found.kind,
                "name": found.name,
                "root": str(found.root.location),
                "sha256": found.sha256,
                "problem": found.problem,
            }
            for found in bundles
        ]
        if rows:
            names = ("owner", "kind", "name", "root", "sha256", "problem")
            schema = pa.schema([(name, pa.string()) for name in names])
            self._insert("bundles", pa.Table.from_pylist(rows, schema=schema))

    def read_dataset(self, found: Found) -> None:
        """Read one dataset with its cells, or remember why not."""
        with ExitStack() as stack:
            try:
                values = parse_dataset(found.head, found.name)
                path = found.local_path(stack, "cells.parquet")
                n_cells = _check_file(path, CELLS_SCHEMA)
                check_file(path, values.pop("files", {}))
                cells = pq.read_table(path, columns=["cell_id", "donor"])
            except (StoreError, *_FILE_ERRORS) as error:
                found.set_problem(error)
                self._remember([found])
                return
            if cells["cell_id"].null_count or len(cells["cell_id"].unique()) != n_cells:
                found.set_problem("its cell ids are not unique")
                self._remember([found])
                return
            key = self._dataset_key + 1
            texts = {name: values.get(name) for name in ("source", "citation", "licence_note")}
            row = {name: value and str(value) for name, value in texts.items()} | {
                "dataset_key": key,
                "owner": found.owner,
                "dataset_id": found.name,
                "name": values["name"],
                "simulated": values["simulated"],
                "parent": None if values.get("parent") is None else str(values["parent"]),
                "n_cells": n_cells,
                "n_donors": len(cells["donor"].drop_null().unique()),
                "info": json.dumps(values, ensure_ascii=False),
            }
            where = {"dataset_key": key, "path": path}
            about = {"owner": found.owner, "dataset_id": found.name}
            self._connection.begin()
            try:
                self._insert("datasets", pa.Table.from_pylist([row]))
                self._connection.execute(statement("slices"), where)
                self._connection.execute(statement("cells"), where | about)
                self._remember([found])
                self._connection.commit()
            except (duckdb.Error, pa.ArrowException, ValueError, TypeError) as error:
                self._connection.rollback()
                is_value = isinstance(error, _OF_VALUES) or not isinstance(error, duckdb.Error)
                if not is_value and _is_readable(path):
                    raise
                found.set_problem(error)
                self._remember([found])
                return
        self._dataset_key = key

    def read_runs(
        self, bundles: Sequence[Found], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Read runs with their predictions; what cannot be used is listed with its problem."""
        holders = {
            (owner, dataset_id): key
            for owner, dataset_id, key in self._connection.execute(
                "select owner, dataset_id, dataset_key from datasets"
            ).fetchall()
        }
        total, done = len(bundles), 0
        batch: list[_Run] = []
        n_rows = 0
        with ExitStack() as stack:
            for found in bundles:
                run = self._open(found, holders)
                if run is None:
                    self._remember([found])
                    done += 1
                    continue
                if run.record.status == "done" and found.problem is None:
                    self._open_predictions(run, stack)
                batch.append(run)
                n_rows += run.n_rows
                if n_rows >= _BATCH_ROWS:
                    self._read_batch(batch)
                    done += len(batch)
                    batch, n_rows = [], 0
                    stack.close()
                    if progress is not None:
                        progress(done, total)
            if batch:
                self._read_batch(batch)
        if progress is not None:
            progress(total, total)

    def _open(self, found: Found, holders: dict[tuple[str, str], int]) -> _Run | None:
        """Return a run's row, or None when its head cannot be used."""
        try:
            record = parse_run(found.head, found.name)
        except StoreError as error:
            found.set_problem(error)
            return None
        identity = (
            found.owner,
            record.series_id,
            record.split_sha256,
            record.checkpoint_sha256,
            record.recipe_version,
        )
        holder = holders.get((found.owner, record.dataset_id))
        holder = holders.get(("public", record.dataset_id)) if holder is None else holder
        row = record.to_json() | {
            "run_key": self._run_key + 1,
            "edition_key": self._editions.get(identity, self._edition_key + 1),
            "dataset_key": holder,
            "owner": found.owner,
            "problem": None,
            "fold": FINAL_FOLD if record.fold == "final" else record.fold,
            "settings": json.dumps(record.settings, ensure_ascii=False),
            "versions": json.dumps(record.versions, ensure_ascii=False),
            "convergence": record.convergence
            and json.dumps(record.convergence, ensure_ascii=False),
        }
        try:
            pa.Table.from_pylist([row], schema=_RUN_ROWS)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            found.set_problem(f"`run.json` holds a value of the wrong type: {error}")
            return None
        self._run_key += 1
        if identity not in self._editions:
            self._edition_key += 1
            self._editions[identity] = self._edition_key
        run = _Run(found, record, row)
        if record.status == "done" and holder is None:
            run.set_problem(f"its dataset {record.dataset_id} is not there")
        return run

    def _open_predictions(self, run: _Run, stack: ExitStack) -> None:
        """Find the predictions of a done run; `final` runs have none."""
        if run.record.fold == "final":
            return
        try:
            run.row["path"] = run.found.local_path(stack, "predictions.parquet")
            run.n_rows = _check_file(run.row["path"], PREDICTIONS_SCHEMA)
            check_file(run.row["path"], run.record.files)
        except (StoreError, *_FILE_ERRORS) as error:
            run.set_problem(error)

    def _read_batch(self, batch: list[_Run]) -> None:
        """Read some runs in one transaction; find damaged ones by halving the batch."""
        readable = [run for run in batch if run.n_rows and run.found.problem is None]
        self._connection.begin()
        try:
            if readable:
                self._stage(readable)
            rows = pa.Table.from_pylist([run.row for run in batch], schema=_RUN_ROWS)
            self._insert("runs", rows)
            if readable:
                self._connection.execute(statement("predictions"))
                self._connection.execute(statement("confusions"))
                self._connection.execute(statement("recount"))
            self._remember(run.found for run in batch)
            self._connection.commit()
        except (duckdb.Error, pa.ArrowException, OSError, ValueError) as error:
            self._connection.rollback()
            if len(batch) > 1:
                middle = len(batch) // 2
                self._read_batch(batch[:middle])
                self._read_batch(batch[middle:])
                return
            run = batch[0]
            is_store = isinstance(error, duckdb.Error) and not isinstance(error, _OF_VALUES)
            if run.found.problem is not None or (is_store and _is_readable(run.row.get("path"))):
                raise
            run.set_problem(error)
            self._read_batch(batch)

    def _stage(self, runs: Sequence[_Run]) -> None:
        """Fill the temporary table `staged` with checked rows of both label levels."""
        connection = self._connection
        paths = [run.row["path"] for run in runs]
        lineage_of = self._number_words(runs, paths)
        schema = pa.schema(
            [
                ("run_key", pa.int32()),
                ("edition_key", pa.int32()),
                ("dataset_key", pa.int32()),
                ("label_level", pa.string()),
            ]
        )
        batch = pa.Table.from_pylist([run.row for run in runs], schema=schema)
        places = pa.array(np.arange(len(runs)))
        connection.register("batch", batch.append_column("file_index", places))
        connection.execute(statement("staged"), {"paths": paths})
        twice = _runs_with_a_cell_twice(connection)
        problems = dict(connection.execute(statement("problems"), {"twice": twice}).fetchall())
        for run in runs:
            if run.run_key in problems:
                run.set_problem(problems[run.run_key])
        if problems:
            names = {"damaged": list(problems)}
            connection.execute("delete from staged where list_contains($damaged, run_key)", names)
        fine = [
            run for run in runs if run.record.label_level == "fine" and run.found.problem is None
        ]
        if fine:
            words = dict(connection.execute("select word, word_id from words").fetchall())
            connection.register("lineage_rows", _lineage_rows(fine, words))
            connection.register("lineage_of", lineage_of)
            connection.execute(statement("lineages"))
        connection.execute(
            "create or replace temp table touched as select distinct edition_key from batch"
        )

    def _number_words(self, runs: Sequence[_Run], paths: Sequence[str]) -> pa.Table:
        """Give new labels an id; return the ids of every label and of its lineage."""
        rows = self._connection.execute(statement("words"), {"paths": paths}).fetchall()
        known = dict(self._connection.execute("select word, word_id from words").fetchall())
        new = {word for (word,) in rows} | {label for run in runs for label in run.record.classes}
        new |= {to_lineage(word) for word in new}
        start = max(known.values(), default=0) + 1
        ids = {word: start + i for i, word in enumerate(sorted(new - known.keys()))}
        if ids:
            columns = {
                "word_id": pa.array(list(ids.values()), pa.int32()),
                "word": pa.array(list(ids), pa.string()),
            }
            self._insert("words", pa.table(columns))
        ids |= known
        pairs = [
            (key, ids[to_lineage(word)]) for word, key in ids.items() if to_lineage(word) in ids
        ]
        return pa.table(
            {
                "fine_key": pa.array([fine for fine, _ in pairs], pa.int32()),
                "lineage_key": pa.array([lineage for _, lineage in pairs], pa.int32()),
            }
        )


def _is_readable(path: str | None) -> bool:
    """Say whether predictions can be read without the store: then the store is what is damaged."""
    if path is None:
        return True
    try:
        pq.read_table(path)
    except _FILE_ERRORS:
        return False
    return True


def _runs_with_a_cell_twice(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Return the keys of staged runs that predict a cell more than once."""
    columns = connection.execute(
        "select run_key, cell_index from staged where cell_index is not null"
    ).fetchnumpy()
    cell = columns["run_key"].astype(np.int64) << 32 | columns["cell_index"]
    if (np.diff(cell) <= 0).any():
        cell.sort()
    same = np.flatnonzero(np.diff(cell) == 0)
    return np.unique(cell[same] >> 32).tolist()


def _lineage_rows(runs: Sequence[_Run], words: dict[str, int]) -> pa.Table:
    """Return the lineage predictions of fine-trained runs as (run_key, place, ...)."""

    def of_run(run: _Run) -> pa.Table:
        best, confidence = lineage_predictions(run.row["path"], run.record.classes)
        lineages, _ = lineages_of(run.record.classes)
        keys = np.array([words[name] for name in lineages], dtype=np.int32)
        return pa.table(
            {
                "run_key": pa.array(np.full(len(best), run.run_key, dtype=np.int32)),
                "place": pa.array(np.arange(len(best), dtype=np.int32)),
                "predicted_key": pa.array(keys[best]),
                "confidence": pa.array(confidence.astype(np.float32)),
            }
        )

    # Decoding parquet and the products let go of the interpreter: two at once keep two cores busy.
    with ThreadPoolExecutor(max_workers=2) as pool:
        return pa.concat_tables(pool.map(of_run, runs))
