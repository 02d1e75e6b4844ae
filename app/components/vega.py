"""Charts as Vega-Lite, for the page and for files."""

from __future__ import annotations

from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import altair as alt
from altair.utils import schemapi
from streamlit.dataframe_util import convert_pandas_df_to_arrow_bytes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["file_spec", "page_spec"]

# To check a chart against the schema takes as long as all the rest of a page. A chart is checked as
# a whole when it becomes a file, and a test checks every chart of every page.
schemapi.disable_debug_mode()

_LOCK: Final = Lock()
"""Altair's choices of theme and of what becomes of data hold for all threads."""


def page_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart for `st.vega_lite_chart`, its data as Arrow under the hash of their bytes."""
    datasets: dict[str, bytes] = {}

    def as_arrow(data: pd.DataFrame) -> dict[str, str]:
        table = convert_pandas_df_to_arrow_bytes(data)
        name = blake2b(table, digest_size=16).hexdigest()
        datasets[name] = table
        return {"name": name}

    with _LOCK:
        alt.data_transformers.register("arrow", as_arrow)
        with alt.theme.enable("none"), alt.data_transformers.enable("arrow"):
            spec = chart.to_dict(validate=False)
    return {**spec, "datasets": {**spec.get("datasets", {}), **datasets}}


def file_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart with all its data in it, to draw it as a picture."""
    with _LOCK, alt.data_transformers.enable("default", max_rows=None):
        return chart.to_dict()
