"""Charts of scores. Each takes the rows of one view and returns an Altair chart.

Axes of F1 always run from 0 to 1. A score without an interval is drawn open, one from few
donors has a dashed interval, and what has no cells says "no data".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np
import pandas as pd

from app.components import palette
from app.components.selection import AROUND, SELECTION

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["course_lines", "gap_dots", "score_dots", "slopes"]

_UNIT: Final = alt.Scale(domain=[0, 1])
_TENTHS: Final = alt.Axis(values=[i / 10 for i in range(11)], format=".1f")
_ROW: Final = 18
"""Height of one row of dots, in pixels."""


def _range_text(low: float, high: float) -> str:
    return f"{low:,.0f}" if low == high else f"{low:,.0f}–{high:,.0f}"


def _support(rows: pd.DataFrame) -> str:
    """Return "13 donors, 8,113 cells"; ranges where models differ."""
    donors = _range_text(rows.n_donors.min(), rows.n_donors.max())
    cells = _range_text(rows.n_cells.min(), rows.n_cells.max())
    return f"{donors} donors, {cells} cells"


def _with_words(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the texts of tooltips and whether a score has an interval."""
    rows = scores.copy()
    rows["has_interval"] = rows.low.notna() & rows.high.notna()
    rows["is_few"] = rows.interval.eq("few donors")
    rows["interval_text"] = [
        f"{low:.2f}–{high:.2f}" if known else "none"
        for low, high, known in zip(rows.low, rows.high, rows.has_interval, strict=True)
    ]
    if "reason" not in rows:
        rows["reason"] = ""
    return rows


def _score_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("display_name:N", title="Model"),
        alt.Tooltip("timepoint:N", title="Timepoint"),
        alt.Tooltip("macro_f1:Q", title="Macro-F1", format=".2f"),
        alt.Tooltip("interval_text:N", title="Interval"),
        alt.Tooltip("reason:N", title="Note"),
        alt.Tooltip("n_donors:Q", title="Donors", format=","),
        alt.Tooltip("n_cells:Q", title="Cells", format=","),
        alt.Tooltip("n_types_scored:Q", title="Types scored"),
        alt.Tooltip("status_text:N", title="Folds"),
    ]


def score_dots(scores: pd.DataFrame, *, dark: bool) -> alt.LayerChart:
    """Draw macro-F1 of every model and timepoint as a dot with its interval.

    A click selects `configuration` and `timepoint`.
    """
    rows = _with_words(scores)
    timepoints = list(dict.fromkeys(rows.timepoint))
    support = {t: f"{t} ({_support(part)})" for t, part in rows.groupby("timepoint")}
    rows["slice"] = rows.timepoint.map(support)
    names = sorted(rows.display_name.unique())
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
            axis=alt.Axis(labelLimit=280, labelFontSize=13, ticks=False, domain=False),
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
        x=alt.X("low:Q", scale=_UNIT, axis=_TENTHS, title="Macro-F1"),
        x2="high:Q",
        strokeDash=alt.condition("datum.is_few", alt.value([5, 3]), alt.value([1, 0])),
    )
    chosen = alt.selection_point(
        name=SELECTION, fields=["configuration", "timepoint"], on="click", empty=False
    )
    dot = (
        base.mark_point(size=120, strokeWidth=2, opacity=1, cursor="pointer")
        .encode(
            x=alt.X("macro_f1:Q", scale=_UNIT, axis=_TENTHS, title="Macro-F1"),
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
            tooltip=_score_tooltip(),
        )
        .add_params(chosen)
    )
    unscored = rows[rows.macro_f1.isna()].drop_duplicates("display_name")
    unscored = unscored.assign(no_score=unscored.status_text + ": no headline number")
    missing = (
        alt.Chart(unscored)
        .mark_text(align="left", color=palette.ink(dark=dark), fontSize=12)
        .encode(y=alt.Y("display_name:N", sort=names), x=alt.datum(0.01), text="no_score:N")
    )
    height = len(names) * (_ROW * len(timepoints) + 12)
    return alt.layer(rule, dot, missing).properties(
        height=height, width=620, usermeta={AROUND: 104 + 26 * len(timepoints)}
    )


def _model_legend() -> alt.Legend:
    return alt.Legend(
        orient="top", title=None, labelLimit=260, symbolSize=90, symbolOpacity=1, columns=2
    )


def _course_axis(labels: Sequence[str]) -> alt.Axis:
    texts = ", ".join("'" + label.replace("'", "") + "'" for label in labels)
    return alt.Axis(
        values=list(range(len(labels))),
        labelExpr=f"split([{texts}][datum.value], '|')",
        labelFontSize=13,
        labelLineHeight=17,
        grid=False,
        title=None,
    )


def course_lines(
    scores: pd.DataFrame,
    donors: pd.DataFrame,
    *,
    timepoints: Sequence[str],
    dark: bool,
) -> alt.LayerChart:
    """Draw F1 along the clinical course: a line per model, donors behind, intervals around.

    Parameters
    ----------
    timepoints
        The course to draw, in order; those without a score are drawn as "no data", and lines
        are not carried across them.
    """
    place = {t: i for i, t in enumerate(timepoints)}
    models = dict(
        sorted(
            zip(scores.configuration, scores.display_name, strict=True), key=lambda pair: pair[1]
        )
    )
    step = min(0.16, 0.64 / max(len(models), 1))
    offset = {c: (i - (len(models) - 1) / 2) * step for i, c in enumerate(models)}
    full = pd.MultiIndex.from_product([models, timepoints], names=["configuration", "timepoint"])
    rows = _with_words(scores)
    rows["x"] = rows.timepoint.map(place) + rows.configuration.map(offset)
    line_rows = (
        rows.set_index(["configuration", "timepoint"])[["macro_f1", "low", "high"]]
        .reindex(full)
        .reset_index()
    )
    line_rows["display_name"] = line_rows.configuration.map(models)
    line_rows["x"] = line_rows.timepoint.map(place) + line_rows.configuration.map(offset)
    scored = set(scores.loc[scores.macro_f1.notna(), "timepoint"])
    labels = [
        f"{t}|" + _support(scores[scores.timepoint == t]).replace(", ", "|")
        if t in set(scores.timepoint)
        else f"{t}|no data"
        for t in timepoints
    ]
    names = list(models.values())
    colours = alt.Color(
        "display_name:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[palette.model_colours(models)[n] for n in names]),
        legend=_model_legend(),
    )
    shapes = alt.Shape(
        "display_name:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[palette.model_shapes(models)[n] for n in names]),
        legend=_model_legend(),
    )
    x_scale = alt.Scale(domain=[-0.5, len(timepoints) - 0.5], nice=False)
    x_axis = _course_axis(labels)
    x = alt.X("x:Q", scale=x_scale, axis=x_axis)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=_UNIT, axis=_TENTHS, title="Macro-F1")

    empty = pd.DataFrame(
        [{"from": place[t] - 0.5, "to": place[t] + 0.5, "x": place[t]} for t in timepoints
         if t not in scored]
    )  # fmt: skip
    layers: list[alt.Chart] = []
    if len(empty):
        layers.append(
            alt.Chart(empty)
            .mark_rect(color=palette.GREY, opacity=0.14)
            .encode(x=alt.X("from:Q", scale=x_scale, axis=x_axis), x2="to:Q")
        )
        layers.append(
            alt.Chart(empty)
            .mark_text(text="no data", color=palette.ink(dark=dark), fontSize=14)
            .encode(x=x, y=alt.datum(0.5))
        )
    base = alt.Chart(line_rows).encode(x=x, color=colours)
    layers.append(base.mark_area(opacity=0.13).encode(y=y("low"), y2="high:Q"))
    if len(donors):
        dots = donors.copy()
        seat = {d: i for i, d in enumerate(sorted(dots.donor.unique()))}
        spread = np.linspace(-0.3, 0.3, max(len(seat), 2)) * step
        dots["x"] = (
            dots.timepoint.map(place)
            + dots.configuration.map(offset)
            + dots.donor.map(seat).map(lambda i: spread[i])
        )
        layers.append(
            alt.Chart(dots)
            .mark_point(filled=True, size=26, opacity=0.55)
            .encode(
                x=x,
                y=y("macro_f1"),
                color=colours,
                shape=shapes,
                tooltip=[
                    alt.Tooltip("display_name:N", title="Model"),
                    alt.Tooltip("donor:N", title="Donor"),
                    alt.Tooltip("timepoint:N", title="Timepoint"),
                    alt.Tooltip("macro_f1:Q", title="Macro-F1 of this donor", format=".2f"),
                    alt.Tooltip("n_cells:Q", title="Cells", format=","),
                    alt.Tooltip("n_types:Q", title="Types"),
                ],
            )
        )
    layers.append(base.mark_line(strokeWidth=2, opacity=0.8).encode(y=y("macro_f1")))
    scores_base = alt.Chart(rows).encode(x=x, color=colours)
    layers.append(
        scores_base.mark_rule(strokeWidth=2.5).encode(
            y=y("low"),
            y2="high:Q",
            strokeDash=alt.condition("datum.is_few", alt.value([5, 3]), alt.value([1, 0])),
        )
    )
    chosen = alt.selection_point(
        name=SELECTION, fields=["configuration", "timepoint"], on="click", empty=False
    )
    layers.append(
        scores_base.mark_point(
            filled=True, size=150, opacity=1, stroke=palette.ink(dark=dark), strokeWidth=1.2,
            cursor="pointer",
        )
        .encode(
            y=y("macro_f1"),
            shape=shapes,
            tooltip=_score_tooltip(),
        )
        .add_params(chosen)
    )  # fmt: skip
    return alt.layer(*layers).properties(height=330, width=760, usermeta={AROUND: 180})


def slopes(
    rows: pd.DataFrame, *, protocols: Sequence[str], dark: bool, title: str = "Macro-F1"
) -> alt.LayerChart:
    """Draw F1 under each protocol, one line per model on the same types.

    Parameters
    ----------
    rows
        Long: configuration, display_name, protocol, f1, and what the tooltip may show.
    """
    models = dict(
        sorted(zip(rows.configuration, rows.display_name, strict=True), key=lambda pair: pair[1])
    )
    names = list(models.values())
    colours = palette.model_colours(models)
    shapes = palette.model_shapes(models)
    base = alt.Chart(rows).encode(
        x=alt.X(
            "protocol:N",
            sort=list(protocols),
            title="Protocol",
            scale=alt.Scale(domain=list(protocols), type="point", padding=0.35),
            axis=alt.Axis(labelAngle=0, labelFontSize=13, grid=True),
        ),
        y=alt.Y("f1:Q", scale=_UNIT, axis=_TENTHS, title=title),
        color=alt.Color(
            "display_name:N",
            scale=alt.Scale(domain=names, range=[colours[n] for n in names]),
            legend=_model_legend(),
        ),
    )
    line = base.mark_line(strokeWidth=2.5)
    dot = base.mark_point(
        filled=True, size=150, opacity=1, stroke=palette.ink(dark=dark), strokeWidth=1
    ).encode(
        shape=alt.Shape(
            "display_name:N",
            scale=alt.Scale(domain=names, range=[shapes[n] for n in names]),
            legend=_model_legend(),
        ),
        tooltip=[
            alt.Tooltip("display_name:N", title="Model"),
            alt.Tooltip("protocol:N", title="Protocol"),
            alt.Tooltip("f1:Q", title="F1", format=".2f"),
            *(
                alt.Tooltip(f"{field}:Q", title=title, format=",")
                for field, title in (("n_donors", "Donors"), ("n_cells", "Cells"))
                if field in rows
            ),
        ],
    )
    last = rows[rows.protocol == protocols[-1]].dropna(subset=["f1"]).sort_values("f1").copy()
    last["place"] = _spread(last.f1.tolist(), gap=0.055)
    text = (
        alt.Chart(last)
        .mark_text(align="left", dx=14, fontSize=12, color=palette.ink(dark=dark))
        .encode(
            x=alt.X("protocol:N", sort=list(protocols)),
            y=alt.Y("place:Q", scale=_UNIT),
            text=alt.Text("f1:Q", format=".2f"),
        )
    )
    return alt.layer(line, dot, text).properties(height=270, width=560, usermeta={AROUND: 150})


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Move ascending values apart so that texts at them do not meet."""
    placed: list[float] = []
    for value in values:
        placed.append(max(value, placed[-1] + gap) if placed else value)
    shift = max(placed[-1] - 1, 0.0) if placed else 0.0
    return [value - shift for value in placed]


def gap_dots(gaps: pd.DataFrame, *, name: str, title: str, dark: bool) -> alt.LayerChart:
    """Draw a difference per row with its interval around a line at 0.

    Parameters
    ----------
    name
        Column of the rows' names; `gap`, `low`, `high`, `interval`, `n_cells`, `n_donors` follow.
    """
    rows = _with_words(gaps)
    order = sorted(rows[name].unique())
    known = rows[["gap", "low", "high"]].to_numpy(dtype=float)
    reach = max(0.05, float(np.nanmax(np.abs(known))) if np.isfinite(known).any() else 0.05) * 1.1
    scale = alt.Scale(domain=[-reach, reach])
    axis = alt.Axis(tickCount=5, format="+.2f")
    x = alt.X("gap:Q", scale=scale, axis=axis, title=title)
    base = alt.Chart(rows).encode(
        y=alt.Y(
            f"{name}:N",
            sort=order,
            title=None,
            axis=alt.Axis(labelLimit=280, labelFontSize=13, ticks=False, domain=False),
        )
    )
    zero = (
        alt.Chart(pd.DataFrame({"gap": [0.0]}))
        .mark_rule(color=palette.ink(dark=dark), strokeWidth=1)
        .encode(x=x)
    )
    rule = base.mark_rule(strokeWidth=2.5, color=palette.BLUE).encode(
        x=alt.X("low:Q", scale=scale, axis=axis, title=title),
        x2="high:Q",
        strokeDash=alt.condition("datum.is_few", alt.value([5, 3]), alt.value([1, 0])),
    )
    dot = base.mark_point(size=120, strokeWidth=2, color=palette.BLUE, opacity=1).encode(
        x=x,
        fill=alt.condition("datum.has_interval", alt.value(palette.BLUE), alt.value("transparent")),
        tooltip=[
            alt.Tooltip(f"{name}:N", title="Model"),
            alt.Tooltip("gap:Q", title="Gap", format="+.3f"),
            alt.Tooltip("interval_text:N", title="Interval"),
            alt.Tooltip("reason:N", title="Note"),
            alt.Tooltip("n_donors:Q", title="Donors", format=","),
            alt.Tooltip("n_cells:Q", title="Cells", format=","),
        ],
    )
    return alt.layer(zero, rule, dot).properties(
        height=max(len(order), 2) * 40, width=620, usermeta={AROUND: 84}
    )
