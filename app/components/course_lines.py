"""Every model along the clinical course: lines, intervals and the donors behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np
import pandas as pd

from app.components import charts, palette
from app.components.figure import AROUND, SELECTION
from backend.evaluation.f1 import TOP_DONOR_MARK
from backend.evaluation.metrics import metric_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bars_words", "course_lines"]

_MOST_BANDS: Final = 3


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


def _support(rows: pd.DataFrame) -> str:
    """Return donors, cells and, where one donor has most of them, its share, a line each."""
    lines = charts.support_text(rows).split(", ")
    if "top_donor_share" in rows and rows.n_donors.max() > 1:
        top = rows.top_donor_share.max()
        lines += [f"{top:.0%} one donor"] if top >= TOP_DONOR_MARK else []
    return "|".join(lines)


def course_lines(
    scores: pd.DataFrame,
    donors: pd.DataFrame,
    *,
    timepoints: Sequence[str],
    models: Sequence[str] = (),
    has_lines: bool = True,
    dark: bool,
) -> alt.LayerChart:
    """Draw the metric along the clinical course: a line per model, donors behind, intervals around.

    Parameters
    ----------
    timepoints
        The course to draw, in order; those without a score are drawn as "no data", and lines
        are not carried across them.
    models
        Display names in the order of the legend; others follow by name.
    has_lines
        False where timepoints are scored over types of their own, so that none leads to the next.
    """
    metric = metric_of(scores)
    scale, axis = charts.score_scale(metric), charts.score_axis(metric)
    place = {t: i for i, t in enumerate(timepoints)}
    place_of = {name: index for index, name in enumerate(models)}
    models = dict(
        sorted(
            zip(scores.configuration, scores.display_name, strict=True),
            key=lambda pair: (place_of.get(pair[1], len(place_of)), pair[1]),
        )
    )
    step = min(0.16, 0.64 / max(len(models), 1))
    offset = {c: (i - (len(models) - 1) / 2) * step for i, c in enumerate(models)}
    full = pd.MultiIndex.from_product([models, timepoints], names=["configuration", "timepoint"])
    rows = charts.with_words(scores)
    rows["x"] = rows.timepoint.map(place) + rows.configuration.map(offset)
    line_rows = (
        rows.set_index(["configuration", "timepoint"])[["value", "low", "high"]]
        .reindex(full)
        .reset_index()
    )
    line_rows["display_name"] = line_rows.configuration.map(models)
    line_rows["x"] = line_rows.timepoint.map(place) + line_rows.configuration.map(offset)
    scored = set(scores.loc[scores.value.notna(), "timepoint"])
    labels = [
        f"{t}|{_support(scores[scores.timepoint == t])}"
        if t in set(scores.timepoint)
        else f"{t}|no data"
        for t in timepoints
    ]
    names = list(models.values())
    legend, above = charts.model_legend(names)
    colours = alt.Color(
        "display_name:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[palette.model_colours(models)[n] for n in names]),
        legend=legend,
    )
    shapes = alt.Shape(
        "display_name:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[palette.model_shapes(models)[n] for n in names]),
        legend=legend,
    )
    x_scale = alt.Scale(domain=[-0.5, len(timepoints) - 0.5], nice=False)
    x_axis = _course_axis(labels)
    x = alt.X("x:Q", scale=x_scale, axis=x_axis)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=scale, axis=axis, title=metric.title)

    with_cells, with_dots = set(scores.timepoint), set(donors.timepoint[donors.value.notna()])
    empty = pd.DataFrame(
        [
            {
                "from": place[t] - 0.5,
                "to": place[t] + 0.5,
                "x": place[t],
                "why": "no data" if t not in with_cells
                else "single donors only" if t in with_dots else "no score",
            }
            for t in timepoints
            if t not in scored
        ]
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
            .mark_text(color=palette.ink(dark=dark), fontSize=14)
            .encode(x=x, y=alt.datum(sum(metric.range) / 2), text="why:N")
        )
    base = alt.Chart(line_rows).encode(x=x, color=colours)
    # The bands of many models are one cloud; their bars say the same.
    if has_lines and len(models) <= _MOST_BANDS:
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
                y=y("value"),
                color=colours,
                shape=shapes,
                tooltip=[
                    alt.Tooltip("display_name:N", title="Model"),
                    alt.Tooltip("donor:N", title="Donor"),
                    alt.Tooltip("timepoint:N", title="Timepoint"),
                    alt.Tooltip("value:Q", title=f"{metric.title} of this donor", format=".2f"),
                    alt.Tooltip("n_cells:Q", title="Cells", format=","),
                    alt.Tooltip("n_types:Q", title="Types"),
                ],
            )
        )
    if has_lines:
        layers.append(base.mark_line(strokeWidth=2, opacity=0.8).encode(y=y("value")))
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
            y=y("value"),
            shape=shapes,
            tooltip=charts.score_tooltip(metric, rows),
        )
        .add_params(chosen)
    )  # fmt: skip
    around = above + (78 if any("one donor" in label for label in labels) else 60)
    return alt.layer(*layers).properties(height=330, width=760, usermeta={AROUND: around})


def bars_words(scores: pd.DataFrame) -> str:
    """Explain the bars of the picture; nothing where no score has an interval."""
    if scores.low.isna().all():
        return ""
    return "Bars: 95 % intervals, dashed with 5–9 donors, none below 5. "
