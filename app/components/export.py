"""Files that leave the page: each says what data it shows and what it may be used for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import altair as alt
import vl_convert
from pandas.api.types import is_numeric_dtype

from app.components import vega

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from app.state import Source

__all__ = ["FOOTER", "csv_bytes", "file_name", "picture_bytes"]

FOOTER: Final = "Research use only. Not a medical device; not for diagnosis or treatment decisions."
_PICTURE_SCALE: Final = 2.0
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def file_name(source: Source, name: str, suffix: str) -> str:
    """Return the name of a file; simulated data say so in it."""
    kind = "-SIMULATED" if source.simulated else ""
    parts = (source.dataset, source.label_level, source.protocol, name)
    return f"faultline{kind}-{'-'.join(_slug(part) for part in parts)}.{suffix}"


def _as_text(value: object) -> object:
    """Keep a spreadsheet program from taking a text for a formula."""
    is_formula = isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA)
    return f"'{value}" if is_formula else value


def csv_bytes(frame: pd.DataFrame, source: Source) -> bytes:
    """Return `frame` as CSV with its provenance in columns before, and its use after it.

    Texts that a spreadsheet program would run as a formula get an apostrophe before them.
    """
    before = {
        "dataset": source.dataset,
        "dataset_id": source.dataset_id,
        "data": source.kind,
        "label_level_of_scope": source.label_level,
        "protocol_of_scope": source.protocol,
        "training_cells": source.budget,
        "truth": source.truth,
    }
    table = frame.copy()
    for column, kind in frame.dtypes.items():
        if not is_numeric_dtype(kind):
            table[column] = frame[column].astype(object).map(_as_text, na_action="ignore")
    table.columns = [_as_text(column) for column in table.columns]
    # A table over several datasets or protocols has columns of these names for its own rows.
    before = {f"{key}_of_scope" if key in table else key: value for key, value in before.items()}
    for position, (column, value) in enumerate(before.items()):
        table.insert(position, column, _as_text(value))
    table["use_of_data" if "use" in table else "use"] = FOOTER
    # A byte order mark, so that spreadsheet programs read the text as UTF-8.
    return table.to_csv(index=False).encode("utf-8-sig")


def _text(lines: Sequence[str], sizes: Sequence[int], weights: Sequence[str]) -> alt.LayerChart:
    """Return lines of text as a chart, to stand above or below another one."""
    height = sum(size + 8 for size in sizes)
    layers, y = [], 0
    for line, size, weight in zip(lines, sizes, weights, strict=True):
        y += size + 8
        layers.append(
            alt.Chart(alt.InlineData(values=[{"text": line}]))
            .mark_text(align="left", baseline="bottom", fontSize=size, fontWeight=weight)
            .encode(text="text:N", x=alt.value(0), y=alt.value(y))
        )
    return alt.layer(*layers).properties(height=height, width=300)


def picture_bytes(chart: alt.TopLevelMixin, source: Source, title: str, suffix: str) -> bytes:
    """Return a chart as PNG or SVG, drawn in this process, with title, source and footer."""
    chart = chart.copy(deep=False)
    chart.usermeta = alt.Undefined
    width = getattr(chart, "width", alt.Undefined)
    width = width if isinstance(width, int) else 0
    head = _text([title, source.line], sizes=(16, 12), weights=("bold", "normal"))
    foot = _text([FOOTER], sizes=(10,), weights=("normal",))
    framed = (
        alt.vconcat(head, chart, foot, spacing=14)
        .resolve_scale(color="independent", fill="independent", shape="independent")
        .properties(background="white", padding=16)
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(labelFontSize=12, titleFontSize=12, labelLimit=400)
    )
    spec = vega.file_spec(framed)
    # Charts may size their text by their own width, a name that is lost inside a stack.
    spec["params"] = [*spec.get("params", []), {"name": "width", "value": width}]
    if suffix == "svg":
        return vl_convert.vegalite_to_svg(spec).encode("utf-8")
    return vl_convert.vegalite_to_png(spec, scale=_PICTURE_SCALE)
