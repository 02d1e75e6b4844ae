"""The study's two figures with our scores, and what it reports drawn beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import altair as alt
import pandas as pd

from app.components import charts, palette
from app.components.course_lines import course_lines
from app.components.figure import AROUND
from app.components.heatmap import heatmap
from app.state import ordered
from backend.evaluation.metrics import METRICS
from backend.evaluation.views import AVERAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PUBLISHED", "course_beside", "three_averages", "types_beside"]

PUBLISHED: Final = "Published, other run"
"""What stands at every statement of the study: it is no result of ours."""

_DASH: Final = [5, 3]
_HALF: Final = 0.46


def _bands(statements: pd.DataFrame, place: dict[str, float]) -> pd.DataFrame:
    """Return one rectangle a statement with a value: where it stands and what is written on it."""
    rows = statements.dropna(subset=["low_limit"]).drop_duplicates(["model", "timepoint"])
    rows = rows[rows["timepoint"].isin(place)]
    x = rows["timepoint"].map(place)
    return pd.DataFrame(
        {
            "from": x - _HALF,
            "to": x + _HALF,
            "x": x,
            "floor": rows["low_limit"],
            "ceiling": rows["high_limit"],
            "text": rows["model"] + " " + rows["published"] + f"|{PUBLISHED.lower()}",
        }
    )


def _band_layers(
    bands: pd.DataFrame, x_scale: alt.Scale, x_axis: alt.Axis, title: str, *, dark: bool
) -> list[alt.Chart]:
    scale = alt.Scale(domain=[0, 1])
    base = alt.Chart(bands)
    rect = base.mark_rect(
        fill=palette.GREY, fillOpacity=0.1, stroke=palette.ink(dark=dark), strokeDash=_DASH,
        strokeWidth=1.3,
    ).encode(
        x=alt.X("from:Q", scale=x_scale, axis=x_axis), x2="to:Q",
        y=alt.Y("floor:Q", scale=scale, title=title), y2="ceiling:Q",
        tooltip=alt.Tooltip("text:N", title="Not a result of ours"),
    )  # fmt: skip
    ink, x = palette.ink(dark=dark), alt.X("x:Q", scale=x_scale, axis=x_axis)
    # What reaches the top is named above it, in one line: the best scores stand below.
    is_top = bands["ceiling"] == 1
    above = bands[is_top].assign(text=bands["text"].str.replace("|", ", "))
    texts = [
        alt.Chart(part)
        .mark_text(
            fontSize=11, fontStyle="italic", color=ink, baseline=baseline, lineBreak="|",
            lineHeight=13, dy=dy,
        )
        .encode(x=x, y=alt.Y("ceiling:Q", scale=scale), text="text:N")
        for part, baseline, dy in ((above, "bottom", -4), (bands[~is_top], "top", 4))
        if len(part)
    ]  # fmt: skip
    return [rect, *texts]


def _joined(chart: alt.LayerChart, *, under: Sequence[Any] = (), over: Sequence[Any] = ()) -> Any:
    """Put layers under and over those of a chart, at its size; what could be clicked no longer can."""
    layers = []
    for layer in chart.layer:
        own = layer.copy(deep=False)
        # Data that all layers share stand at the chart.
        if own.data is alt.Undefined:
            own.data = chart.data
        layers.append(own)
    made = alt.layer(*under, *layers, *over)
    return made.properties(height=chart.height, width=chart.width, usermeta=chart.usermeta)


def course_beside(
    scores: pd.DataFrame,
    donors: pd.DataFrame,
    statements: pd.DataFrame,
    *,
    timepoints: Sequence[str],
    models: Sequence[str],
    has_lines: bool,
    dark: bool,
) -> alt.LayerChart:
    """Draw F1 by timepoint and model, with the ranges that the study reports as dashed boxes.

    Parameters
    ----------
    statements
        `rows` of `backend.evaluation.views.Published`; those without a value are not drawn.
    """
    chart = course_lines(
        scores, donors, timepoints=timepoints, models=models, has_lines=has_lines, dark=dark
    )
    place = {name: float(index) for index, name in enumerate(timepoints)}
    bands = _bands(statements, place)
    if bands.empty:
        return chart
    first = chart.layer[0].encoding.x
    layers = _band_layers(
        bands, first["scale"], first["axis"], METRICS["macro_f1"].title, dark=dark
    )
    return _joined(chart, under=layers)


def three_averages(
    averages: pd.DataFrame,
    statements: pd.DataFrame,
    *,
    timepoints: Sequence[str],
    configurations: Sequence[tuple[str, str]],
    dark: bool,
) -> alt.LayerChart:
    """Draw accuracy, weighted and macro-F1 side by side, a line per model along the course.

    Parameters
    ----------
    averages
        Of `backend.evaluation.views.averages`.
    configurations
        Key and display name of the models, in the order of the legend.
    """
    width = len(timepoints) + 0.7
    block = {name: index * width for index, name in enumerate(AVERAGES)}
    place = {name: float(index) for index, name in enumerate(timepoints)}
    rows = averages.melt(
        id_vars=["configuration", "display_name", "timepoint", "n_cells", "n_donors", "n_types"],
        value_vars=list(AVERAGES),
        var_name="average",
    )
    rows["x"] = rows["average"].map(block) + rows["timepoint"].map(place)
    rows["average_text"] = rows["average"].map({key: METRICS[key].title for key in AVERAGES})
    shown = [pair for pair in configurations if pair[0] in set(rows["configuration"])]
    names = [name for _, name in shown]
    legend, above = charts.model_legend(names)
    at = {block[key] + place[name]: name for key in AVERAGES for name in timepoints}
    ends = [block[AVERAGES[-1]] + len(timepoints) - 0.4, -0.6]
    x_scale = alt.Scale(domain=ends[::-1], nice=False)
    words = ", ".join(f"'{spot:g}': '{name}'" for spot, name in at.items())
    x_axis = alt.Axis(
        values=[float(f"{spot:g}") for spot in at],
        labelExpr=f"({{{words}}})[format(datum.value, '~r')]",
        labelAngle=-40, labelFontSize=12, labelOverlap=False, grid=False, title=None,
    )  # fmt: skip
    y_scale, y_axis = alt.Scale(domain=[0, 1]), charts.score_axis(METRICS["macro_f1"])
    colours = palette.model_colours(dict(shown))
    shapes = palette.model_shapes(dict(shown))
    base = alt.Chart(rows).encode(
        x=alt.X("x:Q", scale=x_scale, axis=x_axis),
        y=alt.Y("value:Q", scale=y_scale, axis=y_axis, title="Score"),
        color=alt.Color(
            "display_name:N",
            sort=names,
            scale=alt.Scale(domain=names, range=[colours[name] for name in names]),
            legend=legend,
        ),
    )
    line = base.mark_line(strokeWidth=1.6, opacity=0.75).encode(detail="average:N")
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape(
            "display_name:N",
            sort=names,
            scale=alt.Scale(domain=names, range=[shapes[name] for name in names]),
            legend=legend,
        ),
        tooltip=[
            alt.Tooltip("display_name:N", title="Model"),
            alt.Tooltip("timepoint:N", title="Timepoint"),
            alt.Tooltip("average_text:N", title="Average"),
            alt.Tooltip("value:Q", title="Score", format=".2f"),
            alt.Tooltip("n_donors:Q", title="Donors", format=","),
            alt.Tooltip("n_cells:Q", title="Cells", format=","),
            alt.Tooltip("n_types:Q", title="Types"),
        ],
    )
    titles = pd.DataFrame(
        {
            "x": [start + (len(timepoints) - 1) / 2 for start in block.values()],
            "text": [METRICS[key].title for key in block],
        }
    )
    heads = (
        alt.Chart(titles)
        .mark_text(fontSize=14, fontWeight=600, baseline="bottom", color=palette.ink(dark=dark))
        .encode(x=alt.X("x:Q", scale=x_scale, axis=x_axis), y=alt.value(-6), text="text:N")
    )
    empty = [
        {"x": spot, "text": "no data"}
        for spot, name in at.items()
        if name not in set(rows.timepoint)
    ]
    nothing = (
        alt.Chart(pd.DataFrame(empty, columns=["x", "text"]))
        .mark_text(fontSize=12, angle=270, color=palette.ink(dark=dark))
        .encode(x=alt.X("x:Q", scale=x_scale, axis=x_axis), y=alt.datum(0.4), text="text:N")
    )
    # The study does not say which average of F1 it took, so its ranges stand at both.
    spots = {key: {name: block[key] + spot for name, spot in place.items()} for key in AVERAGES[1:]}
    bands = pd.concat([_bands(statements, spot) for spot in spots.values()], ignore_index=True)
    boxes = _band_layers(bands, x_scale, x_axis, "Score", dark=dark)[:1] if len(bands) else []
    return alt.layer(*boxes, line, dots, heads, nothing).properties(
        height=260, width=760, usermeta={AROUND: 130 + above}
    )


def types_beside(
    scores: pd.DataFrame,
    statements: pd.DataFrame,
    *,
    rows: Sequence[str],
    models: Sequence[str],
    dark: bool,
) -> alt.LayerChart:
    """Draw F1 by type and model, and what the study says of a type in a column of its own."""
    said = statements[
        (statements["cell_type"] != "") & statements["cell_type"].isin(list(rows))
    ].drop_duplicates("cell_type")
    columns = [*ordered(scores["column"], models), PUBLISHED]
    chart = heatmap(
        scores,
        row="cell_type",
        column="column",
        rows=rows,
        columns=columns if len(said) else columns[:-1],
        row_title="Cell type",
        column_title="Model",
        dark=dark,
    )
    if said.empty:
        return chart
    first = chart.layer[0].encoding
    base = alt.Chart(said.assign(column=PUBLISHED)).encode(x=first.x, y=first.y)
    box = base.mark_rect(
        fill="transparent", stroke=palette.ink(dark=dark), strokeDash=_DASH, strokeWidth=1.3
    ).encode(tooltip=alt.Tooltip("note:N", title=PUBLISHED))
    text = base.mark_text(fontSize=12, fontStyle="italic", color=palette.ink(dark=dark)).encode(
        text="published:N"
    )
    return _joined(chart, over=(box, text))
