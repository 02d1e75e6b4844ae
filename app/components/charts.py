"""What the charts of scores share: axes of a metric, texts of support, tooltips, legends.

Axes of a metric always run over its whole range. A score without an interval is drawn open, one
from few donors has a dashed interval, and what has no cells says "no data".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt
import numpy as np

from backend.evaluation.wording import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from backend.evaluation.metrics import Metric

__all__ = [
    "ROW",
    "TWO_LINES",
    "model_legend",
    "score_axis",
    "score_scale",
    "score_tooltip",
    "support_text",
    "with_words",
]

ROW: Final = 18
"""Height of one row of dots, in pixels."""

TWO_LINES: Final = "split(datum.label, ', ')"
"""Expression of a label such as "scBERT small, scratch"."""


def score_scale(metric: Metric) -> alt.Scale:
    """Return the scale of a metric: its whole range."""
    return alt.Scale(domain=list(metric.range))


def score_axis(metric: Metric) -> alt.Axis:
    """Return the axis of a metric, ten steps over its range."""
    steps = np.linspace(*metric.range, 11).round(2)
    return alt.Axis(values=steps.tolist(), format=".1f")


def _range_text(low: float, high: float, word: str) -> str:
    return plural(int(low), word) if low == high else f"{low:,.0f}–{high:,.0f} {word}s"


def support_text(rows: pd.DataFrame) -> str:
    """Return "13 donors, 8,113 cells"; ranges where models differ."""
    donors = _range_text(rows.n_donors.min(), rows.n_donors.max(), "donor")
    cells = _range_text(rows.n_cells.min(), rows.n_cells.max(), "cell")
    return f"{donors}, {cells}"


def with_words(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the texts of tooltips and whether a score has an interval."""
    rows = scores.copy()
    rows["has_interval"] = rows.low.notna() & rows.high.notna()
    rows["is_few"] = rows.interval.eq("few donors")
    rows["interval_text"] = [
        f"{low:.2f}–{high:.2f}" if known else "none"
        for low, high, known in zip(rows.low, rows.high, rows.has_interval, strict=True)
    ]
    if "reason" not in rows:
        rows["reason"] = ""
    return rows


def score_tooltip(metric: Metric, scores: pd.DataFrame) -> list[alt.Tooltip]:
    """Return what a dot of a model at a timepoint says, of what `scores` hold."""
    said = [
        alt.Tooltip("display_name:N", title="Model"),
        alt.Tooltip("timepoint:N", title="Timepoint"),
        alt.Tooltip("value:Q", title=metric.title, format=".2f"),
        alt.Tooltip("interval_text:N", title="Interval"),
        alt.Tooltip("reason:N", title="Note"),
        alt.Tooltip("n_donors:Q", title="Donors", format=","),
        alt.Tooltip("n_cells:Q", title="Cells", format=","),
        alt.Tooltip("n_types_scored:Q", title="Types scored"),
        alt.Tooltip("top_donor_share:Q", title="Largest donor's share", format=".0%"),
        alt.Tooltip("status_text:N", title="Folds"),
        alt.Tooltip("convergence:N", title="Training"),
    ]
    return [one for one in said if one.shorthand.partition(":")[0] in scores]


def model_legend(names: Sequence[str]) -> tuple[alt.Legend, int]:
    """Return the legend of models, above the chart, and the pixels that it takes.

    What a model starts from stands below its name, so that two have room on a narrow page.
    """
    legend = alt.Legend(
        orient="top", title=None, labelLimit=260, symbolSize=90, symbolOpacity=1, columns=2,
        labelExpr=TWO_LINES,
    )  # fmt: skip
    rows = [names[i : i + 2] for i in range(0, len(names), 2)]
    return legend, sum(30 + 16 * any(", " in name for name in row) for row in rows)
