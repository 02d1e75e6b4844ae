"""The class panel: the fixed list of cell types over which a comparison is scored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.evaluation.f1 import SMALL_CELLS, SMALL_DONORS
from backend.types import sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PANEL_CELLS", "PANEL_DONORS", "Panel", "make_panel"]

PANEL_CELLS: Final = SMALL_CELLS
PANEL_DONORS: Final = SMALL_DONORS
"""A panel type has at least this many cells and donors in every slice compared."""


@dataclass(frozen=True)
class Panel:
    """Types that are scored in every slice of a comparison, chosen from labels alone.

    Parameters
    ----------
    types
        Sorted names.
    excluded
        Type to reason, for every labelled type that is not scored.
    slices
        Names of the slices that set the panel.
    skipped
        Slice to reason, for slices with too few donors to set a panel: they are shown as donor
        dots only.
    is_normal_only
        Whether malignant types are labelled but none of them is in every slice, as when Healthy
        is compared at the fine level.
    """

    types: tuple[str, ...]
    excluded: dict[str, str] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    is_normal_only: bool = False

    @property
    def n_types(self) -> int:
        """Number of types with a label anywhere in the comparison: the K of "k of K"."""
        return len(self.types) + len(self.excluded)

    @property
    def sha256(self) -> str:
        """Hash of the types, the slices and the rule that chose them."""
        return sha256_of(
            {
                "types": list(self.types),
                "slices": list(self.slices),
                "min_cells": PANEL_CELLS,
                "min_donors": PANEL_DONORS,
            }
        )

    def describe(self) -> str:
        """Return "12 of 15 types", and when malignant types drop out, that normal ones only are."""
        return f"{len(self.types)} of {self.n_types} types" + (
            ", normal types only" if self.is_normal_only else ""
        )


def make_panel(
    support: Mapping[str, np.ndarray],
    types: Sequence[str],
    *,
    chosen: Sequence[str] = (),
    malignant: Sequence[str] = (),
) -> Panel:
    """Choose the types with ≥ 20 cells and ≥ 3 donors in every slice that has ≥ 3 donors.

    Parameters
    ----------
    support
        Slice name to (donors, types) counts of labelled cells, in the order to be named.
    types
        Names along the last axis.
    chosen
        Types that the user asked for; empty means all.
    malignant
        Malignant types.
    """
    counts = {name: np.asarray(table) for name, table in support.items()}
    n_donors = {name: int((table.sum(axis=1) > 0).sum()) for name, table in counts.items()}
    setting = tuple(name for name, n in n_donors.items() if n >= PANEL_DONORS)
    skipped = {
        name: f"{n} {'donor' if n == 1 else 'donors'}: shown as dots, does not set the panel"
        for name, n in n_donors.items()
        if n < PANEL_DONORS
    }
    labelled = sum((table.sum(axis=0) for table in counts.values()), np.zeros(len(types)))
    wanted = set(chosen)
    kept: list[str] = []
    excluded: dict[str, str] = {}
    for index in np.argsort(np.asarray(types, dtype=object)):
        name = types[index]
        if labelled[index] == 0:
            continue
        reason = _reason(counts, setting, index, alone=len(counts) == 1)
        if not reason and wanted and name not in wanted:
            reason = "not chosen"
        if reason:
            excluded[name] = reason
        else:
            kept.append(name)
    return Panel(
        types=tuple(kept),
        excluded=excluded,
        slices=setting,
        skipped=skipped,
        is_normal_only=bool(
            kept and set(malignant) & excluded.keys() and not set(malignant) & set(kept)
        ),
    )


def _reason(
    counts: Mapping[str, np.ndarray], setting: Sequence[str], index: int, *, alone: bool
) -> str:
    if not setting:
        return f"no slice has {PANEL_DONORS} donors"
    for name in setting:
        column = counts[name][:, index]
        where = "" if alone else f" at {name}"
        n_cells, n_donors = int(column.sum()), int((column > 0).sum())
        if n_cells == 0:
            return f"no cell{where}"
        if n_cells < PANEL_CELLS:
            return f"{n_cells} {'cell' if n_cells == 1 else 'cells'}{where}"
        if n_donors < PANEL_DONORS:
            return f"{n_donors} {'donor' if n_donors == 1 else 'donors'}{where}"
    return ""
