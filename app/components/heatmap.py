"""Tables of scores as coloured cells, each with its number and its support written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from app.components import palette
from app.components.figure import AROUND, SELECTION
from backend.evaluation.description import is_few_donors, is_grey
from backend.evaluation.f1 import TOP_DONOR_MARK

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FEW_DONORS", "MOST_COLUMNS", "MOST_ROWS", "ONE_DONOR", "heatmap"]

FEW_DONORS = "†"
"""Follows a score that describes one or two donors."""

ONE_DONOR = "‡"
"""Follows a score whose cells are mostly those of one donor among several."""


MOST_COLUMNS = 24
"""Up to which names and numbers of columns can be read beside each other."""

MOST_ROWS = 24
"""Up to which rows with room for their support end on about one screen."""

_LOW_ROW = 18
"""Pixels of a row of a compact table."""


def _points(share: float) -> str:
    """Return a signed number of percentage points with a true minus sign; "0" without a sign."""
    points = round(100 * share)
    return f"{points:+d}".replace("-", "−") if points else "0"


def heatmap(
    cells: pd.DataFrame,
    *,
    row: str,
    column: str,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    with_n: Sequence[str] = ("n_cells", "n_donors"),
    value: str = "f1",
    diverging: bool = False,
    is_compact: bool = False,
    dark: bool,
) -> alt.LayerChart:
    """Draw a table of scores as coloured cells with the score and its support written in.

    Scores over fewer than 20 cells are grey; those of one or two donors bear `FEW_DONORS`,
    those mostly of one donor `ONE_DONOR`.

    Parameters
    ----------
    with_n
        Columns of counts that are written under the score, joined by a slash.
    diverging
        Colour signed differences around 0 instead of values from 0 to 1.
    is_compact
        Draw many rows low, with the support in the tooltip only.
    """
    with_n = () if is_compact else with_n
    data = cells.copy()
    unread = False if diverging else is_grey(data["n_cells"])
    data["is_grey"] = data[value].isna() | unread
    span = float(np.nanmax(np.abs(data[value]))) if diverging and data[value].notna().any() else 1.0
    span = max(span, 0.01)
    if diverging:
        data["value_text"] = [_points(v) if pd.notna(v) else "–" for v in data[value]]
        data["ink"] = np.where(data[value].abs() > 0.75 * span, "white", "black")
        scale = alt.Scale(
            domain=[-span, -span / 2, 0, span / 2, span], range=list(palette.DIVERGING)
        )
        legend_title, legend_format = "Predicted − labelled share", "+.0%"
    else:
        few = is_few_donors(data["n_donors"]) if "n_donors" in data else np.zeros(len(data), bool)
        top = data["top_donor_share"] if "top_donor_share" in data else np.zeros(len(data))
        marks = np.select(
            [data["is_grey"], few, np.asarray(top) >= TOP_DONOR_MARK],
            ["", FEW_DONORS, ONE_DONOR],
            "",
        )
        data["value_text"] = [
            f"{v:.2f}{mark}" if pd.notna(v) else "–"
            for v, mark in zip(data[value], marks, strict=True)
        ]
        data["ink"] = np.where(data[value] < 0.45, "white", "black")
        scale = alt.Scale(domain=[0, 1], scheme="viridis")
        legend_title, legend_format = "F1", ".1f"
    data.loc[data.is_grey, "ink"] = "black"
    # What has no value has no fill: its text stands on the page.
    data.loc[data[value].isna(), "ink"] = palette.ink(dark=dark)
    wide = len(columns) <= 6
    if with_n:
        data["n_text"] = [
            " / ".join(f"{int(n):,}" for n in counts)
            for counts in zip(*(data[name] for name in with_n), strict=True)
        ]
    if with_n and wide and "top_donor_share" in data and not diverging:
        is_one = data["value_text"].str.endswith(ONE_DONOR)
        shares = data["top_donor_share"].map("{:.0%}".format)
        data["n_text"] = data["n_text"].where(~is_one, data["n_text"] + " · " + ONE_DONOR + shares)
    if with_n:
        data.loc[data[value].isna() & (data[with_n[0]] == 0), "n_text"] = ""
    longest_n = max(map(len, data["n_text"]), default=0) if with_n else 0
    longest_value = max(map(len, data["value_text"]), default=0)
    longest = max((len(str(name)) for name in columns), default=0)
    # Level labels only where they fit beside each other on a narrow page.
    # On a narrow page slanted names of more columns run into each other.
    slant = -50 if len(columns) <= 18 else -90
    angle = 0 if longest * len(columns) <= 60 else -25 if wide else slant
    base = alt.Chart(data).encode(
        x=alt.X(
            f"{column}:N",
            sort=list(columns),
            title=column_title,
            axis=alt.Axis(
                orient="top",
                labelAngle=angle,
                labelLimit=220,
                labelOverlap=False,
                labelPadding=8,
                labelFontSize=12,
                ticks=False,
                domain=False,
            ),
            scale=alt.Scale(paddingInner=0.03, paddingOuter=0),
        ),
        y=alt.Y(
            f"{row}:N",
            sort=list(rows),
            title=None,
            axis=alt.Axis(
                labelLimit=200, labelOverlap=False, labelFontSize=12, ticks=False, domain=False
            ),
            scale=alt.Scale(paddingInner=0.05, paddingOuter=0),
        ),
    )
    tooltip = [
        alt.Tooltip(f"{row}:N", title=row_title),
        alt.Tooltip(f"{column}:N", title=column_title),
        *(
            alt.Tooltip(f"{field}:Q", title=title, format=form)
            for field, title, form in (
                (value, "Difference" if diverging else "F1", "+.1%" if diverging else ".2f"),
                ("precision", "Precision", ".2f"),
                ("recall", "Recall", ".2f"),
                ("low", "95 % low", ".2f"),
                ("high", "95 % high", ".2f"),
                ("labelled_share", "Labelled share", ".1%"),
                ("predicted_share", "Predicted share", ".1%"),
                ("n_cells", "Cells", ","),
                ("n_donors", "Donors", ","),
                ("top_donor_share", "Largest donor's share", ".0%"),
            )
            if field in data
        ),
    ]
    chosen = alt.selection_point(name=SELECTION, fields=[row, column], on="click", empty=False)
    rect = (
        base.mark_rect(cursor="pointer")
        .encode(
            color=alt.condition(
                "datum.is_grey",
                alt.value(palette.SMALL),
                alt.Color(
                    f"{value}:Q",
                    scale=scale,
                    legend=alt.Legend(
                        orient="bottom", title=legend_title, format=legend_format,
                        gradientLength=240, direction="horizontal",
                    ),
                ),
            ),
            tooltip=tooltip,
        )
        .add_params(chosen)
    )  # fmt: skip
    ink = alt.expr("datum.ink")
    # Text shrinks with its cell down to what can be read; the tooltip and the table remain.
    cell = f"width / {max(len(columns), 1)}"
    size = 13 if wide else 11
    score = base.mark_text(
        fontSize=alt.expr(f"clamp(0.37 * {cell}, 8, {size})"),
        dy=-7 if with_n else 0,
        fontWeight=600,
        color=ink,
        opacity=alt.expr(f"{cell} < {max(15, 4 * longest_value)} ? 0 : 1"),
    ).encode(text="value_text:N")
    support = base.mark_text(
        fontSize=alt.expr(f"clamp({cell} / {0.56 * max(longest_n, 1):.2f}, 7, {size - 2})"),
        dy=8,
        color=ink,
        opacity=alt.expr(f"{cell} < {3.7 * longest_n:.1f} ? 0 : 1"),
    ).encode(text="n_text:N")
    layers = (rect, score, support) if with_n else (rect, score)
    return alt.layer(*layers).properties(
        height=len(rows) * (34 if with_n else _LOW_ROW if is_compact else 24),
        width=max(360, len(columns) * 64),
        usermeta={AROUND: 150 + (0 if angle == 0 else 8 * longest)},
    )
