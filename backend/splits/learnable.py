"""Whether the folds of a split can be learned and tested, before anything is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.errors import SplitError
from backend.protocols import protocol_named
from backend.splits.split import TEST, TRAIN, VALID

if TYPE_CHECKING:
    import pandas as pd

    from backend.splits.split import Split

__all__ = ["fold_gaps", "most_folds"]


def most_folds(cells: pd.DataFrame, protocol: str) -> int | None:
    """Return the number of folds at which every fold can test cells of every timepoint.

    Parameters
    ----------
    cells
        With `donor`, `study` and `timepoint`.

    Returns
    -------
    None where the protocol deals cells one by one. Timepoints of one unit only do not count: they
    are tested by one fold at any number.
    """
    unit = protocol_named(protocol).unit
    if unit == "cell":
        return None
    n_units = cells.groupby("timepoint", observed=True, dropna=False)[unit].nunique()
    several = n_units[n_units > 1]
    return int(several.min()) if len(several) else int(cells[unit].nunique())


def fold_gaps(
    split: Split, fold: int, labels: pd.Series, *, is_foundation: bool, n_possible: int | None
) -> list[str]:
    """Say which types a fold cannot learn; refuse one from which nothing can be learned.

    Parameters
    ----------
    labels
        Of the cells of the split, in its order; missing where a cell has none.
    is_foundation
        Whether the model chooses its best epoch on validation cells.
    n_possible
        See `most_folds`.

    Raises
    ------
    SplitError
        If the fold tests no cell, or trains on fewer than two types.
    """
    where = f"{split.protocol}, fold {fold}"
    if not split.cells(fold, TEST).any():
        msg = f"{where}: no cell is tested; {split.folds} folds are more than the file can fill."
        raise SplitError(msg, f"{n_possible or 2} folds would work.")
    counts = {role: labels[split.cells(fold, role)].value_counts() for role in (TRAIN, VALID, TEST)}
    counts = {role: found[found > 0] for role, found in counts.items()}
    if len(counts[TRAIN]) < 2:
        found = ", ".join(map(str, counts[TRAIN].index)) or "none"
        msg = f"{where}: the training cells have one type at most ({found})."
        raise SplitError(msg, "Use fewer folds, another protocol, or cells of more donors.")
    said = []
    lacking = counts[TEST].drop(counts[TRAIN].index, errors="ignore")
    if len(lacking):
        names = ", ".join(f"{name} ({n:,} test cells)" for name, n in lacking.items())
        said.append(f"{where}: no training cell is {names}; no model can predict it.")
    if is_foundation and not len(counts[VALID]):
        said.append(f"{where}: there is no validation cell, so the last epoch is kept.")
    return said
