"""Description of one slice by itself, where the class panel allows no comparison.

A comparison needs types that every slice holds with enough cells and donors (`panel`). What one
slice holds can be described at any number of donors, as long as nothing is claimed about others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from backend.evaluation.f1 import SMALL_CELLS, SMALL_DONORS
from backend.evaluation.metrics import n_types_scored
from backend.evaluation.wording import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.evaluation.metrics import Metric
    from backend.evaluation.panel import Panel
    from backend.evaluation.tallies import Tallies

    Kind = Literal["comparison", "description"]

__all__ = [
    "COMPARISON",
    "DESCRIPTION",
    "Description",
    "describe_slice",
    "describes",
    "description_notes",
    "is_few_donors",
    "is_grey",
    "kind_of",
    "scores_of_donors",
]

COMPARISON: Final = "comparison"
DESCRIPTION: Final = "description"


def kind_of(panel: Panel) -> Kind:
    """Return what the scores of a scope are: a comparison where its panel holds a type."""
    return COMPARISON if panel.types else DESCRIPTION


def is_grey(n_cells: np.ndarray) -> np.ndarray:
    """Tell where there are too few labelled cells to read a score at all."""
    return np.asarray(n_cells) < SMALL_CELLS


def is_few_donors(n_donors: np.ndarray) -> np.ndarray:
    """Tell where a score describes one or two donors and is marked as such."""
    donors = np.asarray(n_donors)
    return (donors > 0) & (donors < SMALL_DONORS)


def describes(n_donors: int) -> str:
    """Return what a score without a comparison is worth."""
    which = "this 1 donor" if n_donors == 1 else f"these {plural(n_donors, 'donor')}"
    return f"describes {which}, says nothing about others"


@dataclass(frozen=True)
class Description:
    """What one slice is scored over.

    Parameters
    ----------
    types
        Sorted names of the types with at least 20 labelled cells in the slice.
    excluded
        Type to reason, for every other labelled type.
    n_cells, n_donors
        Labelled cells of the slice, whatever their type, and their donors.
    n_cells_scored
        Labelled cells of `types`.
    """

    types: tuple[str, ...]
    excluded: dict[str, str] = field(default_factory=dict)
    n_cells: int = 0
    n_donors: int = 0
    n_cells_scored: int = 0

    @property
    def n_types(self) -> int:
        """Number of types with a label in the slice."""
        return len(self.types) + len(self.excluded)

    @property
    def reason(self) -> str:
        """Why the slice has no score; empty when it has one."""
        return "" if self.types else f"no type has {SMALL_CELLS} labelled cells here"

    def describe(self) -> str:
        """Return "12 of 17 types"."""
        return f"{len(self.types)} of {plural(self.n_types, 'type')}"

    def over(self) -> str:
        """Return which types the scores are over, or why there are none."""
        return self.reason or f"{self.describe()} with at least {SMALL_CELLS} labelled cells"


def describe_slice(
    support: np.ndarray, types: Sequence[str], *, chosen: Sequence[str] = ()
) -> Description:
    """Choose the types with at least 20 labelled cells in a slice, at any number of donors.

    Parameters
    ----------
    support
        (donors, types) labelled cells.
    types
        Names along the last axis.
    chosen
        Types that the user asked for; empty means all.
    """
    by_type = np.asarray(support).sum(axis=0)
    kept: list[str] = []
    excluded: dict[str, str] = {}
    for name, n in sorted(zip(types, by_type.tolist(), strict=True)):
        if n == 0:
            continue
        if is_grey(n):
            excluded[name] = plural(int(n), "cell")
        elif chosen and name not in chosen:
            excluded[name] = "not chosen"
        else:
            kept.append(name)
    is_kept = np.isin(np.asarray(types, dtype=object), kept)
    return Description(
        types=tuple(kept),
        excluded=excluded,
        n_cells=int(by_type.sum()),
        n_donors=int((np.asarray(support).sum(axis=1) > 0).sum()),
        n_cells_scored=int(by_type[is_kept].sum()),
    )


def description_notes(descriptions: Mapping[str, Description]) -> tuple[str, ...]:
    """Say of each slice whom its scores describe, and over which types."""
    notes = []
    for name, one in descriptions.items():
        text = one.reason or f"{describes(one.n_donors)}; {one.over()}"
        notes.append(f"{name}: {text}.")
    return tuple(notes)


def scores_of_donors(
    tallies: Tallies, panel: Panel, metric: Metric, *, chosen: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Score every donor of a slice by itself: over the panel types that it has, or as a description.

    Parameters
    ----------
    tallies
        (seeds, donors, types).
    chosen
        Types that the user asked for; the panel heeds them already.

    Returns
    -------
    (seeds, donors) values and (seeds, donors) numbers of types that they are over.
    """
    counts = (tallies.tp, tallies.n_label, tallies.n_predicted)
    if kind_of(panel) == COMPARISON:
        mask = tallies.mask(panel.types)
        return metric.function(*counts, panel=mask), n_types_scored(tallies.n_label, panel=mask)
    values = np.full(tallies.n_label.shape[:-1], np.nan)
    n_types = np.zeros(tallies.n_label.shape[:-1], dtype=int)
    support = tallies.n_label.max(axis=0, initial=0)
    for index in range(len(tallies.donors)):
        types = describe_slice(support[[index]], tallies.types, chosen=chosen).types
        mask = tallies.mask(types)
        values[:, index] = metric.function(*(table[:, index] for table in counts), panel=mask)
        n_types[:, index] = len(types)
    return values, n_types
