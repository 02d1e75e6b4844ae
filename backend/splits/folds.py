"""Deal cells to the folds that test them: one function a protocol.

Each takes the cells (one row each: `cell_type`, `timepoint`, `donor`, `study`, `labelled` and an
integer `stratum` of cell type x timepoint), the number of folds and the protocol's own generator,
and returns `Folds`. The registry `backend.protocols` names them.

Whole donors or studies can only approach equal shares: many seeded deals are drawn and the one
with the smallest imbalance is kept. Imbalance of a deal: the total variation distance between the
folds' shares of cells and 1/K, plus the mean of the same distance over strata, weighted by the
square root of their cells so that rare types count.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from backend.errors import SplitError

__all__ = ["N_TRIALS", "Folds", "by_cell", "by_donor", "by_study"]

N_TRIALS: Final = 1000
"""Seeded deals from which the best is kept."""


class Folds(NamedTuple):
    """Which fold tests each cell.

    test_fold : (n_cells,) int64
    n_folds   : how many there are, which may be fewer than asked for
    warnings  : what could not be had, in sentences
    """

    test_fold: np.ndarray
    n_folds: int
    warnings: list[str]


def by_cell(frame: pd.DataFrame, folds: int, rng: np.random.Generator) -> Folds:
    """Deal shuffled cells of each stratum to folds in turn, going on where the last one ended."""
    order = np.lexsort((rng.random(len(frame)), frame["stratum"].to_numpy()))
    fold_of_turn = rng.permutation(folds)
    test_fold = np.empty(len(frame), dtype=np.int64)
    test_fold[order] = fold_of_turn[np.arange(len(frame)) % folds]
    return Folds(test_fold, folds, [])


def by_donor(frame: pd.DataFrame, folds: int, rng: np.random.Generator) -> Folds:
    """Deal whole donors.

    Raises
    ------
    SplitError
        If a timepoint has fewer than two donors.
    """
    _require_donors(frame)
    return _deal_groups(frame, "donor", "donors", folds, rng)


def by_study(frame: pd.DataFrame, folds: int, rng: np.random.Generator) -> Folds:
    """Deal whole studies, those with a common donor together; at most one fold a study.

    Raises
    ------
    SplitError
        If a cell has no study, or there are not two studies without common donors.
    """
    groups = _study_groups(frame)
    folds = min(folds, groups.nunique())
    return _deal_groups(frame.assign(study=groups), "study", "studies", folds, rng)


def _require_donors(frame: pd.DataFrame) -> None:
    """Raise unless every timepoint has at least two donors."""
    donors = frame.groupby("timepoint")["donor"].nunique()
    if frame["donor"].nunique() < 2:
        only = frame["donor"].iloc[0]
        msg = f'All {len(frame):,} cells come from one donor ("{only}").'
        raise SplitError(msg, "Held-out donors need at least 2; use the protocol random.")
    single = donors[donors < 2]
    if len(single):
        msg = f"Held-out donors need 2 donors a timepoint; only 1 donor: {', '.join(single.index)}."
        raise SplitError(msg, "Leave that timepoint out, or use the protocol random.")


def _study_groups(frame: pd.DataFrame) -> pd.Series:
    """Return the study of each cell, studies that share a donor joined to one group."""
    studies = frame["study"]
    if (studies == "").any():
        msg = f"{int((studies == '').sum()):,} of {len(frame):,} cells have no study."
        raise SplitError(msg, "Map the study column, or use the protocol donor.")
    group = {study: study for study in sorted(studies.unique())}
    for shared in frame.groupby("donor")["study"].unique():
        joined = {group[study] for study in shared}
        first = min(joined)
        group = {study: first if of in joined else of for study, of in group.items()}
    if len(set(group.values())) < 2:
        found = ", ".join(sorted(studies.unique())[:5])
        msg = f"The protocol study needs 2 studies without common donors. Found: {found}."
        raise SplitError(msg, "Use the protocol donor: one study cannot show transfer to another.")
    return studies.map(group)


def _deal_groups(
    frame: pd.DataFrame, unit: str, units: str, folds: int, rng: np.random.Generator
) -> Folds:
    """Deal whole units (their column, and their plural in words): best of many by imbalance."""
    codes, names = pd.factorize(frame[unit], sort=True)
    labelled = frame["labelled"].to_numpy()
    counts = np.zeros((len(names), frame["stratum"].max() + 1))
    np.add.at(counts, (codes[labelled], frame["stratum"].to_numpy()[labelled]), 1)
    # Units that share their set of timepoints are dealt together: no fold gets two healthy
    # donors before every fold that can have one has one.
    timepoints = frame.groupby(unit, sort=True)["timepoint"].agg(lambda t: "|".join(sorted(set(t))))
    kinds = pd.factorize(timepoints.loc[names], sort=True)[0]
    turns = np.argsort(kinds + rng.random((N_TRIALS, len(names))), axis=1)
    fold_of_turn = rng.permuted(np.tile(np.arange(folds), (N_TRIALS, 1)), axis=1)
    deals = np.empty((N_TRIALS, len(names)), dtype=np.int64)
    np.put_along_axis(deals, turns, fold_of_turn[:, np.arange(len(names)) % folds], axis=1)
    best = deals[np.argmin(_imbalance(counts, deals, folds))]

    warnings = []
    for timepoint, n in frame.groupby("timepoint")[unit].nunique().items():
        if n < folds:
            warnings.append(
                f"{timepoint} has {n} {units} for {folds} folds: "
                f"{folds - n} folds test no {timepoint} cell."
            )
    return Folds(best[codes], folds, warnings)


def _imbalance(counts: np.ndarray, deals: np.ndarray, folds: int) -> np.ndarray:
    """Return the imbalance of each deal.

    counts : (n_units, n_strata), deals : (n_deals, n_units); the result is (n_deals,).
    """
    seen = counts.sum(axis=0) > 0
    counts = counts[:, seen]
    weights = np.sqrt(counts.sum(axis=0))
    shares = counts / counts.sum(axis=0)
    one_hot = (deals[:, :, None] == np.arange(folds)).astype(float)
    by_fold = np.einsum("tuf,us->tfs", one_hot, shares)
    distance = np.abs(by_fold - 1 / folds).sum(axis=1) / 2
    units = counts.sum(axis=1) / counts.sum()
    sizes = np.einsum("tuf,u->tf", one_hot, units)
    return np.abs(sizes - 1 / folds).sum(axis=1) / 2 + distance @ weights / weights.sum()
