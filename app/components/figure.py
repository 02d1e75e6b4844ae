"""One way to put a chart on a page: heading, simulated mark, alt text, picture downloads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import altair as alt
import streamlit as st

from app import cache
from app.components import export, palette, vega
from app.identity import identity
from app.state import current_source
from backend.evaluation.wording import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.state import Source

__all__ = ["AROUND", "MARK", "SELECTION", "draw", "is_dark", "selected_points"]

AROUND: Final = "around"
"""Key of a chart's `usermeta`: pixels that its legend and axes need above and below the plot."""

SELECTION: Final = "dot"
"""Name of the point selection of every chart that can be clicked."""

MARK: Final = "Simulated data, not a finding"
"""What stands on every chart of simulated data."""

_TITLE: Final = 28
"""Height of that mark, in pixels."""


def is_dark() -> bool:
    """Return whether the browser shows the dark theme."""
    return st.context.theme.type == "dark"


def _dressed(chart: alt.TopLevelMixin, *, dark: bool, simulated: bool) -> alt.TopLevelMixin:
    """Return a copy for the page: readable inks, room for legend and axes, simulated mark."""
    ink = palette.ink(dark=dark)
    texts = {"labelColor": ink, "titleColor": ink}
    dressed = chart.configure(
        axis=alt.AxisConfig(**texts),
        legend=alt.LegendConfig(**texts),
        header=alt.HeaderConfig(**texts),
    )
    # Set in place, because every `properties` copies the whole chart. Streamlit fits the whole
    # picture into a chart's height, hence the room around the plot.
    if isinstance(dressed.usermeta, dict):
        dressed.height = chart.height + dressed.usermeta[AROUND] + (_TITLE if simulated else 0)
    if simulated:
        dressed.title = alt.TitleParams(
            MARK, anchor="start", color=palette.SIMULATED[dark], fontSize=13, fontWeight="bold"
        )
    return dressed


def _spec(build: partial[alt.TopLevelMixin], *, dark: bool, simulated: bool) -> dict[str, Any]:
    return vega.page_spec(_dressed(build(dark=dark), dark=dark, simulated=simulated))


def selected_points(state: Any, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return the clicked points as field → value, points with a missing field left out."""
    selection = state.get("selection") if state else None
    points = (selection or {}).get(SELECTION) or []
    return [
        {field: point[field] for field in fields}
        for point in points
        if isinstance(point, dict) and all(point.get(field) is not None for field in fields)
    ]


def _pick(key: str, fields: Sequence[str], then: Callable[[dict[str, Any]], None]) -> None:
    points = selected_points(st.session_state.get(key), fields)
    if points:
        then(points[0])


def draw(
    build: partial[alt.TopLevelMixin],
    *,
    name: str,
    title: str,
    alt_text: str,
    select: Sequence[str] = (),
    on_pick: Callable[[dict[str, Any]], None] | None = None,
    source: Source | None = None,
) -> list[dict[str, Any]]:
    """Draw a chart with its heading and downloads; return the selected points.

    Parameters
    ----------
    build
        A function of a module with all its arguments but `dark=`, of which the chart depends on
        nothing else: it is kept by them. The picture files always use the light one.
    name
        Part of file names and of the widget key, unique on the page.
    select
        Fields of the chart's point selection `SELECTION`; empty for a chart without selection.
    on_pick
        Called with the first selected point, before the page is drawn again.
    source
        What the chart is made from, when that is not the scope of the sidebar.
    """
    source = source or current_source()
    st.markdown(f"##### {plain(title)}")
    background = {"dark": is_dark(), "simulated": source.simulated}
    spec = cache.chart_spec(
        build,
        partial(_spec, build, **background),
        owner=identity().owner,
        dataset_id=source.dataset_id,
        **background,
    )
    prefix = f"{MARK}. {alt_text}" if source.simulated else alt_text
    options: dict[str, Any] = {"width": "stretch", "alt": prefix, "key": f"figure.{name}"}
    points = []
    if select:
        then: Any = "rerun"
        if on_pick is not None:
            then = partial(_pick, options["key"], select, on_pick)
        state = st.vega_lite_chart(spec=spec, on_select=then, **options)
        points = selected_points(state, select)
    else:
        st.vega_lite_chart(spec=spec, **options)
    with st.container(horizontal=True, gap="small", key=f"downloads.{name}"):
        for suffix, mime in (("png", "image/png"), ("svg", "image/svg+xml")):
            st.download_button(
                suffix.upper(),
                data=lambda suffix=suffix: export.picture_bytes(
                    build(dark=False), source, title, suffix
                ),
                file_name=export.file_name(source, name, suffix),
                mime=mime,
                key=f"figure.{name}.{suffix}",
                type="tertiary",
                icon=":material/download:",
                on_click="ignore",
                help=f"Download this chart as {suffix.upper()} with its title and source",
            )
    return points
