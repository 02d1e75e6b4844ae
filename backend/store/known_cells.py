"""Which datasets that are known here hold the cells of a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from backend.errors import InputError
from backend.store.roots import open_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from backend.store.roots import Location

__all__ = ["KnownDataset", "find_known", "known_cells"]

_LEAST: Final = 0.5


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A dataset that holds cells of a table.

    n_cells : cells of the table that are in it
    share : of the table's cells (0–1)
    """

    dataset_id: str
    name: str
    n_cells: int
    share: float


def find_known(cell_ids: pd.Series, roots: Sequence[Location]) -> tuple[KnownDataset, ...]:
    """Return datasets that hold at least half of some cells by their ids, the fullest first."""
    import pyarrow as pa

    wanted = pa.array(cell_ids.drop_duplicates(), pa.string())
    found = {}
    for place in roots:
        root = open_root(place)
        for dataset_id in root.names("datasets"):
            head = root.read_bytes("datasets", dataset_id, "dataset.json")
            if head is None or dataset_id in found:
                continue
            with root.local_file("datasets", dataset_id, "cells.parquet") as path:
                own = pq.read_table(path, columns=["cell_id"])["cell_id"].combine_chunks()
            n = int(pc.sum(pc.is_in(wanted, value_set=own)).as_py() or 0)
            if n >= _LEAST * len(wanted):
                name = str(json.loads(head).get("name") or dataset_id)
                found[dataset_id] = KnownDataset(dataset_id, name, n, n / len(wanted))
    return tuple(sorted(found.values(), key=lambda known: (-known.share, known.dataset_id)))


def known_cells(dataset_id: str, roots: Sequence[Location]) -> pd.DataFrame:
    """Return the cells of a dataset.

    Raises
    ------
    InputError
        If no root holds it.
    """
    for place in roots:
        root = open_root(place)
        if root.read_bytes("datasets", dataset_id, "dataset.json") is not None:
            with root.local_file("datasets", dataset_id, "cells.parquet") as path:
                return pq.read_table(path).to_pandas()
    msg = f'There is no dataset "{dataset_id[:40]}" here.'
    raise InputError(msg, "Leave it out: then the table becomes a dataset of its own.")
