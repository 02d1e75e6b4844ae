"""What bundles say of single cells and the store does not hold: probabilities and neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import StoreError
from backend.store.lineage import proba_matrix
from backend.store.neighbours import COLUMN, NEIGHBOURS_FILE, checked_neighbours
from backend.store.roots import check_id, open_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from backend.store.cache import Store

__all__ = ["neighbours_of", "probabilities"]


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
