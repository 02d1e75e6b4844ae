"""Curves of fits: loss and macro-F1 by epoch, one line a fold."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import altair as alt
import streamlit as st

from app.components import figure, palette, tables

if TYPE_CHECKING:
    import pandas as pd

    from app.state import Source

__all__ = ["curves", "draw"]

_HEIGHT: Final = 240
_DASHES: Final = {"Training loss": [5, 4], "Validation loss": [1, 0]}


def curves(frame: pd.DataFrame, title: str, *, dark: bool) -> alt.LayerChart:
    """Draw one line a fold and measure over epochs.

    Parameters
    ----------
    frame
        Rows of fold, epoch, step, measure and value.
    title
        Of the value axis.
    """
    folds = sorted(frame["fold"].unique(), key=lambda fold: (not fold.isdecimal(), fold))
    is_share = title.endswith("F1")
    measures = [name for name in _DASHES if name in set(frame["measure"])]
    base = alt.Chart(frame).encode(
        x=alt.X(
            "epoch:Q", title="Epoch",
            axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False, padding=8),
        ),
        y=alt.Y(
            "value:Q", title=title,
            scale=alt.Scale(domain=[0, 1]) if is_share else alt.Scale(zero=False),
        ),
        color=alt.Color(
            "fold:N", title="Fold", sort=folds,
            scale=alt.Scale(domain=folds, range=list(palette.FALLBACK)),
            legend=alt.Legend(orient="top", columns=6),
        ),
        tooltip=[
            alt.Tooltip("fold:N", title="Fold"),
            alt.Tooltip("measure:N", title="Measure"),
            alt.Tooltip("epoch:Q", title="Epoch"),
            alt.Tooltip("step:Q", title="Step", format=","),
            alt.Tooltip("value:Q", title="Value", format=".3f"),
            *([alt.Tooltip("n_train:Q", title="Training cells", format=",")]
              if "n_train" in frame else []),
        ],
    )  # fmt: skip
    lines = base.mark_line(strokeWidth=2)
    if len(measures) > 1:
        lines = lines.encode(
            strokeDash=alt.StrokeDash(
                "measure:N", title=None,
                scale=alt.Scale(domain=measures, range=[_DASHES[name] for name in measures]),
                legend=None,
            )
        )  # fmt: skip
    return alt.layer(lines, base.mark_point(filled=True, size=30)).properties(height=_HEIGHT)


def draw(frame: pd.DataFrame, *, name: str, source: Source) -> None:
    """Draw losses and macro-F1 side by side, with their table; nothing for a fit without epochs."""
    if frame.empty:
        return
    is_loss = frame["measure"].isin(list(_DASHES))
    places = st.columns(2)
    for place, part, title in (
        (places[0], frame[is_loss], "Loss"),
        (places[1], frame[~is_loss], "Validation macro-F1"),
    ):
        with place:
            if part.empty:
                st.caption(f"{title}: no validation cells yet.")
                continue
            last = int(part["epoch"].max())
            figure.draw(
                partial(curves, part, title),
                name=f"{name}-{title.split()[-1].lower()}",
                title=title,
                alt_text=f"Line chart of {title.lower()} over {last} epochs, a line for each fold.",
                source=source,
            )
    st.caption("One line a fold. Loss: dashed on training cells, solid on validation cells.")
    tables.show(
        frame,
        name=f"{name}-history",
        alt_text="Loss and macro-F1 of every epoch and fold",
        labels={"fold": "Fold", "epoch": "Epoch", "step": "Step", "measure": "Measure",
                "value": "Value", "n_train": "Training cells"},
        folded="The curves as a table",
        source=source,
    )  # fmt: skip
