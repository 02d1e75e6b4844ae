"""The list of all runs of a results folder: which fit each run id stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from backend.errors import InputError, StoreError
from backend.files import replaced
from backend.store.bundle import list_runs, read_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backend.store.roots import Location

__all__ = ["COLUMNS", "INDEX", "index_of", "write_index"]

INDEX: Final = "index.csv"
COLUMNS: Final = (
    "dataset_id", "model", "preset", "init", "protocol", "label_level", "budget", "fraction",
    "seed", "series_id", "fold", "status", "run_id",
)  # fmt: skip
"""Columns of an index; it is sorted by them in this order."""


def index_of(root: Location, *, warn: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """Return a row a run below `root`, in the order of `COLUMNS`.

    Parameters
    ----------
    warn
        Told of each bundle that cannot be read; it is left out.

    Raises
    ------
    InputError
        If there is no run.
    """
    rows = []
    for folder in list_runs(root):  # type: ignore[type-var]
        try:
            record = read_run(folder)
        except StoreError as error:
            warn(str(error))
            continue
        rows.append([getattr(record, name) for name in COLUMNS])
    if not rows:
        msg = f'There are no runs in "{root}".'
        raise InputError(msg, "Name a folder that `run` or `sweep` wrote to: it holds `runs/`.")
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).fillna({"preset": ""})
    return frame.sort_values(list(COLUMNS), key=_in_order, ignore_index=True)


def _in_order(column: pd.Series) -> pd.Series:
    # Folds are numbers and "final", which comes last.
    text = column.astype(str)
    return text.str.zfill(5) if column.name == "fold" else text


def write_index(root: Path, *, warn: Callable[[str], None] = lambda _: None) -> Path:
    """Write `index.csv` of a local results folder; equal runs give equal bytes."""
    frame = index_of(root, warn=warn)
    path = root / INDEX
    with replaced(path) as draft:
        frame.to_csv(draft, index=False, lineterminator="\n")
    return path
