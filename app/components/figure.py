"""One way to put a chart on a page: heading, simulated mark, alt text, picture downloads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import altair as alt
import streamlit as st

from app.components import export, palette
from app.components.selection import AROUND, selected_points
from app.state import current_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Builder", "draw", "is_dark"]


class Builder(Protocol):
    """Builds the same chart for a light or a dark background."""

    def __call__(self, *, dark: bool) -> alt.TopLevelMixin:
        """Return the chart for one background."""


def is_dark() -> bool:
    """Return whether the browser shows the dark theme."""
    return st.context.theme.type == "dark"


def _with_ink(chart: alt.TopLevelMixin, ink: str) -> alt.TopLevelMixin:
    """Set axis, legend and header texts in a tone that is easy to read."""
    return (
        chart.configure_axis(labelColor=ink, titleColor=ink)
        .configure_legend(labelColor=ink, titleColor=ink)
        .configure_header(labelColor=ink, titleColor=ink)
    )


def _fitted(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """Make room for legend and axes: Streamlit fits the whole picture into a chart's height."""
    around = chart.usermeta[AROUND] if isinstance(chart.usermeta, dict) else 0
    return chart.properties(height=chart.height + around) if around else chart


def _pick(key: str, fields: Sequence[str], then: Callable[[dict[str, Any]], None]) -> None:
    points = selected_points(st.session_state.get(key), fields)
    if points:
        then(points[0])


def draw(
    build: Builder,
    *,
    name: str,
    title: str,
    alt_text: str,
    select: Sequence[str] = (),
    on_pick: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Draw a chart with its heading and downloads; return the selected points.

    Parameters
    ----------
    build
        Called with `dark=`; the picture files always use the light one.
    name
        Part of file names and of the widget key, unique on the page.
    select
        Fields of the chart's point selection `dot`; empty for a chart without selection.
    on_pick
        Called with the first selected point, before the page is drawn again.
    """
    source = current_source()
    st.markdown(f"##### {title}")
    dark = is_dark()
    chart = _fitted(_with_ink(build(dark=dark), palette.ink(dark=dark)))
    if source.simulated:
        chart = chart.properties(
            title=alt.TitleParams(
                "Simulated data, not a finding",
                anchor="start",
                color=palette.SIMULATED[dark],
                fontSize=13,
                fontWeight="bold",
            )
        )
    prefix = f"Simulated data, not a finding. {alt_text}" if source.simulated else alt_text
    options: dict[str, Any] = {"width": "stretch", "alt": prefix, "key": f"figure.{name}"}
    points = []
    if select:
        then: Any = "rerun"
        if on_pick is not None:
            then = partial(_pick, options["key"], select, on_pick)
        state = st.altair_chart(chart, on_select=then, **options)
        points = selected_points(state, select)
    else:
        st.altair_chart(chart, **options)
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
