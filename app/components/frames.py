"""Shaping rows of a view for display: order, names, counts. No score is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from app.components.cell_map import FAILED
from backend.data.labels import family
from backend.types import PROTOCOLS, TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "by_protocol",
    "counts_of",
    "donor_order",
    "donor_sentence",
    "failures_first",
    "families_of",
    "in_order",
    "labelled_rows",
    "labels_of",
    "lost_types",
    "name_types",
    "outcome_sentence",
    "with_display_name",
    "with_donor_names",
    "with_share",
]

_FAMILIES: Final = (
    "Stem and progenitor",
    "Erythroid",
    "Monocytic and dendritic",
    "B lineage",
    "T and NK",
    "Other",
)
_SHOWN_TYPES: Final = 8


def families_of(cells: pd.DataFrame) -> dict[str, str]:
    """Return cell type → family for every label and prediction."""
    types = set(cells.label.dropna().astype(str)) | set(cells.predicted.dropna().astype(str))
    return {cell_type: family(cell_type) for cell_type in sorted(types)}


def with_display_name(sentence: str, models: Mapping[str, str]) -> str:
    """Put a model's display name, unique among `models`, for the key that opens a sentence."""
    for key, name in models.items():
        for opening, shown in ((f"`{key}`", f"**{name}**"), (f"{key}:", f"{name}:")):
            if sentence.startswith(opening):
                return f"{shown}{sentence.removeprefix(opening)}"
    return sentence


def in_order(values: Iterable[str], kind: str) -> list[str]:
    """Return distinct values in the order of their kind: clinical, by family, or by name."""
    distinct = {str(value) for value in values}
    if kind == "timepoint":
        known = [t for t in TIMEPOINTS if t in distinct]
    elif kind == "protocol":
        known = [p for p in PROTOCOLS if p in distinct]
    elif kind == "cell_type":
        return sorted(distinct, key=lambda t: (_FAMILIES.index(family(t)), t))
    else:
        known = []
    return known + sorted(distinct - set(known))


def labelled_rows(scores: pd.DataFrame) -> list[str]:
    """Return the cell types with a label anywhere, in the order of the rows."""
    return list(dict.fromkeys(scores.loc[scores.n_cells > 0, "cell_type"]))


def lost_types(never_predicted: pd.DataFrame, zero_f1: pd.DataFrame) -> pd.DataFrame:
    """Join the types that are never predicted and those that are never right."""
    parts = [
        never_predicted.assign(kind="never predicts"),
        zero_f1.assign(kind="predicts, but is never right on"),
    ]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else never_predicted.assign(kind="")


def name_types(rows: pd.DataFrame, *, by: str) -> None:
    """Write which types are lost by which model: a line per model and kind of loss.

    Parameters
    ----------
    by
        Column that says how a type is lost. Types with enough cells and donors come first.
    """
    name = "display_name" if "display_name" in rows else "column"
    ordered = rows.sort_values("n_cells", ascending=False)
    lines = []
    for (model, kind), part in ordered.groupby([name, by], sort=True, observed=True):
        types = list(dict.fromkeys(part.cell_type))
        more = f" and {len(types) - _SHOWN_TYPES} more" if len(types) > _SHOWN_TYPES else ""
        lines.append(f"- **{model}**, {kind}: {', '.join(types[:_SHOWN_TYPES])}{more}")
    st.markdown("\n".join(lines))


def labels_of(cells: pd.DataFrame) -> list[str]:
    """Return the labels that occur, by family."""
    return in_order(cells.label.dropna(), "cell_type")


def counts_of(cells: pd.DataFrame, column: str) -> dict[str, int]:
    """Return category → number of cells."""
    return {str(k): int(n) for k, n in cells[column].value_counts().items()}


def with_share(counts: pd.DataFrame) -> pd.DataFrame:
    """Add each outcome's share of the cells that are scored."""
    scored = counts.outcome.astype(str).ne("not scored")
    total = int(counts.n_cells[scored].sum())
    shares = counts.n_cells / total if total else counts.n_cells * float("nan")
    return counts.assign(share=shares.where(scored))


def outcome_sentence(counts: pd.DataFrame, model: str, threshold: float | None) -> str:
    """Return the headline of the failure map."""
    n = dict(zip(counts.outcome, counts.n_cells, strict=True))
    total = sum(v for k, v in n.items() if k != "not scored")
    n_failed = sum(n.get(k, 0) for k in FAILED)
    share = f" ({n_failed / total:.0%})" if total else ""
    text = f"**{model}** fails on {n_failed:,} of {total:,} labelled cells{share}."
    if threshold is None:
        text += " No valid cells to set a threshold, so none is called confidently wrong."
    else:
        text += (
            f" {n.get('confidently wrong', 0):,} are confidently wrong: confidence ≥ "
            f"{threshold:.{2 if threshold < 0.995 else 4}f}, the median of this model's correct valid cells."
        )
    if n.get("not scored"):
        text += f" {n['not scored']:,} cells without a label are not scored."
    return text


def failures_first(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the failures, most confident first."""
    return cells[cells.outcome.isin(FAILED)].sort_values("confidence", ascending=False)


def with_donor_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `donor_name`: donor and timepoint in one text."""
    named = rows.copy()
    named["donor_name"] = [
        f"{donor} ({timepoint})" if pd.notna(timepoint) else str(donor)
        for donor, timepoint in zip(rows.donor, rows.timepoint, strict=True)
    ]
    return named


def donor_order(rows: pd.DataFrame) -> list[str]:
    """Return the donor names in clinical order, then by name."""
    places = {t: i for i, t in enumerate(TIMEPOINTS)}
    distinct = rows.drop_duplicates("donor_name")
    keys = [
        (places.get(t, len(places)), str(d), n)
        for t, d, n in zip(distinct.timepoint, distinct.donor, distinct.donor_name, strict=True)
    ]
    return [name for _, _, name in sorted(keys)]


def donor_sentence(totals: pd.DataFrame, model: str) -> str:
    """Return the spread of donors in words."""
    known = totals.dropna(subset=["macro_f1"]).sort_values("macro_f1")
    if known.empty:
        return f"**{model}**: no donor has enough labelled cells for a score."
    low, high = known.iloc[0], known.iloc[-1]
    return (
        f"**{model}**: macro-F1 of single donors from {low.macro_f1:.2f} ({low.donor}, "
        f"{low.timepoint}, {int(low.n_cells):,} cells) to {high.macro_f1:.2f} ({high.donor}, "
        f"{high.timepoint}, {int(high.n_cells):,} cells), over {len(known)} donors."
    )


def by_protocol(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per protocol instead of one column, protocols that were not run left out."""
    kept = [c for c in rows.columns if c not in PROTOCOLS]
    present = [p for p in PROTOCOLS if p in rows and rows[p].notna().any()]
    long = rows.melt(id_vars=kept, value_vars=present, var_name="protocol", value_name="f1")
    return long.dropna(subset=["f1"])
