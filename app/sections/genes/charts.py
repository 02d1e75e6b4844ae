"""A volcano of all genes, and dots of the first of them on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np
import pandas as pd

from app.components import palette
from app.components.figure import AROUND
from backend.evaluation.genes.failures import FDR

if TYPE_CHECKING:
    from backend.evaluation.genes.failures import GenesOfFailures

__all__ = ["N_DOTS", "N_NAMED", "dots", "shown_genes", "volcano"]

N_NAMED: Final = 8
"""Genes that are named in the volcano beside known markers."""
N_DOTS: Final = 20
_HEIGHT: Final = 340
_ROW: Final = 17
_SIDES: Final = 130
_MOST_POINTS: Final = 4_000
"""Points of a volcano; of the others, which do not separate, a part is drawn."""
_HIGHEST: Final = 50.0
"""-log10 of the smallest p-value that is drawn apart."""
_KINDS: Final = {
    f"separates (q < {FDR:g})": palette.VERMILLION,
    "known marker": palette.BLUE,
    "other gene": palette.GREY,
}


def volcano(view: GenesOfFailures, *, dark: bool) -> alt.LayerChart:
    """Draw fold change against p-value of every gene, markers and the first genes by name."""
    separates, marker, other = _KINDS
    rows = view.table.assign(
        height=-np.log10(view.table["p_value"].fillna(1.0).clip(lower=10.0**-_HIGHEST)),
        kind=np.where(
            view.table["q_value"] < FDR,
            separates,
            np.where(view.table["marks"] != "", marker, other),
        ),
    )
    rows["is_named"] = (rows.index < N_NAMED) | (rows["marks"] != "") & (rows["p_value"] < FDR)
    quiet = rows.index[(rows["kind"] == other) & ~rows["is_named"]]
    if len(rows) > _MOST_POINTS:
        step = -(-len(quiet) // _MOST_POINTS)
        rows = rows.drop(quiet.difference(quiet[::step]))
    tooltip = [
        alt.Tooltip("gene:N", title="Gene"),
        alt.Tooltip("marks:N", title="Marks"),
        alt.Tooltip("log2_fold_change:Q", title="log2 fold change", format=".2f"),
        alt.Tooltip("q_value:Q", title="q-value", format=".1e"),
        alt.Tooltip("share_failures:Q", title="Failures that express it", format=".0%"),
        alt.Tooltip("share_others:Q", title="Others that express it", format=".0%"),
    ]
    base = alt.Chart(rows).encode(
        x=alt.X("log2_fold_change:Q", title="Lower in failures  ←  log2 fold change  →  higher"),
        y=alt.Y("height:Q", title="-log10 p"),
        tooltip=tooltip,
    )
    points = base.mark_circle(size=36, opacity=0.7).encode(
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=list(_KINDS), range=list(_KINDS.values())),
            legend=alt.Legend(title=None, orient="top"),
        ),
        shape=alt.Shape("kind:N", legend=None),
    )
    names = (
        base.transform_filter("datum.is_named")
        .mark_text(dy=-8, fontSize=11, color=palette.ink(dark=dark))
        .encode(text="gene:N")
    )
    return alt.layer(points, names).properties(height=_HEIGHT, usermeta={AROUND: 80})


def shown_genes(view: GenesOfFailures) -> pd.DataFrame:
    """Return the genes of the dots: the first, those higher in failures on top."""
    first = view.table.head(N_DOTS)
    return first.sort_values("log2_fold_change", ascending=False, kind="stable")


def dots(view: GenesOfFailures, *, dark: bool) -> alt.Chart:
    """Draw how many cells express each of the first genes, and how much, on both sides."""
    first = shown_genes(view)
    sides = {"failures": "Failures", "others": "Others"}
    rows = pd.concat(
        [
            pd.DataFrame(
                {
                    "gene": first["gene"],
                    "side": title,
                    "share": first[f"share_{side}"],
                    "mean": first[f"mean_{side}"],
                }
            )
            for side, title in sides.items()
        ],
        ignore_index=True,
    )
    # Between the two sides, so that genes of different height can be read in one picture.
    total = rows.groupby("gene")["mean"].transform("max").clip(lower=1e-9)
    rows["relative"] = rows["mean"] / total
    return (
        alt.Chart(rows)
        .mark_circle(opacity=1, stroke=palette.ink(dark=dark), strokeWidth=0.5)
        .encode(
            x=alt.X(
                "side:N",
                sort=list(sides.values()),
                title=None,
                axis=alt.Axis(labelAngle=0, orient="top", domain=False, ticks=False),
            ),
            y=alt.Y("gene:N", sort=first["gene"].tolist(), title=None),
            size=alt.Size(
                "share:Q",
                scale=alt.Scale(domain=[0, 1], range=[8, 260]),
                legend=alt.Legend(
                    title=["Cells with", "a count"], format=".0%", values=[0.1, 0.5, 1]
                ),
            ),
            color=alt.Color(
                "relative:Q",
                scale=alt.Scale(scheme="viridis", domain=[0, 1]),
                legend=alt.Legend(
                    title=["Mean, of the", "higher side"], format=".0%", gradientLength=90
                ),
            ),
            tooltip=[
                alt.Tooltip("gene:N", title="Gene"),
                alt.Tooltip("side:N", title="Cells"),
                alt.Tooltip("share:Q", title="With a count", format=".0%"),
                alt.Tooltip("mean:Q", title="Mean counts per 10,000", format=".2f"),
            ],
        )
        .properties(width=_SIDES, height=_ROW * len(first), usermeta={AROUND: 40})
    )
