"""Frozen splits kept beside the runs that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.splits.make import make_split
from backend.splits.split import Split

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__all__ = ["split_name", "stored_split"]


def split_name(dataset_id: str, protocol: str, *, folds: int, seed: int, budget: str) -> str:
    """Return the file name of a split, the same wherever it is kept."""
    return f"{dataset_id}-{protocol}-k{folds}-s{seed}-{budget}.parquet"


def stored_split(
    folder: Path | None,
    cells: pd.DataFrame,
    protocol: str,
    *,
    dataset_id: str,
    folds: int = 5,
    seed: int = 0,
    budget: str = "equal",
    is_written: bool = True,
) -> Split:
    """Return the split of that name in `folder`; make it, and keep it there, when it is missing.

    Parameters
    ----------
    folder
        Where splits are kept; None keeps nothing.
    cells
        See `make_splits`.
    is_written
        False leaves the folder as it is.
    """
    name = split_name(dataset_id, protocol, folds=folds, seed=seed, budget=budget)
    path = None if folder is None else folder / name
    if path is not None and path.exists():
        return Split.load(path)
    split = make_split(
        cells, protocol, dataset_id=dataset_id, folds=folds, seed=seed, budget=budget
    )
    if path is not None and is_written:
        split.save(path)
    return split
