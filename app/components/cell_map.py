"""The failure map: a UMAP with failures on top of the cells that are called correctly.

At most `MAX_POINTS` cells are drawn. All failures come first, then a sample of the others that
is even over types and timepoints; what was left out is said in words, and numbers use all cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np

from app.components import palette

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

__all__ = ["COLOUR_BY", "FAILED", "MAX_POINTS", "Drawn", "cell_map", "choose_cells"]

MAX_POINTS: Final = 12_000
FAILED: Final = ("wrong", "confidently wrong")
COLOUR_BY: Final = ("outcome", "label", "predicted", "donor", "timepoint")

_SEED: Final = 0
_DRAW_ORDER: Final = {"not scored": 0, "correct": 1, "wrong": 2, "confidently wrong": 3}


@dataclass(frozen=True)
class Drawn:
    """The cells on the map and how they were chosen, in words."""

    cells: pd.DataFrame
    words: str


def _even_sample(cells: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return `n` cells, as even over label and timepoint as their sizes allow."""
    rng = np.random.default_rng(_SEED)
    shuffled = cells.iloc[rng.permutation(len(cells))]
    turn = shuffled.groupby(["label", "timepoint"], dropna=False, observed=True).cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:n]]


def choose_cells(cells: pd.DataFrame, limit: int = MAX_POINTS) -> Drawn:
    """Choose at most `limit` cells to draw: failures first, then an even sample of the rest.

    The result is in drawing order, failures last, so that they lie on top.
    """
    failed = cells[cells.outcome.isin(FAILED)]
    rest = cells[~cells.outcome.isin(FAILED)]
    n_failed, n_rest = len(failed), len(rest)
    if n_failed > limit:
        failed = _even_sample(failed, limit)
    rest = _even_sample(rest, min(n_rest, limit - len(failed)))
    order = np.concatenate([rest.index.to_numpy(), failed.index.to_numpy()])
    drawn = cells.loc[order]
    drawn = drawn.iloc[np.argsort(drawn.outcome.astype(str).map(_DRAW_ORDER), kind="stable")]
    if len(drawn) == len(cells):
        words = f"All {len(cells):,} cells drawn, failures on top."
    else:
        words = (
            f"{len(failed):,} of {n_failed:,} failures and {len(rest):,} of {n_rest:,} other "
            "cells drawn, sampled evenly over types and timepoints; all numbers use all cells."
        )
    return Drawn(drawn, words)


def _scale(colour_by: str, cells: pd.DataFrame, families: Mapping[str, str]) -> dict[str, str]:
    """Return category → colour in legend order."""
    values = sorted(cells[colour_by].dropna().astype(str).unique())
    if colour_by == "outcome":
        return {o: c for o, c in palette.outcome_colours().items() if o in values}
    if colour_by in {"label", "predicted"}:
        ordered = sorted(values, key=lambda v: (families.get(v, "Other"), v))
        return palette.type_colours({v: families.get(v, "Other") for v in ordered})
    if colour_by == "timepoint":
        return palette.timepoint_colours(values)
    return palette.donor_colours(values)


def cell_map(
    cells: pd.DataFrame,
    *,
    colour_by: str,
    counts: Mapping[str, int],
    families: Mapping[str, str],
    facet_by_timepoint: bool,
    timepoints: list[str],
    dark: bool,
) -> alt.TopLevelMixin:
    """Draw cells at their display coordinates.

    Parameters
    ----------
    cells
        In drawing order, as `choose_cells` returns them.
    counts
        Category → number of cells in scope, written in the legend.
    families
        Cell type → family, for the colours of types.
    """
    colours = _scale(colour_by, cells, families)
    legend_text = {k: f"{k} ({counts.get(k, 0):,})" for k in colours}
    columns = ["umap_x", "umap_y", "cell_id", "label", "predicted", "confidence", "donor"]
    data = cells[[*columns, "timepoint", "outcome"]].copy()
    data[["umap_x", "umap_y"]] = data[["umap_x", "umap_y"]].astype(float).round(3)
    data["confidence"] = data.confidence.astype(float).round(3)
    data = data.astype(dict.fromkeys(("label", "predicted", "donor", "timepoint"), object))
    data["outcome"] = data.outcome.astype(str)
    data["timepoint"] = data.timepoint.where(data.timepoint.notna(), "no timepoint")
    data["category"] = data[colour_by].map(legend_text).astype(object).fillna("not labelled")
    data["is_failure"] = data.outcome.isin(FAILED)
    domain = list(legend_text.values())
    values = list(colours.values())
    if "not labelled" in set(data.category):
        domain, values = [*domain, "not labelled"], [*values, palette.SMALL]
    shapes = palette.outcome_shapes()
    outcomes = [o for o in palette.OUTCOMES if o in set(data.outcome)]
    is_outcome = colour_by == "outcome"
    few = len(domain) <= 4
    legend = alt.Legend(
        orient="top" if few or facet_by_timepoint else "right",
        title=None,
        symbolType="circle",
        symbolSize=80,
        symbolOpacity=1,
        labelLimit=220,
        columns=2 if few else 4 if facet_by_timepoint else 1 + len(domain) // 24,
    )
    shape_domain = [legend_text.get(o, o) for o in outcomes] if is_outcome else outcomes
    shape = alt.Shape(
        "category:N" if is_outcome else "outcome:N",
        scale=alt.Scale(domain=shape_domain, range=[shapes[o] for o in outcomes]),
        legend=legend if is_outcome else None,
    )
    if is_outcome:
        legend = alt.Legend(**{k: v for k, v in legend.to_dict().items() if k != "symbolType"})
        shape.legend = legend
    x_domain = _padded(data.umap_x)
    y_domain = _padded(data.umap_y)
    n_facets = max(len(timepoints), 1) if facet_by_timepoint else 1
    size = 26 if len(data) < 6_000 else 14
    chart = (
        alt.Chart(data)
        .mark_point(filled=True, strokeWidth=0)
        .encode(
            x=alt.X("umap_x:Q", scale=alt.Scale(domain=x_domain, nice=False), axis=_no_axis("1")),
            y=alt.Y("umap_y:Q", scale=alt.Scale(domain=y_domain, nice=False), axis=_no_axis("2")),
            color=alt.Color(
                "category:N", scale=alt.Scale(domain=domain, range=values), legend=legend
            ),
            shape=shape,
            size=alt.condition("datum.is_failure", alt.value(size * 1.8), alt.value(size)),
            opacity=alt.condition("datum.is_failure", alt.value(0.9), alt.value(0.45)),
            tooltip=[
                alt.Tooltip("cell_id:N", title="Cell"),
                alt.Tooltip("label:N", title="Label"),
                alt.Tooltip("predicted:N", title="Predicted"),
                alt.Tooltip("confidence:Q", title="Confidence", format=".2f"),
                alt.Tooltip("outcome:N", title="Outcome"),
                alt.Tooltip("donor:N", title="Donor"),
                alt.Tooltip("timepoint:N", title="Timepoint"),
            ],
        )
        .properties(height=520 if n_facets == 1 else 330, width=700 if n_facets == 1 else 330)
    )
    if not facet_by_timepoint:
        is_type = colour_by in {"label", "predicted"}
        return _named(chart, cells, colour_by, dark=dark) if is_type else chart
    order = [t for t in timepoints if t in set(data.timepoint)]
    return chart.facet(
        facet=alt.Facet("timepoint:N", sort=order, title=None, header=alt.Header(labelFontSize=13)),
        columns=2,
    )


def _named(chart: alt.Chart, cells: pd.DataFrame, column: str, *, dark: bool) -> alt.LayerChart:
    """Write each type's name on its cells: so many colours cannot be told apart by hue alone."""
    named = cells.dropna(subset=[column])
    places = (
        named.assign(name=named[column].astype(str))
        .groupby("name", as_index=False)[["umap_x", "umap_y"]]
        .median()
    )
    base = alt.Chart(places).encode(x="umap_x:Q", y="umap_y:Q", text="name:N")
    halo = base.mark_text(
        fontSize=12, fontWeight=600, stroke="#171614" if dark else "white", strokeWidth=3.5
    )
    name = base.mark_text(fontSize=12, fontWeight=600, color=palette.ink(dark=dark))
    return alt.layer(chart, halo, name).properties(height=chart.height, width=chart.width)


def _padded(values: pd.Series) -> list[float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.03 * (high - low) or 1.0
    return [low - margin, high + margin]


def _no_axis(number: str) -> alt.Axis:
    """Name the axis without ticks: UMAP distances have no unit."""
    return alt.Axis(labels=False, ticks=False, grid=False, title=f"UMAP {number}")
