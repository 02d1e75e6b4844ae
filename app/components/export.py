"""Files that leave the page: each says what data it shows and what it may be used for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import altair as alt
import vl_convert

if TYPE_CHECKING:
    import pandas as pd

    from app.state import Source

__all__ = ["FOOTER", "csv_bytes", "file_name", "picture_bytes"]

FOOTER: Final = "Research use only. Not a medical device; not for diagnosis or treatment decisions."
_PICTURE_SCALE: Final = 2.0


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def file_name(source: Source, name: str, suffix: str) -> str:
    """Return the name of a file; simulated data say so in it."""
    kind = "-SIMULATED" if source.simulated else ""
    parts = (source.dataset, source.label_level, source.protocol, name)
    return f"faultline{kind}-{'-'.join(_slug(part) for part in parts)}.{suffix}"


def csv_bytes(frame: pd.DataFrame, source: Source) -> bytes:
    """Return `frame` as CSV with its provenance in columns before, and its use after it."""
    before = {
        "dataset": source.dataset,
        "data": "SIMULATED" if source.simulated else "real",
        "label_level_of_scope": source.label_level,
        "protocol_of_scope": source.protocol,
        "truth": source.truth,
    }
    table = frame.copy()
    for position, (column, value) in enumerate(before.items()):
        table.insert(position, column, value)
    table["use"] = FOOTER
    # A byte order mark, so that spreadsheet programs read the text as UTF-8.
    return table.to_csv(index=False).encode("utf-8-sig")


def picture_bytes(chart: alt.TopLevelMixin, source: Source, title: str, suffix: str) -> bytes:
    """Return a chart as PNG or SVG, drawn in this process, with title, source and footer."""
    framed = (
        alt.vconcat(
            alt.vconcat(chart).properties(
                title=alt.TitleParams(
                    title, subtitle=[source.line], anchor="start", fontSize=16, offset=14
                )
            )
        )
        .properties(
            title=alt.TitleParams(
                FOOTER, orient="bottom", anchor="start", fontSize=10, fontWeight="normal", offset=14
            ),
            background="white",
            padding=16,
        )
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(labelFontSize=12, titleFontSize=12, labelLimit=400)
    )
    with alt.data_transformers.enable("default", max_rows=None):
        spec = framed.to_dict()
    if suffix == "svg":
        return vl_convert.vegalite_to_svg(spec).encode("utf-8")
    return vl_convert.vegalite_to_png(spec, scale=_PICTURE_SCALE)
