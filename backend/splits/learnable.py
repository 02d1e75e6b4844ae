"""Whether the folds of a split can be learned and tested, before anything is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.errors import SplitError
from backend.protocols import protocol_named
from backend.splits.split import NO_TIMEPOINT, ROLE_NAMES, TEST, TRAIN, VALID
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    import pandas as pd

    from backend.splits.split import Split

__all__ = ["fold_gaps", "missing_strata", "most_folds"]


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


def missing_strata(split: Split, cells: pd.DataFrame) -> list[str]:
    """List the types at a timepoint of which a fold trains on or tests no cell, a sentence a fold.

    Parameters
    ----------
    cells
        With `cell_type_fine` and `timepoint`: types that a timepoint does not have are not missing.
    """
    labelled = cells[cells["cell_type_fine"].notna()]
    times = labelled["timepoint"].astype(object).fillna(NO_TIMEPOINT)
    n_types = labelled.groupby(times)["cell_type_fine"].nunique()
    words = {ROLE_NAMES[TEST]: "tests", ROLE_NAMES[TRAIN]: "trains on"}
    said = []
    for fold, of_fold in split.coverage.groupby("fold"):
        parts = []
        for role, verb in words.items():
            rows = of_fold[of_fold["role"] == role]
            types = {name: sorted(part) for name, part in rows.groupby("timepoint")["cell_type"]}
            places = [
                f"{_names(types[name], int(n_types[name]))} ({name})"
                for name in (*TIMEPOINTS, NO_TIMEPOINT)
                if name in types
            ]
            parts += [f"{verb} no cell of {'; '.join(places)}"] if places else []
        if parts:
            said.append(f"{split.protocol}, fold {fold}: {', and '.join(parts)}.")
    return said


def _names(types: list[str], n_types: int) -> str:
    return "any type" if len(types) == n_types else ", ".join(types)
