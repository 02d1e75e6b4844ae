"""The pictures of Blasts: shares patient by patient, and what malignant states are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np
import pandas as pd

from app.components import palette
from app.components.figure import AROUND, SELECTION
from app.components.words import shortened
from backend.evaluation.f1 import TOP_DONOR_MARK
from backend.evaluation.views import CALLED
from backend.evaluation.wording import plural
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["by_course", "patient_shares", "state_bars"]

_ENDS: Final = {"labelled": "labelled malignant", "called": "called malignant"}
_CALLED_COLOURS: Final = (palette.GREY, palette.SKY, palette.VERMILLION, palette.PURPLE)


def by_course(shares: pd.DataFrame) -> pd.DataFrame:
    """Return rows in clinical order, those with most malignant cells first at each timepoint."""
    places = {name: place for place, name in enumerate(TIMEPOINTS)}
    keys = pd.DataFrame({
        "place": shares.timepoint.map(places).fillna(len(places)),
        "share": -shares.labelled_share,
    })  # fmt: skip
    return shares.loc[keys.sort_values(["place", "share"], kind="stable").index]


def patient_shares(shares: pd.DataFrame, *, donors: Sequence[str], dark: bool) -> alt.LayerChart:
    """Draw the labelled and the predicted malignant share of every patient, joined by a line.

    Parameters
    ----------
    shares
        Rows of one model, with `donor_name`.
    donors
        Order of the rows.
    """
    rows = shares.assign(
        n_found=(shares.predicted_share * shares.n_cells).round(),
        direction=np.where(shares.difference < 0, "too few", "too many"),
    )
    ends = pd.concat(
        [
            rows.assign(end=_ENDS["labelled"], share=rows.labelled_share),
            rows.assign(end=_ENDS["called"], share=rows.predicted_share),
        ]
    )
    y = alt.Y(
        "donor_name:N",
        sort=list(donors),
        title=None,
        scale=alt.Scale(type="point", padding=0.6),
        axis=alt.Axis(labelLimit=240, labelFontSize=12, labelOverlap=False, ticks=False),
    )
    axis = alt.Axis(format="%", values=np.linspace(0, 1, 6).tolist())
    scale = alt.Scale(domain=[0, 1])
    title = "Malignant share of the patient's labelled cells"
    tooltip = [
        alt.Tooltip("donor_name:N", title="Patient"),
        alt.Tooltip("labelled_share:Q", title="Labelled malignant", format=".1%"),
        alt.Tooltip("predicted_share:Q", title="Called malignant", format=".1%"),
        alt.Tooltip("n_malignant:Q", title="Cells labelled malignant", format=","),
        alt.Tooltip("n_cells:Q", title="Labelled cells", format=","),
    ]
    line = (
        alt.Chart(rows)
        .mark_rule(strokeWidth=2.5, opacity=0.75)
        .encode(
            y=y,
            x=alt.X("labelled_share:Q", scale=scale, axis=axis, title=title),
            x2="predicted_share:Q",
            color=alt.Color(
                "direction:N",
                scale=alt.Scale(
                    domain=["too few", "too many"], range=[palette.VERMILLION, palette.BLUE]
                ),
                legend=alt.Legend(
                    orient="bottom",
                    title="The model finds",
                    symbolType="stroke",
                    direction="horizontal",
                ),
            ),
            tooltip=tooltip,
        )
    )
    chosen = alt.selection_point(name=SELECTION, fields=["donor_name"], on="click", empty=False)
    dots = (
        alt.Chart(ends)
        .mark_point(
            size=85, strokeWidth=2, opacity=1, cursor="pointer", color=palette.ink(dark=dark)
        )
        .encode(
            y=y,
            x=alt.X("share:Q", scale=scale, axis=axis, title=title),
            shape=alt.Shape(
                "end:N",
                sort=list(_ENDS.values()),
                scale=alt.Scale(domain=list(_ENDS.values()), range=["circle", "diamond"]),
                legend=alt.Legend(orient="top", title=None, labelLimit=220),
            ),
            fill=alt.condition(
                f"datum.end === '{_ENDS['labelled']}'",
                alt.value(palette.ink(dark=dark)),
                alt.value("transparent"),
            ),
            tooltip=tooltip,
        )
        .add_params(chosen)
    )
    return alt.layer(line, dots).properties(
        height=max(len(donors), 2) * 22, width=620, usermeta={AROUND: 205}
    )


def _support(row: Any) -> str:
    """Return "534 cells, 7 donors" and, on a line of its own, "80% one donor's"."""
    text = f"{plural(int(row.n_label), 'cell')}, {plural(int(row.n_donors), 'donor')}"
    is_one = row.n_donors > 1 and row.top >= TOP_DONOR_MARK
    return f"{text}\n{row.top:.0%} one donor's" if is_one else text


def state_bars(states: pd.DataFrame, *, dark: bool) -> alt.Chart:
    """Draw what the cells of each malignant state are called, as shares of a bar.

    A click selects `label` and `called`.
    """
    rows = states.groupby(["label", "called"], as_index=False, observed=True).agg(
        share=("share", "sum"), n_cells=("n_cells", "sum"), n_label=("n_label", "first"),
        n_donors=("n_label_donors", "first"), top=("label_top_donor_share", "first"),
    )  # fmt: skip
    rows["order"] = rows.called.map({name: index for index, name in enumerate(CALLED)})
    support = rows.drop_duplicates("label").sort_values("n_label", ascending=False)
    names = {row.label: f"{shortened(row.label)}\n{_support(row)}" for row in support.itertuples()}
    rows["state"] = rows.label.map(names)
    chosen = alt.selection_point(
        name=SELECTION, fields=["label", "called"], on="click", empty=False
    )
    return (
        alt.Chart(rows)
        .mark_bar(cursor="pointer", stroke=palette.ink(dark=dark), strokeWidth=0.5)
        .encode(
            y=alt.Y(
                "state:N",
                sort=list(names.values()),
                title=None,
                axis=alt.Axis(
                    labelLimit=240,
                    labelFontSize=11,
                    labelOverlap=False,
                    ticks=False,
                    domain=False,
                    labelExpr="split(datum.label, '\\n')",
                    labelLineHeight=13,
                    # A label of several lines hangs from its first; this sets two or three lines
                    # beside the middle of their bar.
                    labelOffset=-10,
                ),
            ),
            x=alt.X(
                "share:Q",
                stack="zero",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", values=np.linspace(0, 1, 6).tolist()),
                title="Share of the state's cells",
            ),
            order=alt.Order("order:Q"),
            color=alt.Color(
                "called:N",
                sort=list(CALLED),
                scale=alt.Scale(domain=list(CALLED), range=list(_CALLED_COLOURS)),
                legend=alt.Legend(
                    orient="top",
                    title="Called",
                    labelLimit=240,
                    columns=2,
                    symbolSize=150,
                    symbolStrokeWidth=0.5,
                ),
            ),
            tooltip=[
                alt.Tooltip("label:N", title="Labelled"),
                alt.Tooltip("called:N", title="Called"),
                alt.Tooltip("share:Q", title="Share", format=".1%"),
                alt.Tooltip("n_cells:Q", title="Cells", format=",.0f"),
            ],
        )
        .add_params(chosen)
        .properties(height=max(len(names), 2) * 48, width=620, usermeta={AROUND: 190})
    )
