"""The pictures of Protocols: scores under each protocol, and the gaps between them."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np
import pandas as pd

from app.components import charts, palette
from app.components.figure import AROUND
from app.state import ordered
from backend.evaluation.metrics import metric_of
from backend.protocols import PROTOCOLS, tested_on

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["by_protocol", "gap_dots", "slopes"]

_HEIGHT: Final = 300
_TEXT: Final = 15
"""Pixels from one line of text to the next."""


def by_protocol(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per protocol instead of one column, protocols that were not run left out."""
    kept = [c for c in rows.columns if c not in PROTOCOLS]
    present = [p for p in PROTOCOLS if p in rows and rows[p].notna().any()]
    long = rows.melt(id_vars=kept, value_vars=present, var_name="protocol", value_name="value")
    return long.dropna(subset=["value"])


def slopes(
    rows: pd.DataFrame,
    *,
    protocols: Sequence[str],
    models: Sequence[str] = (),
    dark: bool,
    title: str = "",
) -> alt.LayerChart:
    """Draw a score under each protocol, one line per model on the same types.

    Parameters
    ----------
    protocols
        Keys, in order from left to right.
    models
        Display names in the order of the legend; those that are not named follow.
    rows
        Long: configuration, display_name, metric, protocol, value, and what the tooltip may show.
    title
        Of the score, when it is not the metric of the rows but one from 0 to 1.
    """
    metric = metric_of(rows)
    scale, axis = charts.score_scale(metric), charts.score_axis(metric)
    rows = rows.assign(protocol=rows.protocol.map(tested_on))
    protocols = [tested_on(key) for key in protocols]
    name_of = dict(zip(rows.configuration, rows.display_name, strict=True))
    names = ordered(name_of.values(), models)
    colours = palette.model_colours(name_of)
    shapes = palette.model_shapes(name_of)
    legend, above = charts.model_legend(names)
    legend.values = names
    base = alt.Chart(rows).encode(
        x=alt.X(
            "protocol:N",
            sort=list(protocols),
            title="Tested on",
            scale=alt.Scale(domain=list(protocols), type="point", padding=0.35),
            axis=alt.Axis(labelAngle=0, labelFontSize=13, grid=True),
        ),
        y=alt.Y("value:Q", scale=scale, axis=axis, title=title or metric.title),
        color=alt.Color(
            "display_name:N",
            scale=alt.Scale(domain=names, range=[colours[n] for n in names]),
            legend=legend,
        ),
    )
    line = base.mark_line(strokeWidth=2.5)
    dot = base.mark_point(
        filled=True, size=150, opacity=1, stroke=palette.ink(dark=dark), strokeWidth=1
    ).encode(
        shape=alt.Shape(
            "display_name:N",
            scale=alt.Scale(domain=names, range=[shapes[n] for n in names]),
            legend=legend,
        ),
        tooltip=[
            alt.Tooltip("display_name:N", title="Model"),
            alt.Tooltip("protocol:N", title="Tested on"),
            alt.Tooltip("value:Q", title=title or metric.title, format=".2f"),
            *(
                alt.Tooltip(f"{field}:Q", title=title, format=",")
                for field, title in (("n_donors", "Donors"), ("n_cells", "Cells"))
                if field in rows
            ),
        ],
    )
    last = rows[rows.protocol == protocols[-1]].dropna(subset=["value"]).sort_values("value").copy()
    last["place"] = _spread(
        last.value.tolist(), gap=_TEXT / _HEIGHT * (metric.range[1] - metric.range[0])
    )
    text = (
        alt.Chart(last)
        .mark_text(align="left", dx=14, fontSize=12, color=palette.ink(dark=dark))
        .encode(
            x=alt.X("protocol:N", sort=list(protocols)),
            y=alt.Y("place:Q", scale=scale),
            text=alt.Text("value:Q", format=".2f"),
        )
    )
    return alt.layer(line, dot, text).properties(
        height=_HEIGHT, width=560, usermeta={AROUND: 80 + above}
    )


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Move ascending values apart so that texts at them do not meet, as little as that takes.

    Texts that would meet stand as one block around the mean of their values.
    """
    blocks: list[list[float]] = []
    for index, value in enumerate(values):
        block = [value - index * gap]
        while blocks and fmean(blocks[-1]) > fmean(block):
            block = blocks.pop() + block
        blocks.append(block)
    places = [fmean(block) for block in blocks for _ in block]
    return [place + index * gap for index, place in enumerate(places)]


def gap_dots(
    gaps: pd.DataFrame, *, name: str, title: str, names: Sequence[str] = (), dark: bool
) -> alt.LayerChart:
    """Draw a difference per row with its interval around a line at 0.

    Parameters
    ----------
    name
        Column of the rows' names, drawn in the order of `names`; `gap`, `low`, `high`, `interval`, `n_cells`, `n_donors` follow.
    """
    rows = charts.with_words(gaps)
    order = ordered(rows[name], names)
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
