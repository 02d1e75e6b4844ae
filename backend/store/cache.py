"""The store: one process's own DuckDB file that caches all bundles for queries."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
import warnings
import weakref
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import duckdb
import pandas as pd
from filelock import FileLock, Timeout

from backend.config import home, precomputed_dir
from backend.errors import StoreError
from backend.store.sync import PUBLIC, SyncReport, sync
from backend.types import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from filelock import BaseFileLock

    from backend.store.roots import Location

__all__ = ["Store", "default_roots", "query_names"]

logger = logging.getLogger(__name__)

_MAX_FILES: Final = 8
"""Processes that may keep a store file in one folder; more work in memory."""

_PARAMETER: Final = re.compile(r"\$([a-z_]+)")

# Nothing is downloaded, and no extension is needed.
_CONFIG: Final[dict[str, Any]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

# Queries and bundles are checked before DuckDB sees them, so whatever else it raises means that the
# file is damaged, truncated or of another version: flipped bytes end in errors of any kind.
_DAMAGE: Final = (duckdb.Error, RuntimeError, UnicodeDecodeError)
_NO_DAMAGE: Final = (duckdb.OutOfMemoryException, duckdb.InterruptException)


def query_names() -> tuple[str, ...]:
    """Return the names that `Store.query` knows."""
    folder = files("backend.store") / "queries"
    return tuple(
        sorted(p.name.removesuffix(".sql") for p in folder.iterdir() if p.name.endswith(".sql"))
    )


@cache
def _query(name: str) -> tuple[str, frozenset[str], frozenset[str]]:
    """Return a query's SQL, all its parameters and the optional ones among them."""
    if name not in query_names():
        msg = f'There is no query "{name}".'
        raise StoreError(msg, f"Queries: {', '.join(query_names())}.")
    sql = (files("backend.store") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    header = " ".join(line.strip("- ") for line in sql.splitlines() if line.startswith("--"))
    optional = re.search(r"Optional: ([^.]*)\.", header)
    body = "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    return (
        sql,
        frozenset(_PARAMETER.findall(body)),
        frozenset(_PARAMETER.findall(optional.group(1)) if optional else ()),
    )


def _migrations() -> list[tuple[str, str]]:
    """Return name and SQL of all migrations, in order."""
    folder = files("backend.store") / "schema"
    found = sorted((p for p in folder.iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)
    return [(p.name.removesuffix(".sql"), p.read_text(encoding="utf-8")) for p in found]


def migrate(connection: duckdb.DuckDBPyConnection) -> int:
    """Apply the migrations that are missing, in order; return how many were.

    Raises
    ------
    StoreError
        If an applied migration is unknown here or its text has changed since.
    """
    connection.execute(
        """
        create table if not exists schema_migrations (
            version varchar not null, sha256 varchar not null, applied_at timestamp not null
        )
        """
    )
    applied = connection.execute(
        "select version, sha256 from schema_migrations order by version"
    ).fetchall()
    ours = [
        (version, hashlib.sha256(sql.encode("utf-8")).hexdigest(), sql)
        for version, sql in _migrations()
    ]
    if applied != [(version, sha256) for version, sha256, _ in ours[: len(applied)]]:
        msg = f"The store was made by another Faultline (its schema is {applied[-1][0]})."
        raise StoreError(msg, "Run `python -m backend store rebuild`.")
    for version, sha256, sql in ours[len(applied) :]:
        connection.begin()
        connection.execute(sql)
        connection.execute(
            "insert into schema_migrations values ($version, $sha256, now()::timestamp)",
            {"version": version, "sha256": sha256},
        )
        connection.commit()
    return len(ours) - len(applied)


def _own_file(path: Path) -> tuple[Path | None, BaseFileLock | None]:
    """Find a store file for this process alone: `path`, else `path` with -1, -2, … at its stem.

    DuckDB lets one process open a file for writing. Ownership is a kernel lock on `<file>.lock`,
    which a killed process cannot leave behind. Files of ended processes are taken over, so a
    command beside a running server finds the file that the last command left.

    Returns
    -------
    The file and its lock; (None, None) when the folder cannot be written or all files are taken.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(_MAX_FILES):
            file = path if number == 0 else path.with_stem(f"{path.stem}-{number}")
            lock = FileLock(f"{file}.lock", blocking=False, mode=0o600, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            return file, lock
    except OSError as error:
        logger.warning("No store file in %s (%s): working in memory.", path.parent, error)
    return None, None


class Store:
    """Queries over all bundles below some roots.

    Safe for threads: each call works on its own cursor. Use `sync` to see new bundles.

    Parameters
    ----------
    path
        The store's file, or ":memory:". When another process has it, a file beside it is used:
        see `path` of the instance.
    roots
        (owner, location) pairs, or a function that returns them anew at each sync. What the owner
        `public` has is seen by everyone.
    threads
        Threads of DuckDB; by default one a core.
    """

    def __init__(
        self,
        path: Path | str,
        roots: Sequence[tuple[str, Location]] | Callable[[], Sequence[tuple[str, Location]]],
        *,
        threads: int | None = None,
    ) -> None:
        self._roots = roots if callable(roots) else lambda: roots
        self._config = _CONFIG | ({} if threads is None else {"threads": threads})
        self._lock = threading.RLock()
        self._readers = threading.Condition()
        self._n_cursors = 0
        self._maker: int | None = None
        self._generation = 0
        self._n_repairs = 0
        self._notice = ""
        self._file, lock = (None, None) if path == ":memory:" else _own_file(Path(path))
        self._release = None if lock is None else weakref.finalize(self, lock.release)
        self._connection = self._connect()
        self._version = self._read_version()

    @classmethod
    def open_default(cls, *, threads: int | None = None) -> Self:
        """Open the store of `FAULTLINE_HOME` over the shipped, own and users' bundles."""
        return cls(home() / "store.duckdb", default_roots, threads=threads)

    @property
    def path(self) -> Path | None:
        """The file in use, or None for a store in memory."""
        return self._file

    @property
    def notice(self) -> str:
        """What became of a damaged file, for people who look at the results; "" if nothing did."""
        return self._notice

    def _warn(self, message: str) -> None:
        self._notice = message
        warnings.warn(message, stacklevel=4)

    @property
    def version(self) -> str:
        """Hash of the contents: changes whenever a query may answer differently."""
        return self._version

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open the file and bring its schema up to date; make it anew when it is damaged."""
        if self._file is None:
            return self._open(":memory:")
        try:
            return self._open(str(self._file))
        except (StoreError, *_DAMAGE) as error:
            if "lock on file" in str(error):
                return self._open_in_memory("another program has it open")
            reason = error.message if isinstance(error, StoreError) else type(error).__name__
            self._warn(f"The store {self._file.name} cannot be used and is made again: {reason}")
        try:
            self._remove_file()
            return self._open(str(self._file))
        except (OSError, *_DAMAGE) as error:
            return self._open_in_memory(f"it cannot be written ({type(error).__name__})")

    def _open_in_memory(self, reason: str) -> duckdb.DuckDBPyConnection:
        assert self._file is not None
        self._warn(f"The store {self._file.name} is not used, because {reason}: working in memory.")
        self._file = None
        return self._open(":memory:")

    def _open(self, file: str) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(file, config=self._config)
        try:
            migrate(connection)
            connection.execute("select version from contents").fetchall()
        except (StoreError, *_DAMAGE):
            with contextlib.suppress(*_DAMAGE):
                connection.close()
            raise
        return connection

    def _remove_file(self) -> None:
        assert self._file is not None
        for path in (self._file, Path(f"{self._file}.wal")):
            path.unlink(missing_ok=True)

    def _read_version(self) -> str:
        rows = self._connection.cursor().execute("select version from contents").fetchall()
        return str(rows[0][0]) if rows else ""

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor of its own to one call; waits while the store is made again."""
        with self._readers:
            self._readers.wait_for(lambda: self._maker in (None, threading.get_ident()))
            self._n_cursors += 1
        try:
            cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()
        finally:
            with self._readers:
                self._n_cursors -= 1
                self._readers.notify_all()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no cursor is open and let nobody else open one."""
        with self._readers:
            self._maker = threading.get_ident()
            self._readers.wait_for(lambda: self._n_cursors == 0)
        try:
            yield
        finally:
            with self._readers:
                self._maker = None
                self._readers.notify_all()

    def _repair(self, generation: int, error: Exception) -> None:
        """Make a damaged store again, once, whichever threads noticed; then work in memory."""
        with self._lock:
            if self._generation != generation:
                return
            if self._n_repairs:
                with self._alone():
                    self._into_memory(error)
            else:
                self._n_repairs += 1
                self._warn(f"The store is damaged and is made again ({type(error).__name__}).")
                self.rebuild()

    def _into_memory(
        self, error: Exception, progress: Callable[[int, int], None] | None = None
    ) -> SyncReport:
        """Leave the file and read all bundles into memory; call it while alone."""
        with contextlib.suppress(*_DAMAGE):
            self._connection.close()
        self._connection = self._open_in_memory(f"it is damaged again ({type(error).__name__})")
        self._generation += 1
        return self._sync(progress)

    def _is_damage(self, error: Exception) -> bool:
        return self._file is not None and not isinstance(error, _NO_DAMAGE)

    def _sync(self, progress: Callable[[int, int], None] | None) -> SyncReport:
        with self._cursor() as cursor:
            report = sync(cursor, self._roots(), progress)
        self._version = report.version
        return report

    def sync(self, progress: Callable[[int, int], None] | None = None) -> SyncReport:
        """Make the store equal to the bundles below its roots.

        Parameters
        ----------
        progress
            Called with the number of runs read and to read.
        """
        with self._lock:
            try:
                return self._sync(progress)
            except _DAMAGE as error:
                if not self._is_damage(error):
                    raise
                self._warn(f"The store is damaged and is made again ({type(error).__name__}).")
                return self.rebuild(progress)

    def rebuild(self, progress: Callable[[int, int], None] | None = None) -> SyncReport:
        """Forget everything and read all bundles again."""
        with self._lock, self._alone():
            with contextlib.suppress(*_DAMAGE):
                self._connection.close()
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._remove_file()
            self._connection = self._connect()
            self._generation += 1
            try:
                return self._sync(progress)
            except _DAMAGE as error:
                if not self._is_damage(error):
                    raise
                return self._into_memory(error, progress)

    def query(self, name: str, *, owner: str = "local", **parameters: Any) -> pd.DataFrame:
        """Run `queries/<name>.sql` for what `owner` may see.

        Parameters
        ----------
        name
            One of `query_names()`; the file's header names its parameters and the grain of a row.
        **parameters
            Values by name. Optional ones may be left out; None and empty lists filter nothing there.
        """
        sql, known, optional = _query(name)
        given = {key: _plain(value) for key, value in parameters.items()}
        given |= {key: None for key in optional if key not in given or given[key] == []}
        given["owner"] = owner
        if given.keys() != known:
            wrong = sorted(given.keys() ^ known)
            msg = f'The query "{name}" does not fit its parameters: {", ".join(wrong)}.'
            raise StoreError(msg, f"It takes: {', '.join(sorted(known - {'owner'}))}.")
        generation = self._generation
        try:
            with self._cursor() as cursor:
                return cursor.execute(sql, given).df()
        except _DAMAGE as error:
            if not self._is_damage(error):
                raise
            self._repair(generation, error)
        return self.query(name, owner=owner, **parameters)

    def sql(self, statement: str, **parameters: Any) -> pd.DataFrame:
        """Run SQL of the caller's own, for tests, benchmarks and a look by hand; no owner filter."""
        with self._cursor() as cursor:
            return cursor.execute(statement, parameters or None).df()

    def info(self) -> dict[str, Any]:
        """Say where the store lies and what it holds, over all owners."""
        with self._cursor() as cursor:
            counts = cursor.execute(
                """
                select
                    (select count(*) from datasets) as n_datasets,
                    (select count(distinct series_id) from runs) as n_series,
                    (select count(*) from runs) as n_runs,
                    (select count(*) from runs where status = 'failed') as n_failed,
                    (select count(*) from prediction_rows) as n_predictions,
                    (select count(*) from confusion_rows) as n_confusions
                """
            ).fetchall()[0]
            problems = cursor.execute(
                """
                select kind || '/' || name || ': ' || problem
                from bundles where problem is not null order by kind, name
                """
            ).fetchall()
        names = ("datasets", "series", "runs", "failed", "predictions", "confusions")
        return {
            "file": None if self._file is None else str(self._file),
            "size_mib": 0.0 if self._file is None else self._file.stat().st_size / 2**20,
            "version": self.version,
            "roots": [
                {"owner": owner, "location": str(location)} for owner, location in self._roots()
            ],
            **{f"n_{name}": int(count) for name, count in zip(names, counts, strict=True)},
            "problems": [row[0] for row in problems],
        }

    def close(self) -> None:
        """Close the file and let another process have it."""
        with self._lock:
            self._connection.close()
            if self._release is not None:
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def default_roots() -> list[tuple[str, Location]]:
    """Return the shipped bundles, the own ones and those of each user."""
    roots: list[tuple[str, Location]] = [(PUBLIC, precomputed_dir()), (PUBLIC, home())]
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        names = sorted(entry.name for entry in os.scandir(home() / "users") if entry.is_dir())
        roots += [
            (name, home() / "users" / name)
            for name in names
            if OWNER.fullmatch(name) and name != PUBLIC
        ]
    return roots


def _plain(value: Any) -> Any:
    """Return lists for tuples and arrays, and Python numbers for numpy's."""
    if isinstance(value, str) or value is None:
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, (tuple, set, frozenset, pd.Index)) else value
