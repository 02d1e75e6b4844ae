"""The same patient before and after: a line per patient, and what changes over all of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import altair as alt
import pandas as pd
import streamlit as st

from app import cache
from app.components import charts, figure, frames, palette, tables
from app.components.figure import AROUND
from app.state import choose_model, choose_one
from backend.evaluation.metrics import metric_of
from backend.evaluation.wording import number, plain, plural, range_text, signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.evaluation.metrics import Metric
    from backend.types import Scope

__all__ = ["change_sentences", "patient_lines", "same_patients"]

_AXES = ("timepoint", "day")


def patient_lines(points: pd.DataFrame, *, by: str, dark: bool) -> alt.LayerChart:
    """Draw a line per patient through the scores of its timepoints or of its single samples.

    Parameters
    ----------
    points
        `by_timepoint` or `by_sample` of `backend.evaluation.views.PatientCourses`.
    by
        "timepoint" or "day": what the horizontal axis is.
    """
    metric = metric_of(points)
    rows = points.dropna(subset=["value"])
    donors = sorted(set(rows.donor))
    timepoints = frames.in_order(rows.timepoint, "timepoint")
    if by == "timepoint":
        x = alt.X("timepoint:N", sort=timepoints, title=None, axis=alt.Axis(labelAngle=0))
    else:
        x = alt.X("day:Q", title="Days from diagnosis")
    y = alt.Y(
        "value:Q", scale=charts.score_scale(metric), axis=charts.score_axis(metric),
        title=metric.title,
    )  # fmt: skip
    colour = alt.Color(
        "donor:N",
        sort=donors,
        scale=alt.Scale(
            domain=donors, range=list(palette.donor_colours(donors, dark=dark).values())
        ),
        legend=alt.Legend(
            title=None, orient="right", symbolLimit=0, columns=1 + (len(donors) - 1) // 12
        ),
    )
    base = alt.Chart(rows).encode(x=x, y=y, color=colour)
    tooltip = [
        alt.Tooltip("donor:N", title="Patient"),
        *([alt.Tooltip("sample:N", title="Sample")] if "sample" in rows else []),
        alt.Tooltip("timepoint:N", title="Timepoint"),
        alt.Tooltip("value:Q", title=metric.title, format=".2f"),
        alt.Tooltip("n_cells:Q", title="Cells", format=","),
        alt.Tooltip("n_types:Q", title="Types"),
    ]
    shape = alt.Shape(
        "timepoint:N",
        sort=timepoints,
        scale=alt.Scale(
            domain=timepoints, range=list(palette.timepoint_shapes(timepoints).values())
        ),
        legend=alt.Legend(title=None, orient="top"),
    )
    line = base.mark_line(strokeWidth=1.8, opacity=0.8).encode(detail="donor:N")
    dots = base.mark_point(
        filled=True, size=75, opacity=1, stroke=palette.ink(dark=dark), strokeWidth=0.6
    ).encode(shape=shape, tooltip=tooltip)
    return alt.layer(line, dots).properties(height=320, width=700, usermeta={AROUND: 110})


def change_sentences(changes: pd.DataFrame, metric: Metric, model: str) -> list[str]:
    """Say how one model changes between two timepoints over the patients of both."""
    sentences = []
    for row in changes.itertuples():
        interval = f" ({range_text(row.low, row.high)})" if pd.notna(row.low) else ""
        note = f"; {row.reason}" if row.reason else ""
        sentences.append(
            f"**{plain(model)}**, {plural(int(row.n_donors), 'patient')} with both, over the "
            f"{plural(int(row.n_types), 'type')} labelled enough at both: {metric.label} "
            f"{number(row.before)} at {row.reference}, {number(row.after)} at {row.timepoint}, "
            f"paired difference {signed(row.difference)}{interval}{note}."
        )
    return sentences


def same_patients(scope: Scope, models: Mapping[str, str], metric: Metric) -> None:
    """Draw the patients that have cells at several timepoints; say so where there are none."""
    st.markdown("##### The same patient before and after")
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        configuration = choose_model(models)
    view = cache.patient_courses(scope, configuration, metric.key)
    if not view.n_donors:
        st.markdown("No patient has cells at more than one timepoint.")
        return
    options: Sequence[str] = _AXES if view.by_sample.day.notna().any() else _AXES[:1]
    with right:
        by = choose_one("Axis", options, key="timepoints.axis")
    model = models[configuration]
    st.markdown("\n".join(f"- {text}" for text in change_sentences(view.changes, metric, model)))
    points = view.by_timepoint if by == "timepoint" else view.by_sample.dropna(subset=["day"])
    if points.value.isna().all():
        st.markdown(
            "No patient has a type with enough labelled cells of its own, so no line is drawn."
        )
        return
    figure.draw(
        partial(patient_lines, points, by=by),
        name=f"{metric.key}-of-patients-by-{by}",
        title=f"{metric.title} of single patients under {model}",
        alt_text=f"A line per patient through its {metric.label} by {by}; "
        f"{plural(view.n_donors, 'patient')}.",
    )
    st.caption(
        "Each dot: one patient's labelled cells, over all types that it has enough of. A patient's "
        "types differ between timepoints, so a line moves with them, too; the paired difference above "
        "is over the same types and patients."
    )
    tables.show(
        points,
        name=f"{metric.key}-of-patients",
        alt_text=f"{metric.title} of single patients by {by}, with cells",
        columns=("donor", "sample", "timepoint", "day", "value", "n_cells", "n_types"),
        labels={"day": "Day"},
        folded="The same numbers as a table",
    )
