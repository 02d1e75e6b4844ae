"""What is mistaken for what: a matrix, a flow, and where two models disagree.

Colour says the kind of error, strength how much of it there is. Rows with fewer than 20 cells or 3
donors are grey. Names of types are data from outside: they are shortened, kept apart, and never
part of an expression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np

from app.components import palette
from app.components.figure import AROUND, SELECTION
from app.components.heatmap import FEW_DONORS
from app.components.words import unique_texts
from backend.data.labels import chart_order
from backend.evaluation.description import is_few_donors, is_grey
from backend.evaluation.outcomes import CORRECT
from backend.evaluation.views import AGREEMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from backend.evaluation.views import Confusions, Disagreement

__all__ = [
    "AGREEMENT_COLOURS",
    "KIND_COLOURS",
    "MOST_TYPES",
    "OTHERS",
    "Numbers",
    "agreement_grid",
    "folded",
    "matrix",
    "meant_by",
    "ordered_types",
]

KIND_COLOURS: Final = {
    "correct": palette.GREY,
    "malignant ↔ normal": palette.PURPLE,
    "same lineage family": palette.BLUE,
    "other lineage family": palette.VERMILLION,
    "family unknown": palette.OLIVE,
    "several kinds": palette.SKY,
}
AGREEMENT_COLOURS: Final = dict(
    zip(
        AGREEMENTS,
        (palette.GREY, palette.BLUE, palette.GREEN, palette.PURPLE, palette.VERMILLION),
        strict=True,
    )
)

MOST_TYPES: Final = 30
"""Types that a picture shows; the smallest beyond are one row and column, and all in the table."""

OTHERS: Final = "other types\u2060"
"""Name of the types that a picture folds; no type of a dataset bears it."""

SEVERAL: Final = "several kinds"
"""Kind of folded pairs of more than one kind."""

_BACKGROUND: Final = {False: (255, 255, 255), True: (23, 22, 20)}
_WEAKEST: Final = 0.14

Numbers = {
    "n_cells": "Cells",
    "row_share": "% of label",
    "column_share": "% of prediction",
}
"""What the cells of a matrix can show, and its name."""


def ordered_types(view: Confusions, by: str) -> list[str]:
    """Return the labels and predictions of a view, by `size` or `lineage`.

    Types that are predicted but not labelled come last.
    """
    labels = view.labels["cell_type"].tolist()
    absent = view.predictions.loc[view.predictions["is_absent"], "cell_type"].tolist()
    if by == "lineage":
        labels, absent = (sorted(names, key=chart_order) for names in (labels, absent))
    return [*labels, *absent]


def _kept(view: Confusions, types: Sequence[str]) -> set[str]:
    """Return the types that a picture names: all, or the largest up to `MOST_TYPES` - 1."""
    if len(types) <= MOST_TYPES:
        return set(types)
    size = view.labels.set_index("cell_type")["n_cells"]
    return set(sorted(types, key=lambda name: -int(size.get(name, 0)))[: MOST_TYPES - 1])


def meant_by(view: Confusions, types: Sequence[str], name: str) -> list[str]:
    """Return the types that a name in a picture stands for."""
    if name != OTHERS:
        return [name]
    kept = _kept(view, types)
    return [other for other in types if other not in kept]


def folded(
    view: Confusions, types: Sequence[str], *, mistakes: bool = False
) -> tuple[list[str], pd.DataFrame]:
    """Return the types of a picture and its cells, small types beyond `MOST_TYPES` in one.

    Parameters
    ----------
    mistakes
        Leave correct calls out.

    Returns
    -------
    types
        In their order, `OTHERS` last where types are folded.
    cells
        As in the view, and `donors`: their number as text.
    """
    cells = view.cells[view.cells["kind"] != CORRECT] if mistakes else view.cells
    kept = _kept(view, types)
    if len(kept) == len(types):
        return list(types), cells.assign(donors=[f"{n:,}" for n in cells["n_donors"]])
    names = {
        side: cells[side].where(cells[side].isin(kept), OTHERS) for side in ("label", "predicted")
    }
    grouped = cells.assign(**names).groupby(["label", "predicted"], sort=False)
    summed = grouped[["n_cells"]].sum()
    first, last = grouped["kind"].min(), grouped["kind"].max()
    summed["kind"] = first.where(first == last, SEVERAL)
    # Donors of different types may be the same ones: their numbers cannot be added.
    most, n_pairs = grouped["n_donors"].max(), grouped.size()
    summed["donors"] = [
        f"{n:,}" if pairs == 1 else f"at least {n:,}"
        for n, pairs in zip(most, n_pairs, strict=True)
    ]
    summed = summed.reset_index()
    for side, share in (("label", "row_share"), ("predicted", "column_share")):
        of_all = view.cells.assign(name=view.cells[side].where(view.cells[side].isin(kept), OTHERS))
        totals = of_all.groupby("name")["n_cells"].sum()
        summed[share] = summed["n_cells"] / summed[side].map(totals)
    return [*(name for name in types if name in kept), OTHERS], summed


def _share_text(share: float) -> str:
    percent = 100 * share
    return "<1" if 0 < percent < 0.5 else f"{percent:.0f}"


def _inks(colours: Sequence[str], strengths: np.ndarray, *, dark: bool) -> list[str]:
    """Return black or white, whichever stands out on a colour laid over the page."""
    page = np.array(_BACKGROUND[dark], dtype=float)
    inks = []
    for colour, strength in zip(colours, strengths, strict=True):
        top = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)
        mixed = (strength * top + (1 - strength) * page) / 255
        linear = np.where(mixed <= 0.04045, mixed / 12.92, ((mixed + 0.055) / 1.055) ** 2.4)
        light = float(linear @ (0.2126, 0.7152, 0.0722))
        inks.append("black" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "white")
    return inks


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """A table of coloured cells: which rows and columns, what they say, and what a click gives."""

    rows: Mapping[str, str]
    columns: Mapping[str, str]
    row: str
    column: str
    category: str
    colours: Mapping[str, str]
    row_title: str
    column_title: str
    tooltip: Sequence[alt.Tooltip]
    angle: int
    has_legend: bool = True


def _draw(data: pd.DataFrame, grid: _Grid, *, dark: bool) -> alt.LayerChart:
    """Draw `data`, which has `strength`, `text`, `is_grey` and `is_picked` beside the grid's."""
    data = data.copy()
    data["row_text"] = data[grid.row].map(grid.rows)
    data["column_text"] = data[grid.column].map(grid.columns)
    fills = np.where(data["is_grey"], palette.SMALL, data[grid.category].map(grid.colours))
    data["ink"] = _inks(fills, data["strength"].to_numpy(dtype=float), dark=dark)
    rows, columns = list(grid.rows.values()), list(grid.columns.values())
    longest = max(map(len, columns), default=0)
    present = [name for name in grid.colours if name in set(data[grid.category])]
    base = alt.Chart(data).encode(
        x=alt.X(
            "column_text:N",
            sort=columns,
            title=grid.column_title,
            scale=alt.Scale(domain=columns, paddingInner=0.06, paddingOuter=0),
            axis=alt.Axis(
                orient="top", labelAngle=grid.angle, labelLimit=210, labelOverlap=False,
                labelFontSize=12, ticks=False, domain=False, labelPadding=6, labelFlush=False,
            ),
        ),
        y=alt.Y(
            "row_text:N",
            sort=rows,
            title=grid.row_title,
            scale=alt.Scale(domain=rows, paddingInner=0.06, paddingOuter=0),
            axis=alt.Axis(
                labelLimit=240, labelOverlap=False, labelFontSize=12, ticks=False, domain=False,
                labelFlush=False,
            ),
        ),
    )  # fmt: skip
    legend = alt.Legend(
        orient="bottom", title=None, symbolType="square", columns=2, labelLimit=260,
        symbolOpacity=1, symbolStrokeWidth=0,
    )  # fmt: skip
    chosen = alt.selection_point(
        name=SELECTION, fields=[grid.row, grid.column], on="click", empty=False
    )
    rect = (
        base.mark_rect(cursor="pointer", stroke=palette.ink(dark=dark))
        .encode(
            color=alt.condition(
                "datum.is_grey",
                alt.value(palette.SMALL),
                alt.Color(
                    f"{grid.category}:N",
                    scale=alt.Scale(domain=present, range=[grid.colours[n] for n in present]),
                    legend=legend if grid.has_legend else None,
                ),
            ),
            fillOpacity=alt.FillOpacity("strength:Q", scale=None, legend=None),
            strokeWidth=alt.condition("datum.is_picked", alt.value(2.5), alt.value(0)),
            tooltip=list(grid.tooltip),
        )
        .add_params(chosen)
    )  # fmt: skip
    cell = f"width / {max(len(columns), 1)}"
    text = base.mark_text(
        fontSize=alt.expr(f"clamp(0.36 * {cell}, 8, 12)"),
        opacity=alt.expr(f"{cell} < 17 ? 0 : 1"),
    ).encode(
        text="text:N",
        color=alt.condition("datum.ink === 'white'", alt.value("white"), alt.value("black")),
    )
    return alt.layer(rect, text).properties(
        height=max(len(rows), 2) * 25,
        width=max(320, len(columns) * 36),
        usermeta={
            AROUND: 76 + (14 if grid.angle == 0 else (7 if grid.angle == -90 else 6) * longest)
        },
    )


def matrix(
    view: Confusions,
    *,
    types: Sequence[str],
    numbers: str,
    picked: Mapping[str, Sequence[str]],
    dark: bool,
) -> alt.LayerChart:
    """Draw labels against predictions; a click selects `label` and `predicted`.

    Parameters
    ----------
    types
        Order of rows and columns, see `ordered_types`.
    numbers
        Key of `Numbers`.
    picked
        `label` and `predicted` that are selected; their cells are outlined.
    """
    shown, data = folded(view, types)
    values = data[numbers].to_numpy(dtype=float)
    full = values.max() if numbers == "n_cells" and len(values) else 1.0
    # Counts differ by orders of magnitude: their root keeps small ones visible.
    relative = np.sqrt(values / full) if numbers == "n_cells" else values
    is_picked = np.ones(len(data), dtype=bool)
    for column in ("label", "predicted"):
        if picked.get(column):
            is_picked &= data[column].isin(picked[column]).to_numpy()
    data = data.assign(
        strength=_WEAKEST + (1 - _WEAKEST) * relative,
        text=[f"{int(v):,}" if numbers == "n_cells" else _share_text(v) for v in values],
        is_picked=is_picked & any(picked.values()),
    )
    counts = view.labels.set_index("cell_type")
    n_of = counts["n_cells"].to_dict()
    data["is_grey"] = is_grey(data["label"].map(n_of).fillna(np.inf))
    few = dict(zip(counts.index, is_few_donors(counts["n_donors"]), strict=True))
    unable = set(counts.index[counts["n_folds_able"] == 0])
    absent = set(view.predictions.loc[view.predictions["is_absent"], "cell_type"])
    in_rows = [name for name in shown if name in set(data["label"])]
    row_names = [f"⊘ {name}" if name in unable else name for name in in_rows]
    column_names = [f"∅ {name}" if name in absent else name for name in shown]
    row_texts = [
        f"{text} ({n_of[name]:,}){FEW_DONORS * bool(few[name])}" if name in n_of else text
        for name, text in zip(in_rows, unique_texts(row_names, 24), strict=True)
    ]
    grid = _Grid(
        rows=dict(zip(in_rows, row_texts, strict=True)),
        columns=dict(zip(shown, unique_texts(column_names, 24), strict=True)),
        row="label",
        column="predicted",
        category="kind",
        colours=KIND_COLOURS,
        row_title="Label (cells)",
        column_title="Predicted as",
        # On a narrow page slanted names of more columns run into each other.
        angle=-45 if len(shown) <= 18 else -90,
        tooltip=[
            alt.Tooltip("label:N", title="Label"),
            alt.Tooltip("predicted:N", title="Predicted"),
            alt.Tooltip("n_cells:Q", title="Cells", format=","),
            alt.Tooltip("donors:N", title="Donors"),
            alt.Tooltip("row_share:Q", title="Of the label", format=".1%"),
            alt.Tooltip("column_share:Q", title="Of the prediction", format=".1%"),
            alt.Tooltip("kind:N", title="Kind"),
        ],
    )
    return _draw(data, grid, dark=dark)


def agreement_grid(
    view: Disagreement,
    *,
    names: Mapping[str, str],
    order: Sequence[str],
    picked: Mapping[str, Sequence[str]],
    dark: bool,
) -> alt.LayerChart:
    """Draw per type on how many cells both, one or none of two models is right.

    A click selects `cell_type` and `agreement`.

    Parameters
    ----------
    names
        Agreement to what the column is called.
    order
        Types in the order of rows; at most `MOST_TYPES` of them are drawn.
    """
    types = view.types
    size = types.groupby("cell_type")["n_cells"].sum()
    largest = set(size.sort_values(ascending=False, kind="stable").index[:MOST_TYPES])
    shown = [name for name in order if name in largest]
    data = types[types["cell_type"].isin(shown)]
    is_picked = np.zeros(len(data), dtype=bool)
    if picked.get("agreement"):
        is_picked = data["agreement"].isin(picked["agreement"]).to_numpy()
        if picked.get("cell_type"):
            is_picked &= data["cell_type"].isin(picked["cell_type"]).to_numpy()
    data = data.assign(
        strength=_WEAKEST + (1 - _WEAKEST) * data["row_share"],
        text=[f"{n:,}" for n in data["n_cells"]],
        is_picked=is_picked,
        is_grey=is_grey(data["cell_type"].map(size)),
    )
    few = types["is_small"] & ~is_grey(types["cell_type"].map(size))
    marked = set(types.loc[few, "cell_type"])
    row_texts = [
        f"{text} ({size[name]:,}){FEW_DONORS * (name in marked)}"
        for name, text in zip(shown, unique_texts(shown, 24), strict=True)
    ]
    grid = _Grid(
        rows=dict(zip(shown, row_texts, strict=True)),
        columns=dict(zip(AGREEMENTS, unique_texts(names.values(), 34), strict=True)),
        row="cell_type",
        column="agreement",
        category="agreement",
        colours=AGREEMENT_COLOURS,
        row_title="Label (cells)",
        column_title="",
        angle=-25,
        tooltip=_agreement_tooltip(),
        has_legend=False,
    )
    return _draw(data, grid, dark=dark)


def _agreement_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("cell_type:N", title="Label"),
        alt.Tooltip("column_text:N", title="Models"),
        alt.Tooltip("n_cells:Q", title="Cells", format=","),
        alt.Tooltip("n_donors:Q", title="Donors", format=","),
        alt.Tooltip("row_share:Q", title="Of the label", format=".1%"),
    ]
