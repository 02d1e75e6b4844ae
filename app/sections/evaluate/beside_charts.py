"""The pictures of a sample beside the reference: diamonds among dots, shares among ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt

from app.components import palette
from app.components.figure import AROUND

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["among_donors", "shares_in_range"]

_WHO: Final = {"reference": "a reference donor", "sample": "your sample"}
_ROW: Final = 30


def _rows(field: str, order: list[str]) -> alt.Y:
    axis = alt.Axis(labelLimit=260, labelFontSize=12, labelOverlap=False, ticks=False, grid=True)
    return alt.Y(f"{field}:N", sort=order, title=None, axis=axis)


def among_donors(
    dots: pd.DataFrame, *, row: str, value: str, title: str, order: list[str], dark: bool
) -> alt.LayerChart:
    """Draw the sample as diamonds among the dots of reference donors, one row a `row`.

    Parameters
    ----------
    dots
        Rows of `who`, `donor`, `timepoint`, `n_cells`, `row` and `value` (0-1).
    """
    times = sorted(dots.loc[dots["who"] == "reference", "timepoint"].unique())
    colours = palette.timepoint_colours(times)
    tooltip = [
        alt.Tooltip(f"{row}:N", title="Row"),
        alt.Tooltip("donor:N", title="Donor"),
        alt.Tooltip("timepoint:N", title="Timepoint"),
        alt.Tooltip(f"{value}:Q", title=title, format=".2f"),
        alt.Tooltip("n_cells:Q", title="Labelled cells", format=","),
    ]
    if "n_types" in dots:
        tooltip.append(alt.Tooltip("n_types:Q", title="Types"))
    x = alt.X(f"{value}:Q", title=title, scale=alt.Scale(domain=[0, 1]))
    theirs = (
        alt.Chart(dots[dots["who"] == "reference"])
        .mark_point(size=55, filled=True, opacity=0.65, shape="circle")
        .encode(
            y=_rows(row, order),
            x=x,
            color=alt.Color(
                "timepoint:N",
                scale=alt.Scale(domain=list(colours), range=list(colours.values())),
                legend=alt.Legend(orient="top", title="Reference donors") if times else None,
            ),
            tooltip=tooltip,
        )
    )
    ink = palette.ink(dark=dark)
    mine = (
        alt.Chart(dots[dots["who"] == "sample"].assign(mark=_WHO["sample"]))
        .mark_point(size=130, filled=True, opacity=1, stroke=ink, strokeWidth=1, color=ink)
        .encode(
            y=_rows(row, order),
            x=x,
            shape=alt.Shape(
                "mark:N",
                scale=alt.Scale(domain=[_WHO["sample"]], range=["diamond"]),
                legend=alt.Legend(orient="top", title=None),
            ),
            tooltip=tooltip,
        )
    )
    return (
        alt.layer(theirs, mine)
        .resolve_scale(shape="independent", color="independent")
        .properties(height=max(len(order), 2) * _ROW, width=620, usermeta={AROUND: 130})
    )


def shares_in_range(shares: pd.DataFrame, *, order: list[str], dark: bool) -> alt.LayerChart:
    """Draw a donor's predicted shares as diamonds on the range of the reference's donors."""
    ink = palette.ink(dark=dark)
    top = max(0.05, float(shares[["share", "high"]].max().max()))
    axis = alt.Axis(format="%")
    tooltip = [
        alt.Tooltip("cell_type:N", title="Predicted type"),
        alt.Tooltip("share:Q", title="Share of the sample", format=".1%"),
        alt.Tooltip("low:Q", title="Lowest reference donor", format=".1%"),
        alt.Tooltip("high:Q", title="Highest reference donor", format=".1%"),
        alt.Tooltip("n_reference_donors:Q", title="Reference donors"),
    ]
    scale = alt.Scale(domain=[0, min(1.0, top * 1.05)])
    title = "Share of called cells"
    names = [f"{kind} donors, lowest to highest" for kind in shares["reference"].dropna().unique()]
    ranged = shares.dropna(subset=["low"])
    ranged = ranged.assign(mark=ranged["reference"].astype(str) + " donors, lowest to highest")
    bars = (
        alt.Chart(ranged)
        .mark_bar(height=9, opacity=0.75)
        .encode(
            y=_rows("cell_type", order),
            x=alt.X("low:Q", scale=scale, axis=axis, title=title),
            x2="high:Q",
            color=alt.Color(
                "mark:N",
                scale=alt.Scale(domain=names, range=[palette.SKY] * max(1, len(names))),
                legend=alt.Legend(orient="top", title=None, labelLimit=300) if names else None,
            ),
            tooltip=tooltip,
        )
    )
    mine = (
        alt.Chart(shares.assign(sample=_WHO["sample"]))
        .mark_point(size=110, filled=True, opacity=1, color=ink)
        .encode(
            y=_rows("cell_type", order),
            x=alt.X("share:Q", scale=scale, axis=axis, title=title),
            shape=alt.Shape(
                "sample:N",
                scale=alt.Scale(domain=[_WHO["sample"]], range=["diamond"]),
                legend=alt.Legend(orient="top", title=None),
            ),
            tooltip=tooltip,
        )
    )
    return (
        alt.layer(bars, mine)
        .resolve_scale(shape="independent", color="independent")
        .properties(height=max(len(order), 2) * 24, width=620, usermeta={AROUND: 120})
    )
