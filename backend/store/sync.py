"""Compare the bundles below the roots with the store; drop what vanished, read what is new."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from backend.errors import StoreError
from backend.store.ingest import Found, Reader, statement, temporary_names
from backend.store.record import parse_run
from backend.store.roots import Location, open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import duckdb

__all__ = ["PUBLIC", "SyncReport", "sync"]

PUBLIC: Final = "public"
"""Owner of what everyone may see."""

_HEADS: Final = {"datasets": "dataset.json", "runs": "run.json"}

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync found and changed. `problems` name bundles that are there but cannot be used."""

    n_datasets: int
    n_runs: int
    n_failed: int
    n_added: int
    n_changed: int
    n_dropped: int
    problems: tuple[str, ...]
    seconds: float
    version: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return dataclasses.asdict(self)


def _is_done(found: Found) -> bool:
    if found.kind == "datasets":
        return True
    try:
        return parse_run(found.head, found.name).status == "done"
    except StoreError:
        return False


def _list_bundles(roots: Iterable[tuple[str, Location]]) -> dict[_Key, Found]:
    """Return what belongs in the store.

    A bundle that lies in several roots counts once for every reader: a private one is left out
    when a public one says the same, done goes before failed, then the order of the roots decides.
    """
    copies: dict[tuple[str, str], list[Found]] = {}
    for owner, location in roots:
        root = open_root(location)
        for kind, head_name in _HEADS.items():
            for name in root.names(kind):
                head = root.read_bytes(kind, name, head_name)
                if head is not None:
                    found = Found(owner, kind, name, root, head)
                    copies.setdefault((kind, name), []).append(found)
    wanted: dict[_Key, Found] = {}
    for group in copies.values():
        if len(group) > 1:
            # Sorting is stable: within equals the order of the roots stays.
            group.sort(key=lambda found: (found.owner != PUBLIC, not _is_done(found)))
        public = group[0] if group[0].owner == PUBLIC else None
        for found in group:
            is_hidden = (
                public is not None
                and found.owner != PUBLIC
                and (_is_done(public) or not _is_done(found))
            )
            if not is_hidden:
                wanted.setdefault(found.key, found)
    return wanted


def sync(
    connection: duckdb.DuckDBPyConnection,
    roots: Sequence[tuple[str, Location]],
    progress: Callable[[int, int], None] | None = None,
) -> SyncReport:
    """Make the store equal to the bundles.

    Each batch is one transaction: a sync that is killed leaves a smaller store, never a wrong one.
    `progress` is called with the number of runs read and to read.
    """
    started = time.perf_counter()
    wanted = _list_bundles(roots)
    known: dict[_Key, tuple[Any, ...]] = {
        (owner, kind, name): tuple(rest)
        for owner, kind, name, *rest in connection.execute(
            "select owner, kind, name, root, sha256, problem from bundles"
        ).fetchall()
    }
    kept = {
        key
        for key, found in wanted.items()
        if key in known and known[key] == (str(found.root.location), found.sha256, None)
    }
    kept -= _runs_without_dataset(connection, kept)
    gone = known.keys() - kept
    if gone:
        _drop(connection, gone)
    reader = Reader(connection)
    new = [found for key, found in sorted(wanted.items()) if key not in kept]
    for found in new:
        if found.kind == "datasets":
            reader.read_dataset(found)
    reader.read_runs([found for found in new if found.kind == "runs"], progress)
    version = _set_version(connection)
    problems = connection.execute(
        """
        select kind || '/' || name || ': ' || problem
        from bundles where problem is not null order by kind, name
        """
    ).fetchall()
    counts = connection.execute(
        """
        select (select count(*) from datasets), count(*), count(*) filter (status = 'failed')
        from runs
        """
    ).fetchall()[0]
    return SyncReport(
        n_datasets=counts[0],
        n_runs=counts[1],
        n_failed=counts[2],
        n_added=len(wanted.keys() - known.keys()),
        n_changed=sum(known[key][2] is None for key in (wanted.keys() & known.keys()) - kept),
        n_dropped=len(known.keys() - wanted.keys()),
        problems=tuple(row[0] for row in problems),
        seconds=time.perf_counter() - started,
        version=version,
    )


def _runs_without_dataset(connection: duckdb.DuckDBPyConnection, kept: set[_Key]) -> set[_Key]:
    """Return the kept runs whose cells must be looked up again, because their dataset changed."""
    rows = connection.execute(
        """
        select r.owner, r.run_id, d.owner, d.dataset_id
        from runs r join datasets d using (dataset_key)
        """
    ).fetchall()
    return {
        (owner, "runs", run_id)
        for owner, run_id, holder, dataset_id in rows
        if (holder, "datasets", dataset_id) not in kept
    }


def _drop(connection: duckdb.DuckDBPyConnection, gone: Iterable[_Key]) -> None:
    """Remove bundles and all that was read from them."""
    gone = list(gone)
    connection.begin()
    temporary_names(connection, "gone", [f"{kind}/{owner}/{name}" for owner, kind, name in gone])
    connection.execute(statement("drop"))
    connection.execute(statement("recount"))
    connection.commit()


def _set_version(connection: duckdb.DuckDBPyConnection) -> str:
    version = str(connection.execute(statement("version")).fetchall()[0][0])[:16]
    if connection.execute("select version from contents").fetchall() != [(version,)]:
        connection.begin()
        connection.execute("delete from contents")
        connection.execute("insert into contents values ($version)", {"version": version})
        connection.commit()
    return version
