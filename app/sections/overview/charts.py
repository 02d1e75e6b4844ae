"""The picture of Overview: every model at every timepoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt

from app.components import charts, palette
from app.components.figure import AROUND, SELECTION
from app.components.words import shortened
from backend.evaluation.metrics import metric_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

__all__ = ["score_dots"]


_HIDDEN: Final = "right · worst type"
_FEW: Final = 8
_NARROW_ROW: Final = 14
"""Pixels of a dot's row where more than `_FEW` models would not end on one screen."""
_ROOM: Final = 0.5
"""Share of the range that is kept free at the right end, for what an average hides."""
_GAP: Final = 0.03
"""Share of the range between the end of the scale and that text."""
_LETTER: Final = 0.43
"""Width of a letter by its size, at the mean of names and numbers."""


def _fitting(texts: pd.Series) -> alt.ExprRef:
    """Return the size of letters at which the longest text ends within the free room."""
    share = (_ROOM - _GAP) / (1 + _ROOM)
    longest = max(map(len, texts), default=1)
    return alt.expr(f"clamp({share:.3f} * width / {_LETTER * longest:.2f}, 9, 12)")


def score_dots(
    scores: pd.DataFrame, averages: pd.DataFrame, *, models: Sequence[str], dark: bool
) -> alt.LayerChart:
    """Draw the metric of every model and timepoint as a dot with its interval.

    At the right end of each row stand its accuracy and its worst type. A click selects
    `configuration` and `timepoint`.

    Parameters
    ----------
    averages
        What `backend.evaluation.views.averages` returns.
    models
        Display names in the order of the rows.
    """
    metric = metric_of(scores)
    low, high = metric.range
    scale = alt.Scale(domain=[low, high + _ROOM * (high - low)], nice=False)
    axis = charts.score_axis(metric)
    rows = charts.with_words(scores)
    timepoints = list(dict.fromkeys(rows.timepoint))
    support = {t: f"{t} ({charts.support_text(part)})" for t, part in rows.groupby("timepoint")}
    rows["slice"] = rows.timepoint.map(support)
    names = [name for name in models if name in set(rows.display_name)]
    domain = [support[t] for t in timepoints]
    legend = alt.Legend(
        orient="top", direction="vertical", columns=1, title=None, labelLimit=600, symbolSize=90
    )
    base = alt.Chart(rows).encode(
        y=alt.Y(
            "display_name:N",
            sort=names,
            title=None,
            scale=alt.Scale(paddingInner=0.25),
            axis=alt.Axis(
                labelLimit=280,
                labelFontSize=13,
                ticks=False,
                domain=False,
                labelExpr=charts.TWO_LINES,
            ),
        ),
        yOffset=alt.YOffset("timepoint:N", sort=timepoints),
        color=alt.Color(
            "slice:N",
            sort=domain,
            scale=alt.Scale(
                domain=domain, range=list(palette.timepoint_colours(timepoints).values())
            ),
            legend=legend,
        ),
    )
    rule = base.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("low:Q", scale=scale, axis=axis, title=metric.title),
        x2="high:Q",
        strokeDash=alt.condition("datum.is_few", alt.value([5, 3]), alt.value([1, 0])),
    )
    chosen = alt.selection_point(
        name=SELECTION, fields=["configuration", "timepoint"], on="click", empty=False
    )
    dot = (
        base.mark_point(size=120, strokeWidth=2, opacity=1, cursor="pointer")
        .encode(
            x=alt.X("value:Q", scale=scale, axis=axis, title=metric.title),
            shape=alt.Shape(
                "slice:N",
                sort=domain,
                scale=alt.Scale(
                    domain=domain, range=list(palette.timepoint_shapes(timepoints).values())
                ),
                legend=legend,
            ),
            fillOpacity=alt.condition("datum.has_interval", alt.value(1), alt.value(0)),
            fill=alt.Fill(
                "slice:N",
                sort=domain,
                scale=alt.Scale(
                    domain=domain, range=list(palette.timepoint_colours(timepoints).values())
                ),
                legend=legend,
            ),
            tooltip=charts.score_tooltip(metric, rows),
        )
        .add_params(chosen)
    )
    is_scored = rows.value.notna().groupby(rows.display_name).transform("any")
    unscored = rows[~is_scored].drop_duplicates("display_name")
    missing = (
        alt.Chart(unscored)
        .mark_text(align="left", color=palette.ink(dark=dark), fontSize=12)
        .encode(
            y=alt.Y("display_name:N", sort=names),
            x=alt.datum(metric.range[0] + 0.01),
            text="reason:N",
        )
    )
    shown = ["configuration", "timepoint", "accuracy", "worst_type", "worst_f1"]
    said = rows.merge(averages[shown], on=["configuration", "timepoint"])
    said["text"] = [
        f"{accuracy:.2f} · {shortened(worst, 14)} {f1:.2f}"
        for accuracy, worst, f1 in zip(said.accuracy, said.worst_type, said.worst_f1, strict=True)
    ]
    hidden = (
        alt.Chart(said)
        .mark_text(
            align="left", baseline="middle", fontSize=_fitting(said["text"]),
            color=palette.ink(dark=dark),
        )
        .encode(
            y=alt.Y("display_name:N", sort=names),
            yOffset=alt.YOffset("timepoint:N", sort=timepoints),
            x=alt.datum(high + _GAP * (high - low)),
            text="text:N",
        )
    )  # fmt: skip
    heading = (
        alt.Chart(said.head(1))
        .mark_text(
            align="left", baseline="bottom", fontSize=12, fontWeight=600,
            color=palette.ink(dark=dark),
        )
        .encode(x=alt.datum(high + _GAP * (high - low)), y=alt.value(-4), text=alt.value(_HIDDEN))
    )  # fmt: skip
    row = charts.ROW if len(names) <= _FEW else _NARROW_ROW
    height = len(names) * (row * len(timepoints) + 12)
    return alt.layer(rule, dot, hidden, heading, missing).properties(
        height=height, width=620, usermeta={AROUND: 104 + 26 * len(timepoints)}
    )
