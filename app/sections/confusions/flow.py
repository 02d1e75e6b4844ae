"""The flow from label to prediction: a ribbon for each pair, as wide as its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np
import pandas as pd

from app.components import palette
from app.components.figure import AROUND, SELECTION
from app.components.words import unique_texts
from app.sections.confusions.charts import KIND_COLOURS, OTHERS, folded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.evaluation.views import Confusions

__all__ = ["MOST_RIBBONS", "flow", "flow_words"]

MOST_RIBBONS: Final = 60
"""Ribbons that are drawn; the smallest beyond are named in words."""

_STEPS: Final = 17
_LINE: Final = 15.0
"""Height of a line of text, in pixels."""

_BAR: Final = 0.025
_TEXT: Final = 0.34
"""Room for the names on each side, as a share of the ribbons' width."""


def _pairs(view: Confusions, types: Sequence[str], *, mistakes: bool) -> pd.DataFrame:
    """Return the pairs that are drawn, the largest first."""
    _, cells = folded(view, types, mistakes=mistakes)
    return cells.sort_values("n_cells", ascending=False, kind="stable").head(MOST_RIBBONS)


def flow_words(view: Confusions, types: Sequence[str], *, mistakes: bool) -> str:
    """Say how many cells the flow shows, and what it leaves out."""
    _, cells = folded(view, types, mistakes=mistakes)
    total, drawn = int(cells["n_cells"].sum()), _pairs(view, types, mistakes=mistakes)
    what = "wrong cells" if mistakes else "labelled cells"
    words = f"The flow shows {int(drawn['n_cells'].sum()):,} of {total:,} {what}"
    if len(drawn) < len(cells):
        words += f": the {len(drawn)} largest of {len(cells)} ribbons"
    return words + "."


def _places(sizes: pd.Series, free: float) -> pd.DataFrame:
    """Return `top`, `middle` and `bottom` of each type's bar, in order.

    Bars share `free` pixels by size; between two of them is a line of text, so no names meet.
    """
    bars = sizes.to_numpy(dtype=float) / max(float(sizes.sum()), 1.0) * free
    top = np.concatenate([[0.0], np.cumsum(bars + _LINE)[:-1]]) + _LINE / 2
    return pd.DataFrame(
        {"top": top, "middle": top + bars / 2, "bottom": top + bars}, index=sizes.index
    )


def flow(
    view: Confusions,
    *,
    types: Sequence[str],
    mistakes: bool,
    picked: Mapping[str, Sequence[str]],
    dark: bool,
) -> alt.LayerChart:
    """Draw ribbons from label (left) to prediction (right); a click selects both.

    Parameters
    ----------
    types
        Order of the types from top to bottom.
    mistakes
        Leave correct calls out.
    picked
        `label` and `predicted` that are selected; their ribbons stand out.
    """
    pairs = _pairs(view, types, mistakes=mistakes)
    order = [*types, OTHERS]
    left = [name for name in order if name in set(pairs["label"])]
    right = [name for name in order if name in set(pairs["predicted"])]
    height = max(25.0 * max(len(left), len(right)), 160.0)
    sizes = [
        pairs.groupby(side)["n_cells"].sum().reindex(names)
        for side, names in (("label", left), ("predicted", right))
    ]
    # One scale for both sides, so that a ribbon is as wide where it ends as where it starts.
    free = height - max(len(left), len(right)) * _LINE
    places = [_places(size, free) for size in sizes]
    ribbons = _ribbons(pairs, left, right, places, free)
    is_picked = np.full(len(ribbons), bool(any(picked.values())))
    for column in ("label", "predicted"):
        if picked.get(column):
            is_picked &= ribbons[column].isin(picked[column]).to_numpy()
    ribbons["is_picked"] = is_picked
    bottom = max(float(place["bottom"].max()) for place in places) + _LINE
    y_scale = alt.Scale(domain=[bottom, 0], nice=False)
    x_scale = alt.Scale(domain=[-_TEXT, 1 + _TEXT], nice=False)
    x = alt.X("x:Q", scale=x_scale, axis=None)
    present = [kind for kind in KIND_COLOURS if kind in set(ribbons["kind"])]
    chosen = alt.selection_point(
        name=SELECTION, fields=["label", "predicted"], on="click", empty=False
    )
    area = (
        alt.Chart(ribbons)
        .mark_area(cursor="pointer", stroke=palette.ink(dark=dark))
        .encode(
            x=x,
            y=alt.Y("y:Q", scale=y_scale, axis=None),
            y2="y2:Q",
            detail="pair:N",
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=present, range=[KIND_COLOURS[kind] for kind in present]),
                legend=alt.Legend(
                    orient="bottom", title=None, symbolType="square", columns=2, labelLimit=260,
                    symbolOpacity=1, symbolStrokeWidth=0,
                ),
            ),
            opacity=alt.condition("datum.is_picked", alt.value(0.95), alt.value(0.6)),
            strokeWidth=alt.condition("datum.is_picked", alt.value(1.5), alt.value(0)),
            tooltip=[
                alt.Tooltip("label:N", title="Label"),
                alt.Tooltip("predicted:N", title="Predicted"),
                alt.Tooltip("n_cells:Q", title="Cells", format=","),
                alt.Tooltip("donors:N", title="Donors"),
                alt.Tooltip("row_share:Q", title="Of the label", format=".1%"),
                alt.Tooltip("kind:N", title="Kind"),
            ],
        )
        .add_params(chosen)
    )  # fmt: skip
    layers = [area]
    for place, size, names, edge, align in (
        (places[0], sizes[0], left, 0.0, "right"),
        (places[1], sizes[1], right, 1.0, "left"),
    ):
        sign = -1 if align == "right" else 1
        nodes = place.assign(
            x=edge,
            x2=edge + sign * _BAR,
            text_x=edge + sign * 2 * _BAR,
            text=[
                f"{text} ({int(size[name]):,})"
                for name, text in zip(names, unique_texts(names, 16), strict=True)
            ],
        )
        base = alt.Chart(nodes).encode(y=alt.Y("top:Q", scale=y_scale, axis=None))
        layers.append(
            base.mark_rect(color=palette.ink(dark=dark)).encode(x=x, x2="x2:Q", y2="bottom:Q")
        )
        layers.append(
            alt.Chart(nodes)
            .mark_text(align=align, color=palette.ink(dark=dark), fontSize=12)
            .encode(
                x=alt.X("text_x:Q", scale=x_scale, axis=None),
                y=alt.Y("middle:Q", scale=y_scale, axis=None),
                text="text:N",
            )
        )
    return alt.layer(*layers).properties(height=int(bottom), width=420, usermeta={AROUND: 60})


def _ribbons(
    pairs: pd.DataFrame,
    left: Sequence[str],
    right: Sequence[str],
    places: Sequence[pd.DataFrame],
    free: float,
) -> pd.DataFrame:
    """Return the edges of each ribbon: `_STEPS` points with upper and lower side."""
    total = max(int(pairs["n_cells"].sum()), 1)
    place_of = {name: i for i, name in enumerate(left)}, {name: i for i, name in enumerate(right)}
    pairs = pairs.assign(
        start=pairs["label"].map(place_of[0]), end=pairs["predicted"].map(place_of[1])
    )
    pairs["thick"] = pairs["n_cells"] / total * free
    from_left = pairs.sort_values(["start", "end"])
    above = from_left.groupby("start")["thick"].cumsum() - from_left["thick"]
    pairs["y_left"] = above + from_left["label"].map(places[0]["top"])
    from_right = pairs.sort_values(["end", "start"])
    above = from_right.groupby("end")["thick"].cumsum() - from_right["thick"]
    pairs["y_right"] = above + from_right["predicted"].map(places[1]["top"])
    at = np.linspace(0.0, 1.0, _STEPS)
    bend = at * at * (3 - 2 * at)
    kept = ["label", "predicted", "n_cells", "donors", "row_share", "kind"]
    ribbons = pairs.loc[pairs.index.repeat(_STEPS), kept].reset_index(drop=True)
    ribbons["pair"] = np.repeat(np.arange(len(pairs)), _STEPS)
    ribbons["x"] = np.tile(at, len(pairs))
    y_left, y_right = (pairs[name].to_numpy(dtype=float)[:, None] for name in ("y_left", "y_right"))
    upper = y_left * (1 - bend) + y_right * bend
    ribbons["y"] = upper.ravel()
    # Half a pixel at least, so that no ribbon is lost.
    thick = np.maximum(pairs["thick"].to_numpy(dtype=float), 0.5)
    ribbons["y2"] = (upper + thick[:, None]).ravel()
    return ribbons
