"""What bundles say of single cells and the store does not hold: probabilities and neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backend.errors import StoreError
from backend.store.lineage import proba_matrix
from backend.store.neighbours import COLUMN, NEIGHBOURS_FILE, checked_neighbours
from backend.store.roots import check_id, open_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.store.cache import Store
    from backend.store.roots import Root

__all__ = ["CellPlaces", "cell_places", "neighbours_of", "probabilities", "run_pieces"]

_PIECE: Final = 65_536


def probabilities(
    store: Store, run_id: str, cell_ids: Sequence[str], *, owner: str = "local"
) -> pd.DataFrame:
    """Read class probabilities of some cells from the bundle of their run.

    Returns
    -------
    One row a cell in the order of `cell_ids`, one column a class in the order of the run; NaN for
    cells that the run did not predict. Of runs with more than 64 classes only the five most
    probable ones are known, the others are 0.
    """
    check_id(run_id, "`run_id`")
    found = store.sql(
        """
        select b.root, r.classes
        from runs r join bundles b on b.owner = r.owner and b.kind = 'runs' and b.name = r.run_id
        where r.run_id = $run_id and r.owner in ('public', $owner)
            and r.status = 'done' and r.problem is null and r.fold >= 0
        """,
        run_id=run_id,
        owner=owner,
    )
    if found.empty:
        msg = f"No scored run {run_id}."
        raise StoreError(msg, "Bring the store up to date: `python -m backend store sync`.")
    classes = list(found["classes"][0])
    ids = list(cell_ids)
    columns = ["cell_id", "proba", "top5"]
    try:
        root = open_root(found["root"][0])
        with root.local_file("runs", run_id, "predictions.parquet") as path:
            table = pq.read_table(path, columns=columns, filters=[("cell_id", "in", ids)])
        matrix = proba_matrix(table, len(classes))
    except (FileNotFoundError, pa.ArrowException, OSError, ValueError) as error:
        msg = f"The probabilities of run {run_id} cannot be read ({type(error).__name__})."
        raise StoreError(msg, "Make the bundle again, then sync the store.") from error
    frame = pd.DataFrame(matrix, index=pd.Index(table["cell_id"].to_pylist()), columns=classes)
    return frame.reindex(pd.Index(ids, name="cell_id"))


def run_pieces(
    store: Store, run_id: str, n_classes: int, *, owner: str = "local"
) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Read a run's predictions piece by piece, so that memory is that of one piece.

    Yields
    ------
    `cell_id, role, label, predicted` and (n_cells, n_classes) float32 probabilities.

    Raises
    ------
    StoreError
        If the run is not there or damaged.
    """
    check_id(run_id, "`run_id`")
    root = _root_of(store, "runs", run_id, owner)
    columns = ["cell_id", "role", "label", "predicted"]
    try:
        with root.local_file("runs", run_id, "predictions.parquet") as path:
            file = pq.ParquetFile(path)
            for batch in file.iter_batches(_PIECE, columns=[*columns, "proba", "top5"]):
                table = pa.Table.from_batches([batch])
                yield table.select(columns).to_pandas(), proba_matrix(table, n_classes)
    except (FileNotFoundError, pa.ArrowException, OSError, ValueError) as error:
        msg = f"The probabilities of run {run_id} cannot be read ({type(error).__name__})."
        raise StoreError(msg, "Make the bundle again, then sync the store.") from error


@dataclass(frozen=True, eq=False)
class CellPlaces:
    """Donor and timepoint of the cells of a dataset; "" where one is not known."""

    cell_ids: pa.Array
    donors: np.ndarray
    timepoints: np.ndarray

    def _of(self, cell_ids: pd.Series, values: np.ndarray) -> np.ndarray:
        at = pc.index_in(pa.array(cell_ids, pa.string()), value_set=self.cell_ids)
        return values[pc.fill_null(at, len(values) - 1).to_numpy(zero_copy_only=False)]

    def donor_of(self, cell_ids: pd.Series) -> np.ndarray:
        """Return the donor of each cell, (n,) str."""
        return self._of(cell_ids, self.donors)

    def timepoint_of(self, cell_ids: pd.Series) -> np.ndarray:
        """Return the timepoint of each cell, (n,) str."""
        return self._of(cell_ids, self.timepoints)


def cell_places(store: Store, dataset_id: str, *, owner: str = "local") -> CellPlaces:
    """Read donor and timepoint of the cells of a dataset.

    Raises
    ------
    StoreError
        If the dataset is not there or damaged.
    """
    check_id(dataset_id, "`dataset_id`")
    root = _root_of(store, "datasets", dataset_id, owner)
    try:
        with root.local_file("datasets", dataset_id, "cells.parquet") as path:
            table = pq.read_table(path, columns=["cell_id", "donor", "timepoint"])
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        msg = f"The cells of dataset {dataset_id} cannot be read ({type(error).__name__})."
        raise StoreError(msg, "Make the bundle again, then sync the store.") from error

    def words(name: str) -> np.ndarray:
        # The last one stands for cells that are not there.
        return np.append(table[name].to_pandas().astype(object).fillna("").to_numpy(), "")

    return CellPlaces(
        table["cell_id"].combine_chunks().cast(pa.string()), words("donor"), words("timepoint")
    )


def _root_of(store: Store, kind: str, name: str, owner: str) -> Root:
    found = store.sql(
        """
        select b.root from bundles b
        where b.kind = $kind and b.name = $name and b.owner in ('public', $owner)
        order by b.owner = 'public' limit 1
        """,
        kind=kind,
        name=name,
        owner=owner,
    )
    if found.empty:
        msg = f"No bundle {kind}/{name}."
        raise StoreError(msg, "Bring the store up to date: `python -m backend store sync`.")
    return open_root(found["root"][0])


def neighbours_of(store: Store, dataset_id: str, *, owner: str = "local") -> np.ndarray | None:
    """Return (n_cells, k) int32 row numbers of the nearest cells, or None when none are stored.

    Raises
    ------
    StoreError
        If the file is there but damaged.
    """
    rows = store.sql(
        """
        select b.root, d.n_cells
        from datasets d
        join bundles b on b.owner = d.owner and b.kind = 'datasets' and b.name = d.dataset_id
        where d.dataset_id = $dataset_id and d.owner in ('public', $owner)
        """,
        dataset_id=dataset_id,
        owner=owner,
    )
    if rows.empty:
        return None
    root = open_root(rows["root"][0])
    if not root.has_file("datasets", dataset_id, NEIGHBOURS_FILE):
        return None
    try:
        with root.local_file("datasets", dataset_id, NEIGHBOURS_FILE) as path:
            lists = pq.read_table(path)[COLUMN].combine_chunks()
        n_cells = int(rows["n_cells"][0])
        values = lists.flatten().to_numpy(zero_copy_only=False)
        found = values.reshape(n_cells, -1)
        return checked_neighbours(found, n_cells, f"dataset {dataset_id}")
    except (
        FileNotFoundError,
        pa.ArrowException,
        OSError,
        KeyError,
        ValueError,
        AttributeError,
    ) as error:
        msg = f"The neighbours of dataset {dataset_id} cannot be read ({type(error).__name__})."
        hint = "Make them again: `python -m backend data neighbours`."
        raise StoreError(msg, hint) from error
