"""Shaping rows of a view for display: order, names, counts. No score is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from app.components.cell_map import FAILED
from app.components.palette import OUTCOMES
from backend.data.labels import family
from backend.types import PROTOCOLS, TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "by_loss",
    "by_protocol",
    "counts_of",
    "donor_order",
    "donor_sentence",
    "failures_first",
    "families_of",
    "in_order",
    "labels_of",
    "name_types",
    "outcome_counts",
    "outcome_sentence",
    "with_donor_names",
    "with_label",
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


def by_loss(scores: pd.DataFrame) -> list[str]:
    """Return cell types, those with the lowest mean F1 first; types with few cells come last."""
    ranked = scores.assign(is_small=scores.is_small.astype(bool)).pivot_table(
        index="cell_type", values=["f1", "is_small"], aggfunc={"f1": "mean", "is_small": "min"},
        dropna=False,
    )  # fmt: skip
    return list(ranked.sort_values(["is_small", "f1"], kind="stable").index)


def name_types(title: str, rows: pd.DataFrame) -> None:
    """Write which types are lost by which model, in one line per model."""
    if rows.empty:
        return
    names = rows["display_name"] if "display_name" in rows else rows["column"]
    lines = []
    for name in sorted(names.unique()):
        types = sorted(rows.loc[names == name, "cell_type"].unique())
        more = f" and {len(types) - _SHOWN_TYPES} more" if len(types) > _SHOWN_TYPES else ""
        lines.append(f"- {name}: {', '.join(types[:_SHOWN_TYPES])}{more}")
    st.markdown(f"**{title}**\n" + "\n".join(lines))


def labels_of(cells: pd.DataFrame) -> list[str]:
    """Return the labels that occur, by family."""
    return in_order(cells.label.dropna(), "cell_type")


def with_label(cells: pd.DataFrame, cell_types: Sequence[str]) -> pd.DataFrame:
    """Return the cells labelled as one of `cell_types`; all cells when it is empty."""
    return cells[cells.label.isin(cell_types)] if cell_types else cells


def counts_of(cells: pd.DataFrame, column: str) -> dict[str, int]:
    """Return category → number of cells."""
    return {str(k): int(n) for k, n in cells[column].value_counts().items()}


def outcome_counts(cells: pd.DataFrame) -> pd.DataFrame:
    """Return cells, donors and share of the labelled cells per outcome."""
    table = (
        cells.groupby("outcome", observed=True)
        .agg(n_cells=("cell_id", "size"), n_donors=("donor", "nunique"))
        .reindex([o for o in OUTCOMES if o in set(cells.outcome)])
        .reset_index()
    )
    scored = table.outcome.ne("not scored")
    total = int(table.n_cells[scored].sum())
    table["share"] = (table.n_cells / total).where(scored) if total else float("nan")
    return table


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
            f"{threshold:.2f}, the median of this model's correct valid cells."
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
    return rows.melt(id_vars=kept, value_vars=present, var_name="protocol", value_name="f1")
