"""Charts of single cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt

from app.components import palette
from app.components.selection import AROUND
from app.components.words import unique_texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["probability_bars"]

_MOST: Final = 20
_ROLES: Final = {
    "label and prediction": palette.GREEN,
    "prediction": palette.VERMILLION,
    "label": palette.BLUE,
    "other type": palette.GREY,
}


def probability_bars(
    vector: pd.DataFrame, *, label: str | None, predicted: str, dark: bool
) -> alt.LayerChart:
    """Draw the probability of each type for one cell, at most the 20 largest and the label's."""
    names = vector.cell_type
    rows = vector[(vector.index < _MOST) | (names == label)].copy()
    rows["what"] = "other type"
    rows.loc[rows.cell_type == label, "what"] = "label"
    rows.loc[rows.cell_type == predicted, "what"] = "prediction"
    if label == predicted:
        rows.loc[rows.cell_type == label, "what"] = "label and prediction"
    rows["name"] = unique_texts(rows.cell_type)
    rows["text"] = [f"{p:.2f}" if p >= 0.005 else "<0.01" for p in rows.probability]
    shown = [what for what in _ROLES if what in set(rows.what)]
    base = alt.Chart(rows).encode(
        y=alt.Y(
            "name:N",
            sort=rows.name.tolist(),
            title=None,
            axis=alt.Axis(
                labelLimit=240, labelOverlap=False, labelFontSize=12, ticks=False, domain=False
            ),
        ),
        x=alt.X(
            "probability:Q",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f"),
            title="Probability",
        ),
        tooltip=[
            alt.Tooltip("cell_type:N", title="Type"),
            alt.Tooltip("probability:Q", title="Probability", format=".4f"),
            alt.Tooltip("what:N", title="Is"),
        ],
    )
    bars = base.mark_bar().encode(
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=shown, range=[_ROLES[what] for what in shown]),
            legend=alt.Legend(orient="top", title=None, symbolType="square"),
        )
    )
    texts = base.mark_text(align="left", dx=4, color=palette.ink(dark=dark)).encode(text="text:N")
    return alt.layer(bars, texts).properties(
        height=20 * len(rows), width=560, usermeta={AROUND: 110}
    )
