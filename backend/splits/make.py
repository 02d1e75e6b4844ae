"""Make splits of the same cells under one or several protocols, with comparable training sets.

Shares follow the number of folds K: 1/K test, 1/10 valid, the rest train, so that ten folds give
80/10/10 and five give 70/10/20.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.errors import InputError, SplitError
from backend.protocols import PROTOCOLS, protocol_named
from backend.splits.folds import N_TRIALS
from backend.splits.split import NO_TIMEPOINT, ROLE_NAMES, TEST, TRAIN, UNUSED, VALID, Split
from backend.types import Series, cap_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.protocols import Protocol

__all__ = ["is_within_budget", "make_split", "make_splits"]

_VALID_SHARE: Final = 0.1
_MIN_DONORS_FOR_VALID: Final = 5
_NO_LABEL: Final = "no label"


def make_splits(
    cells: pd.DataFrame,
    *,
    dataset_id: str,
    protocols: Sequence[str] = ("random", "donor"),
    folds: int = 5,
    seed: int = 0,
    budget: str = "equal",
) -> dict[str, Split]:
    """Make comparable splits of the same cells under several protocols.

    Parameters
    ----------
    cells
        Indexed by cell id, with `cell_type_fine`, `donor` and, where known, `timepoint` and
        `study`.
    dataset_id
        Id of the dataset, part of each split's hash.
    protocols
        Keys of `backend.protocols`.
    folds
        Number of folds; `study` has at most one per study.
    seed
        Seed of every draw.
    budget
        `full`: all training cells. `equal`: in each fold, `random` and `donor` train on equally
        many cells (the larger is subsampled), which makes their scores comparable. `capN`: at
        most N training cells a donor, then as `equal`.

    Raises
    ------
    SplitError
        If a protocol cannot be had: too few donors at a timepoint, or one study only.
    """
    Series.check_field("budget", budget)
    cap = cap_of(budget)
    for protocol in protocols:
        protocol_named(protocol)
    if not 2 <= folds <= len(cells):
        msg = f"{folds} folds of {len(cells):,} cells cannot be made."
        raise SplitError(msg, "Choose at least 2 folds and at most one per cell; 5 is the default.")
    frame = _strata(cells)
    if not frame["labelled"].any():
        msg = "No cell has a label, so nothing can be trained."
        raise SplitError(msg, "Map the cell type column, or predict with a stored model instead.")

    made: dict[str, tuple[np.ndarray, list[str]]] = {}
    needed = set(protocols) | ({"random", "donor"} if budget != "full" else set())
    notes: list[str] = []
    for protocol in sorted(needed):
        try:
            roles, warnings = _assign(frame, PROTOCOLS[protocol], folds=folds, seed=seed)
        except SplitError as error:
            if protocol in protocols:
                raise
            notes.append(
                f"Training sizes were not made equal: the {protocol} protocol cannot be had here "
                f"({error.message})"
            )
            continue
        if cap is not None:
            _cap_donors(frame, roles, cap, rng=np.random.default_rng([seed, 10]))
        made[protocol] = (roles, warnings)
    if budget != "full" and {"random", "donor"} <= made.keys():
        _equalise(frame, made["random"][0], made["donor"][0], seed=seed)
    return {
        protocol: Split(
            protocol=protocol,
            seed=seed,
            budget=budget,
            dataset_id=dataset_id,
            cell_ids=frame.index.to_numpy(dtype=object),
            roles=made[protocol][0],
            coverage=_coverage(frame, made[protocol][0]),
            warnings=(*made[protocol][1], *notes),
        )
        for protocol in protocols
    }


def make_split(
    cells: pd.DataFrame,
    protocol: str,
    *,
    dataset_id: str,
    folds: int = 5,
    seed: int = 0,
    budget: str = "equal",
) -> Split:
    """Make the split of one protocol; see `make_splits`."""
    made = make_splits(
        cells, dataset_id=dataset_id, protocols=(protocol,), folds=folds, seed=seed, budget=budget
    )
    return made[protocol]


def _strata(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell with plain strings for its roles and an integer stratum."""
    if not cells.index.is_unique:
        repeated = cells.index[cells.index.duplicated()].unique()
        msg = f"{len(repeated):,} cell ids occur more than once, such as {repeated[0]}."
        raise InputError(msg, "Make cell ids unique, for example by adding the sample's name.")
    for role in ("cell_type_fine", "donor"):
        if role not in cells:
            msg = f'The cells have no column "{role}". Found: {", ".join(map(str, cells.columns))}.'
            raise InputError(msg, "Map the roles first.")
    if cells["donor"].isna().any():
        msg = f"{int(cells['donor'].isna().sum()):,} cells have no donor."
        raise SplitError(msg, "Give every cell a donor, or leave those cells out.")
    nothing = pd.Series(index=cells.index, dtype=object)
    frame = pd.DataFrame(
        {
            "cell_type": cells["cell_type_fine"].astype(object).fillna(_NO_LABEL),
            "timepoint": cells.get("timepoint", nothing).astype(object).fillna(NO_TIMEPOINT),
            "donor": cells["donor"].astype(str),
            "study": cells.get("study", nothing).astype(object).fillna(""),
        },
        index=cells.index,
    )
    frame["labelled"] = frame["cell_type"] != _NO_LABEL
    frame["stratum"] = frame.groupby(["cell_type", "timepoint"], sort=True).ngroup()
    return frame


def _assign(
    frame: pd.DataFrame, protocol: Protocol, *, folds: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Return roles (n_cells, n_folds) before any budget, and warnings."""
    # One generator a protocol, so that asking for another protocol changes nothing here.
    rng = np.random.default_rng([seed, protocol.seed])
    module, _, name = protocol.assign.partition(":")
    test_fold, folds, warnings = getattr(import_module(module), name)(frame, folds, rng)

    labelled = frame["labelled"].to_numpy()
    roles = np.full((len(frame), folds), UNUSED, dtype=np.int8)
    roles[labelled] = TRAIN
    roles[np.arange(len(frame)), test_fold] = TEST
    for fold in range(folds):
        rest = (roles[:, fold] == TRAIN).nonzero()[0]
        if protocol.shares_donors:
            wanted = round(_VALID_SHARE * labelled.sum())
            chosen = rest[_systematic(frame["stratum"].to_numpy()[rest], wanted, rng)]
        else:
            chosen, said = _valid_donors(frame, rest, folds, rng)
            warnings += [f"Fold {fold}: {text}" for text in said]
        roles[chosen, fold] = VALID
        if not (roles[:, fold] == TRAIN).any():
            msg = f"Fold {fold} of protocol {protocol.key} has no labelled training cell."
            raise SplitError(msg, "Use fewer folds, or label cells of more donors.")
    return roles, warnings


def _valid_donors(
    frame: pd.DataFrame, rest: np.ndarray, folds: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Choose whole donors for validation among the cells `rest` that may train."""
    training = frame.iloc[rest]
    n_donors = training.groupby("timepoint")["donor"].nunique()
    eligible = set(n_donors[n_donors >= _MIN_DONORS_FOR_VALID].index)
    said = [
        f"no validation donor from {timepoint} ({n} training donors, "
        f"{_MIN_DONORS_FOR_VALID} are needed)."
        for timepoint, n in n_donors.items()
        if timepoint not in eligible
    ]
    pool = training[training.groupby("donor")["timepoint"].transform(lambda t: set(t) <= eligible)]
    if pool.empty:
        return np.empty(0, dtype=np.int64), said
    codes, names = pd.factorize(pool["donor"], sort=True)
    counts = np.zeros((len(names), frame["stratum"].max() + 1))
    np.add.at(counts, (codes, pool["stratum"].to_numpy()), 1)
    all_counts = np.bincount(training["stratum"], minlength=counts.shape[1])
    # The share of the non-test cells of those timepoints that makes a tenth of all cells.
    wanted = _VALID_SHARE / (1 - 1 / folds)
    n_most = max(1, len(names) // _MIN_DONORS_FOR_VALID)
    sizes = rng.integers(1, n_most + 1, (N_TRIALS, 1))
    ranks = np.argsort(rng.random((N_TRIALS, len(names))), axis=1)
    picks = (ranks < sizes).astype(float)
    taken = picks @ counts
    reachable = counts.sum(axis=0) > 0
    share = taken.sum(axis=1) / counts.sum()
    composition = np.abs(
        taken / taken.sum(axis=1, keepdims=True) - counts.sum(axis=0) / counts.sum()
    ).sum(axis=1)
    lost = ((all_counts - taken)[:, reachable] <= 0).sum(axis=1)
    best = np.argmin(np.abs(share - wanted) + 0.25 * composition + lost)
    chosen = picks[best].astype(bool)[codes]
    return frame.index.get_indexer(pool.index[chosen]), said


def _systematic(strata: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Return positions of `wanted` cells, spread over strata in proportion.

    Cells are sorted by stratum and, within it, at random; every (n / wanted)-th is taken.
    """
    n = len(strata)
    if wanted >= n:
        return np.arange(n)
    if wanted == 0:
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((rng.random(n), strata))
    positions = np.floor((np.arange(wanted) + rng.random()) * n / wanted).astype(np.int64)
    return np.sort(order[positions])


def is_within_budget(cells: pd.DataFrame, budget: str, *, seed: int = 0) -> np.ndarray:
    """Return the (n_cells,) mask of the cells that a fit without test cells trains on.

    The quality of such a fit is quoted from the folds of its series, so it keeps to their cap on
    cells a donor: under `capN` at most N cells of each, spread over types and timepoints.

    Parameters
    ----------
    cells
        The labelled cells; see `make_splits`.
    budget, seed
        Of the split.
    """
    cap = cap_of(budget)
    if cap is None:
        return np.ones(len(cells), dtype=bool)
    roles = np.full((len(cells), 1), TRAIN, dtype=np.int8)
    _cap_donors(_strata(cells), roles, cap, rng=np.random.default_rng([seed, 12]))
    return roles[:, 0] == TRAIN


def _cap_donors(
    frame: pd.DataFrame, roles: np.ndarray, cap: int, *, rng: np.random.Generator
) -> None:
    """Keep at most `cap` training cells of each donor in each fold, in place."""
    strata = frame["stratum"].to_numpy()
    donors, names = pd.factorize(frame["donor"], sort=True)
    for fold in range(roles.shape[1]):
        for donor in range(len(names)):
            rows = np.flatnonzero((roles[:, fold] == TRAIN) & (donors == donor))
            if len(rows) > cap:
                kept = rows[_systematic(strata[rows], cap, rng)]
                roles[rows, fold] = UNUSED
                roles[kept, fold] = TRAIN


def _equalise(frame: pd.DataFrame, one: np.ndarray, other: np.ndarray, *, seed: int) -> None:
    """Subsample the larger training set of each fold to the size of the smaller, in place."""
    rng = np.random.default_rng([seed, 11])
    strata = frame["stratum"].to_numpy()
    for fold in range(one.shape[1]):
        sizes = [int((roles[:, fold] == TRAIN).sum()) for roles in (one, other)]
        larger = one if sizes[0] > sizes[1] else other
        rows = np.flatnonzero(larger[:, fold] == TRAIN)
        kept = rows[_systematic(strata[rows], min(sizes), rng)]
        larger[rows, fold] = UNUSED
        larger[kept, fold] = TRAIN


def _coverage(frame: pd.DataFrame, roles: np.ndarray) -> pd.DataFrame:
    """List which cell type x timepoint is missing from which role of which fold."""
    labelled = frame["labelled"].to_numpy()
    strata = frame.loc[labelled, "stratum"].to_numpy()
    n_strata = int(frame["stratum"].max()) + 1
    size = np.bincount(strata, minlength=n_strata)
    names = frame.drop_duplicates("stratum").set_index("stratum")[["cell_type", "timepoint"]]
    rows = []
    for fold in range(roles.shape[1]):
        for role, role_name in ROLE_NAMES.items():
            here = np.bincount(strata[roles[labelled, fold] == role], minlength=n_strata)
            rows += [
                (fold, role_name, *names.loc[stratum], int(size[stratum]))
                for stratum in np.flatnonzero((here == 0) & (size > 0))
            ]
    columns = ["fold", "role", "cell_type", "timepoint", "n_cells"]
    return pd.DataFrame(rows, columns=columns)
