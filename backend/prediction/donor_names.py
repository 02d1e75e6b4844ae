"""Which cells of a file a model was fitted on: the cells decide, names only warn.

Two studies may both have a donor "1". So a name by itself is no person: the fingerprints of cells
are compared first, then the study, and a person can say what is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.layout import UNKNOWN_DONOR
from backend.data.problems import some
from backend.errors import InputError
from backend.evaluation.wording import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

__all__ = ["DONOR_NAMES", "SHARE_OF_A_DONOR", "InTraining", "find_in_training"]

DONOR_NAMES: Final = ("ask", "same", "other")
"""What donors are whose names occur in training data: let the study decide, the same people, or
other people."""

SHARE_OF_A_DONOR: Final = 0.05
"""From this share of cells in training on, a donor is a training donor under whatever name."""


@dataclass(frozen=True, slots=True)
class InTraining:
    """What is known of a file's cells and a model's training data.

    cells : (n_cells,) bool, in training: not scored
    notes : what a reader must know of donors' names
    """

    cells: np.ndarray
    notes: tuple[str, ...]


def find_in_training(
    table: pd.DataFrame,
    seen: Sequence[np.ndarray],
    donors: Sequence[Mapping[str, frozenset[str]]],
    *,
    names: str = "ask",
) -> InTraining:
    """Say which cells any of some models was fitted on.

    Parameters
    ----------
    table
        Cells with `donor` and `study`.
    seen
        A model: (n_cells,) bool, whether the fingerprint of the cell is in its training data.
    donors
        A model: donor of its training data → studies of that donor.
    names
        One of `DONOR_NAMES`. "ask" takes people of one name as the same where both sides name the
        same study, or one of them none; as others where the studies differ.

    Raises
    ------
    InputError
        If `names` is none of them.
    """
    if names not in DONOR_NAMES:
        msg = f'There is no choice "{names[:40]}" for donors of known names.'
        raise InputError(msg, f"Choose one of: {', '.join(DONOR_NAMES)}.")
    own = table["donor"].astype(object).where(table["donor"].notna(), UNKNOWN_DONOR)
    found = np.zeros(len(table), dtype=bool)
    same: set[str] = set()
    other: set[str] = set()
    by_cells: set[str] = set()
    studies = {
        str(name): frozenset(map(str, rows.dropna().unique()))
        for name, rows in table["study"].groupby(own.to_numpy())
    }
    for cells, known in zip(seen, donors, strict=True):
        found |= cells
        share = dict(zip(*_shares(own.to_numpy(), cells), strict=True))
        by_cells |= {
            name for name, s in share.items() if s >= SHARE_OF_A_DONOR and name != UNKNOWN_DONOR
        }
        for name in set(known) & set(studies) - {UNKNOWN_DONOR}:
            theirs, ours = known[name], studies[name]
            differs = bool(theirs) and bool(ours) and not theirs & ours
            is_same = names == "same" or (names == "ask" and not differs)
            (same if is_same else other).add(name)
    found |= own.isin(by_cells | same).to_numpy()
    return InTraining(found, _notes(names, by_cells, same - by_cells, other - same - by_cells))


def _shares(groups: np.ndarray, is_seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names, codes = np.unique(groups.astype(str), return_inverse=True)
    n = np.bincount(codes, minlength=len(names))
    return names, np.bincount(codes, weights=is_seen, minlength=len(names)) / np.maximum(n, 1)


def _notes(names: str, by_cells: set[str], same: set[str], other: set[str]) -> tuple[str, ...]:
    notes = []
    if by_cells:
        notes.append(
            f"{plural(len(by_cells), 'donor')} ({some(by_cells)}) of the file "
            f"{'is' if len(by_cells) == 1 else 'are'} in the training data: the same cells are there"
        )
    if same and names == "ask":
        notes.append(
            f"{plural(len(same), 'donor')} ({some(same)}) bear names of training donors, of the "
            "same study or of none that is named: taken as the same people and not scored, though "
            "no cell is the same. If they are other people, say so: --donor-names other, or "
            '"other people" on the page'
        )
    elif same:
        notes.append(f"donors of the names {some(same)} are taken as training donors, as you said")
    if other:
        why = "as you said" if names == "other" else "the studies differ and no cell is the same"
        notes.append(
            f"{plural(len(other), 'donor')} ({some(other)}) bear names of training donors and are "
            f"scored as other people: {why}"
        )
    return tuple(notes)
