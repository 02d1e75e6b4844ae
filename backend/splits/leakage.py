"""What crosses the line between training and test cells of a split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backend.errors import SplitError
from backend.protocols import protocol_named
from backend.splits.split import TEST, TRAIN, VALID, Split

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LeakageReport", "leakage_report"]


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """Leakage of a split, by fold.

    Attributes
    ----------
    donor_overlap
        Per fold: donors with cells among both the fitted (train and valid) and the test cells.
        Expected under `random`, a fault under every other protocol.
    study_overlap
        The same for studies.
    n_duplicates
        Per fold: test cells whose genes and counts equal those of a fitted cell; None when no
        counts were given.
    duplicate_examples
        Up to five such test cells.
    fitted_on_test
        Per fold: test cells that a fit saw; None when no fit was given.
    is_clean
        No duplicate, nothing fitted on test cells and, beyond `random`, no shared donor.
    """

    protocol: str
    donor_overlap: tuple[tuple[str, ...], ...]
    study_overlap: tuple[tuple[str, ...], ...]
    n_duplicates: tuple[int, ...] | None
    duplicate_examples: tuple[str, ...]
    fitted_on_test: tuple[int, ...] | None
    is_clean: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return asdict(self)

    def sentences(self) -> tuple[str, ...]:
        """Say the report in words."""
        shared = [len(donors) for donors in self.donor_overlap]
        said = [
            "No donor has cells on both sides of any fold."
            if max(shared) == 0
            else f"{max(shared)} donors have cells on both sides of a fold"
            + (
                f", as the protocol {self.protocol} means to."
                if protocol_named(self.protocol).shares_donors
                else ": a fault."
            )
        ]
        if self.n_duplicates is None:
            said.append("Duplicated cells were not looked for: no counts were given.")
        else:
            said.append(
                f"{sum(self.n_duplicates):,} test cells repeat the counts of a fitted cell."
                if any(self.n_duplicates)
                else "No test cell repeats the counts of a fitted cell."
            )
        if self.fitted_on_test is not None:
            said.append(
                f"{sum(self.fitted_on_test):,} test cells were seen by a fit: a fault."
                if any(self.fitted_on_test)
                else "No fit saw a test cell."
            )
        return tuple(said)


def leakage_report(
    split: Split,
    cells: pd.DataFrame,
    *,
    fingerprints: np.ndarray | None = None,
    fitted: Mapping[int, np.ndarray] | None = None,
) -> LeakageReport:
    """Look for donors, duplicated cells and fits that cross from training to test.

    Parameters
    ----------
    split
        The frozen split.
    cells
        Indexed by cell id, with `donor` and, where known, `study`; holds all cells of the split.
    fingerprints
        (n_cells,) uint64 of `backend.data.fingerprint`, in the order of `cells`.
    fitted
        By fold: the ids of all cells that anything (genes, scaling, thresholds, weights) was
        fitted on.

    Raises
    ------
    SplitError
        If `cells` lacks cells of the split.
    """
    rows = cells.index.get_indexer(pd.Index(split.cell_ids))
    if (rows < 0).any():
        msg = f"{int((rows < 0).sum()):,} of {len(rows):,} cells of the split are not in the data."
        raise SplitError(msg, "Use the dataset that the split was made from.")
    donors = cells["donor"].astype(str).to_numpy()[rows]
    studies = (
        cells["study"].astype(object).fillna("").astype(str).to_numpy()[rows]
        if "study" in cells
        else np.full(len(rows), "")
    )
    prints = None if fingerprints is None else np.asarray(fingerprints)[rows]

    donor_overlap, study_overlap, n_duplicates = [], [], []
    examples: list[str] = []
    for fold in range(split.folds):
        seen = split.cells(fold, TRAIN) | split.cells(fold, VALID)
        tested = split.cells(fold, TEST)
        donor_overlap.append(_shared(donors, seen, tested))
        study_overlap.append(_shared(studies, seen, tested))
        if prints is not None:
            repeated = np.isin(prints[tested], prints[seen])
            n_duplicates.append(int(repeated.sum()))
            examples += list(map(str, split.cell_ids[tested][repeated]))
    fitted_on_test = (
        None
        if fitted is None
        else tuple(
            int(np.isin(split.cell_ids[split.cells(fold, TEST)], np.asarray(ids)).sum())
            for fold, ids in sorted(fitted.items())
        )
    )
    return LeakageReport(
        protocol=split.protocol,
        donor_overlap=tuple(donor_overlap),
        study_overlap=tuple(study_overlap),
        n_duplicates=None if prints is None else tuple(n_duplicates),
        duplicate_examples=tuple(examples[:5]),
        fitted_on_test=fitted_on_test,
        is_clean=not any(n_duplicates)
        and not any(fitted_on_test or ())
        and (protocol_named(split.protocol).shares_donors or not any(donor_overlap)),
    )


def _shared(names: np.ndarray, seen: np.ndarray, tested: np.ndarray) -> tuple[str, ...]:
    """Return the non-empty names that occur in both masks, sorted."""
    return tuple(sorted({str(n) for n in names[seen]} & {str(n) for n in names[tested]} - {""}))
