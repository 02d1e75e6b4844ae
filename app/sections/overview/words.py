"""The first sight in words: what is looked at, and what stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.components.frames import is_floor
from backend.evaluation.wording import plain, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from backend.evaluation.views import Blasts, Provenance

__all__ = ["dots_words", "landing_sentence", "model_order", "standing_out"]

_NUMBERS: Final = (
    "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven",
    "Twelve",
)  # fmt: skip
_COURSE: Final = {
    "Healthy": "healthy",
    "Diagnosis": "at diagnosis",
    "Post-treatment": "after treatment",
    "Relapse": "at relapse",
}


def landing_sentence(
    n_models: int, provenance: Provenance, timepoints: Sequence[str], missing: Sequence[str] = ()
) -> str:
    """Say what the dashboard shows: models, cells, people and the clinical course.

    Parameters
    ----------
    timepoints
        Those with cells, in clinical order.
    missing
        Those of the course without cells.
    """
    number = _NUMBERS[n_models] if n_models < len(_NUMBERS) else f"{n_models}"
    models = "model names" if n_models == 1 else "models name"
    of = "simulated cells" if provenance.simulated else "cells"
    people = "donor" if provenance.simulated else "person"
    who = plural(provenance.n_donors, people).replace("persons", "people")
    words = [_COURSE.get(name, plain(name)) for name in timepoints if name in _COURSE]
    words += ["no data at relapse"] if "Relapse" in missing and words else []
    course = f": {', '.join(words)}" if words else ""
    return (
        f"{number} {models} the cell types of {provenance.n_cells:,} {of} from {who}{course}. "
        "Here is where they are wrong."
    )


def dots_words(scores: pd.DataFrame, intervals: str) -> str:
    """Say how to read the picture of models and timepoints.

    Parameters
    ----------
    intervals
        How intervals are made, said where any dot has one.
    """
    said = (
        f"Open dots have no interval (fewer than 5 donors); dashed intervals rest on 5–9 donors. {intervals}"
        if scores.low.notna().any()
        else "Dots are open: with fewer than 5 donors there is no interval."
    )
    return (
        "At the right end: share of cells called right, then the worst type with its F1. Foundation "
        "models first, then baselines. A click on a dot opens its model on the Timepoints page. "
        + said
    )


def model_order(averages: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return display names: foundation models first, then baselines, each by name."""
    baseline = dict(zip(averages.display_name, averages.is_baseline, strict=True))
    return sorted(set(names), key=lambda name: (bool(baseline.get(name, False)), name))


def _percent_range(values: pd.Series) -> str:
    low, high = round(100 * values.min()), round(100 * values.max())
    return f"{low}%" if low == high else f"{low}–{high}%"


def standing_out(
    averages: pd.DataFrame,
    blasts: Blasts,
    missing: Sequence[str],
    *,
    is_normal_only: bool = False,
) -> list[tuple[str, str]]:
    """Return what stands out as pairs of heading and sentence.

    The share of wrong cells at diagnosis by kind of model, blasts called normal, and relapse.
    `is_normal_only` says that malignant types are not among those compared.
    """
    facts = []
    models = averages[~is_floor(averages.configuration)]
    at = models[models.timepoint == "Diagnosis"]
    if len(at):
        parts = [
            f"{_percent_range(1 - part.accuracy)} by {name}"
            for is_baseline, name in ((False, "foundation models"), (True, "baselines"))
            if len(part := at[at.is_baseline == is_baseline])
        ]
        support = (
            f"{plural(int(at.n_donors.max()), 'donor')}, {int(at.n_cells.max()):,} cells of "
            f"{plural(int(at.n_types.max()), 'normal type' if is_normal_only else 'type')}"
        )
        aside = "; majority class left aside" if len(models) < len(averages) else ""
        facts.append(("Cells wrong at diagnosis", f"{', '.join(parts)} ({support}{aside})."))
    rates = blasts.rates
    found = rates[
        (rates.metric == "sensitivity")
        & (rates.timepoint == "Diagnosis")
        & rates.value.notna()
        & ~is_floor(rates.configuration)
    ]
    if len(found):
        support = (
            f"{plural(int(found.n_donors.max()), 'donor')}, "
            f"{int(found.n_cells.max()):,} malignant cells, {plural(len(found), 'model')}"
        )
        text = f"{_percent_range(1 - found.value)} at diagnosis ({support})."
        facts.append(("Blasts called normal", text))
    if "Relapse" in missing:
        facts.append(("Relapse", "No data in this dataset. Nothing is filled in."))
    else:
        relapse = models[models.timepoint == "Relapse"]
        if len(relapse):
            text = f"{_percent_range(1 - relapse.accuracy)} of the cells are wrong"
            support = f"{plural(int(relapse.n_donors.max()), 'donor')}, {int(relapse.n_cells.max()):,} cells"
            facts.append(("Relapse", f"{text} ({support})."))
    return facts
