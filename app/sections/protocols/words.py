"""Protocols in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.components.frames import with_display_name
from backend.evaluation.wording import plain, plural, range_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from backend.evaluation.metrics import Metric

__all__ = ["gap_sentence", "notes_in_words"]


def notes_in_words(notes: Sequence[str], models: Mapping[str, str]) -> str:
    """Return the notes on the gaps as one text; what holds for several models is said once.

    Parameters
    ----------
    notes
        Sentences, or sentences about one model that begin with its configuration and a colon.
    models
        Configuration → display name.
    """
    names_of: dict[str, list[str]] = {}
    for note in notes:
        key, _, rest = note.partition(": ")
        about = [plain(models[key])] if key in models else []
        names_of.setdefault(rest if about else note, []).extend(about)
    return " ".join(
        f"{_who(names, len(models))}: {text}" if names else with_display_name(text, models)
        for text, names in names_of.items()
    )


def _who(names: Sequence[str], n_models: int) -> str:
    return "All models" if 1 < len(names) == n_models else "; ".join(names)


def _models(n: int, total: int) -> str:
    return f"{n} of {plural(total, 'model')}"


def gap_sentence(gaps: pd.DataFrame, metric: Metric) -> str:
    """Say for how many models a test on known patients promises more than new patients keep.

    Parameters
    ----------
    gaps
        A row per model: gap, low, high (NaN without an interval), n_donors, n_cells.

    Returns
    -------
    One sentence in Markdown. A model counts only when its interval excludes 0.
    """
    known = gaps.dropna(subset=["gap"])
    tested = known.dropna(subset=["low", "high"])
    support = f"{plural(int(known.n_donors.max()), 'donor')}, {int(known.n_cells.max()):,} cells"
    if tested.empty:
        return (
            f"{metric.title} on known minus on new patients: "
            f"{range_text(known.gap.min(), known.gap.max())} over {plural(len(known), 'model')} "
            f"({support}; too few donors for an interval)."
        )
    higher, lower = tested[tested.low > 0], tested[tested.high < 0]
    if higher.empty:
        text = f"For {_models(0, len(known)).replace('0', 'none', 1)} is {metric.label} higher on "
        text += "known than on new patients by more than its interval"
    else:
        by = range_text(higher.gap.min(), higher.gap.max())
        low, _, high = by.partition("–")
        by = low if low == high else by
        text = f"For {_models(len(higher), len(known))} {metric.label} is higher on known than on "
        text += f"new patients, by {by}; their intervals exclude 0"
    if len(lower):
        text += f"; for {len(lower)} it is lower"
    return f"**{text}** ({support})."
