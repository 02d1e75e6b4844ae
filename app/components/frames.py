"""Rows and sentences of views for display: order and names. No score is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from backend.data.labels import chart_order
from backend.evaluation.description import is_grey
from backend.evaluation.outcomes import WRONG
from backend.evaluation.wording import plain, plural
from backend.types import PROTOCOLS, TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "in_order",
    "is_floor",
    "name_types",
    "outcome_sentence",
    "readable_first",
    "with_display_name",
    "with_donor_names",
    "with_share",
]

_SHOWN_TYPES: Final = 8


def with_display_name(sentence: str, models: Mapping[str, str]) -> str:
    """Put a model's display name, unique among `models`, for the key that opens a sentence."""
    for key, name in models.items():
        for opening, shown in ((f"`{key}`", f"**{plain(name)}**"), (f"{key}:", f"{plain(name)}:")):
            if sentence.startswith(opening):
                return f"{shown}{sentence.removeprefix(opening)}"
    return sentence


def in_order(values: Iterable[str], kind: str) -> list[str]:
    """Return distinct values in the order of their kind: clinical, by family and maturation, or by name."""
    distinct = {str(value) for value in values}
    if kind == "timepoint":
        known = [t for t in TIMEPOINTS if t in distinct]
    elif kind == "protocol":
        known = [p for p in PROTOCOLS if p in distinct]
    elif kind == "cell_type":
        return sorted(distinct, key=chart_order)
    else:
        known = []
    return known + sorted(distinct - set(known))


def name_types(rows: pd.DataFrame, *, by: str) -> None:
    """Write which types are lost by which model or at which timepoint: a line per model, each type in its worst class.

    Parameters
    ----------
    by
        Column that says how a type is lost; where there is a column `timepoint`, each type is
        followed by those at which it is lost so, and by milder losses at others. Types with most
        cells come first.
    """
    name = "display_name" if "display_name" in rows else "column"
    lines = []
    by_size = rows.sort_values("n_cells", ascending=False)
    for model in in_order(rows[name], "timepoint"):
        part = by_size[by_size[name] == model]
        worst_first = part.sort_values(by, key=lambda kinds: kinds.map(_severity), kind="stable")
        worst = worst_first.drop_duplicates("cell_type")
        texts = [
            f"{kind} {_named(worst_first, types.cell_type.tolist(), by=by)}"
            for kind, types in worst.groupby(by, sort=False, observed=True)
        ]
        lines.append(f"- **{plain(model)}**: {'; '.join(texts)}")
    st.markdown("\n".join(lines))


def _severity(kind: str) -> int:
    """Return the place of a kind of loss, worst first; "F1 below 0.2" is the mildest."""
    return 0 if kind.startswith("never") else 2 if kind.startswith("F1 below") else 1


def _named(lost: pd.DataFrame, types: list[str], *, by: str) -> str:
    """Name types, each with the timepoints at which it is lost where those are known.

    `lost` has the worst kinds first; the first one stands before all the types.
    """
    texts = []
    for cell_type in types[:_SHOWN_TYPES]:
        times = []
        if "timepoint" in lost:
            mine = lost[lost.cell_type == cell_type]
            times = [
                f"{f'{kind} at ' if number else ''}"
                f"{plain(', '.join(in_order(rows.timepoint, 'timepoint')))}"
                for number, (kind, rows) in enumerate(mine.groupby(by, sort=False, observed=True))
            ]
        texts.append(plain(cell_type) + (f" ({'; '.join(times)})" if times else ""))
    more = f" and {len(types) - _SHOWN_TYPES} more" if len(types) > _SHOWN_TYPES else ""
    return f"{', '.join(texts)}{more}"


def with_donor_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `donor_name`: donor and timepoint in one text."""
    named = rows.copy()
    named["donor_name"] = [
        f"{donor} ({timepoint})" if pd.notna(timepoint) else str(donor)
        for donor, timepoint in zip(rows.donor, rows.timepoint, strict=True)
    ]
    return named


def readable_first(scores: pd.DataFrame) -> list[str]:
    """Return the cell types in the order of the rows, those that are grey everywhere last."""
    is_read = pd.Series(~is_grey(scores.n_cells), index=scores.index)
    read = set(scores.cell_type[is_read])
    return sorted(dict.fromkeys(scores.cell_type), key=lambda name: name not in read)


def with_share(counts: pd.DataFrame) -> pd.DataFrame:
    """Add each outcome's share of the cells that are scored."""
    scored = counts.outcome.astype(str).ne("not scored")
    total = int(counts.n_cells[scored].sum())
    shares = counts.n_cells / total if total else counts.n_cells * float("nan")
    return counts.assign(share=shares.where(scored))


def _at_least(threshold: float) -> str:
    """Return "≥ 0.51", with more decimals near 1, and never a 1 that rounding made."""
    if threshold < 0.995:
        return f"≥ {threshold:.2f}"
    return f"≥ {threshold:.4f}" if threshold < 0.99995 else "above 0.9999"


def outcome_sentence(
    counts: pd.DataFrame,
    model: str,
    threshold: float | None,
    *,
    n_donors: int = 0,
    is_upload: bool = False,
) -> str:
    """Return the headline of the failure map; `n_donors` are those of the labelled cells.

    Cells of an upload can have a label of their own and no score.
    """
    why = "without a label"
    if is_upload:
        why += ", with one that the models cannot output, or in training"
    n = dict(zip(counts.outcome, counts.n_cells, strict=True))
    total = sum(v for k, v in n.items() if k != "not scored")
    if not total:
        lost = n.get("not scored", 0)
        return f"**{plain(model)}** names {plural(lost, 'cell')} {why}: none is scored."
    n_failed = sum(n.get(k, 0) for k in WRONG)
    donors = f"; {plural(n_donors, 'donor')}" if n_donors else ""
    share = f" ({n_failed / total:.0%}{donors})"
    text = f"**{plain(model)}** fails on {n_failed:,} of {plural(total, 'labelled cell')}{share}."
    if threshold is None:
        text += " There are no validation cells to set a threshold, so none is called confidently wrong."
    else:
        text += (
            f" {n.get('confidently wrong', 0):,} are confidently wrong: at least as sure as its "
            f"median right call on validation cells (confidence {_at_least(threshold)})."
        )
    if n.get("not scored"):
        text += f" Not scored: {plural(n['not scored'], 'cell')} {why}."
    return text


def is_floor(configurations: pd.Series) -> pd.Series:
    """Say which configurations are the majority class, the low end of every range by construction.

    On an upload, the key of a configuration ends with its stored model.
    """
    return configurations.str.extract(r"^(\w+)", expand=False) == "majority"
