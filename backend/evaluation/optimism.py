"""How much a random split flatters a model: F1(random) - F1(donor-held-out) on the same cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from backend.errors import InputError
from backend.evaluation.f1 import f1_by_class, macro_f1
from backend.evaluation.intervals import Estimate, leave_one_out, paired_difference

if TYPE_CHECKING:
    from backend.evaluation.panel import Panel
    from backend.evaluation.tallies import Tallies

__all__ = ["Gap", "optimism_gap"]


@dataclass(frozen=True, slots=True)
class Gap:
    """A score under two protocols and their difference; a negative gap is kept as it is."""

    first: float
    second: float
    gap: Estimate


def optimism_gap(first: Tallies, second: Tallies, panel: Panel) -> tuple[Gap, dict[str, Gap]]:
    """Compare two protocols of one configuration on one panel, paired by donor.

    Parameters
    ----------
    first, second
        Counts of the more and of the less flattering protocol (random, donor), with seeds on the
        leading axis in the same order. Every cell is tested once under each, so labels agree.
    panel
        The one panel for both.

    Returns
    -------
    The gap of macro-F1, and the gap of each panel type's F1.

    Raises
    ------
    InputError
        If the two were not scored on the same labels.
    """
    if (
        first.donors != second.donors
        or first.types != second.types
        or not np.array_equal(first.n_label, second.n_label)
    ):
        msg = "The two protocols were not scored on the same cells."
        raise InputError(msg, "Compare complete series of the same dataset, label level and seeds.")
    mask = first.mask(panel.types)
    macro = partial(macro_f1, panel=mask)
    pair = [leave_one_out(part, macro).mean_over_seeds() for part in (first, second)]
    total = Gap(float(pair[0].value), float(pair[1].value), paired_difference(*pair))
    by_class = [leave_one_out(part, f1_by_class).mean_over_seeds() for part in (first, second)]
    n_donors = (first.n_label[0] > 0).sum(axis=0)
    by_type = {}
    for index in np.flatnonzero(mask).tolist():
        a, b = by_class[0].at(index), by_class[1].at(index)
        gap = paired_difference(a, b, n_donors=int(n_donors[index]))
        by_type[first.types[index]] = Gap(float(a.value), float(b.value), gap)
    return total, by_type
