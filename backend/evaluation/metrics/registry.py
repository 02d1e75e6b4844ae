"""The one list of metrics: what a comparison can be scored with.

A new metric is one entry here, with its function of counts in
`backend.evaluation.metrics.functions`. Views, command line, pages, charts and tables take its name,
words and range from its entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from backend.errors import InputError
from backend.evaluation.metrics import functions

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

__all__ = [
    "DEFAULT",
    "MALIGNANCY_METRICS",
    "METRICS",
    "Metric",
    "metric_named",
    "metric_of",
    "n_types_scored",
]


class CountsFunction(Protocol):
    """Scores counts of shape (..., types) over the panel types that have a label."""

    def __call__(
        self, tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
    ) -> np.ndarray:
        """Return (...) values, NaN where no panel type has a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score of a slice over a class panel; higher is better.

    Parameters
    ----------
    key
        Its name in commands and columns.
    label
        Its name within a sentence.
    text
        What it is, for a reader.
    function
        Pure, vectorised; see `backend.evaluation.metrics.functions`.
    range
        Lowest and highest value it can take.
    """

    key: str
    label: str
    text: str
    function: CountsFunction
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def title(self) -> str:
        """Its name at the start of a sentence, on an axis and over a column."""
        return self.label[:1].upper() + self.label[1:]

    @property
    def difference_range(self) -> tuple[float, float]:
        """Lowest and highest difference of two values."""
        low, high = self.range
        return low - high, high - low

    def score(
        self, tp: np.ndarray, n_label: np.ndarray, n_predicted: np.ndarray, *, panel: np.ndarray
    ) -> np.ndarray:
        """Score counts over the whole panel.

        Parameters
        ----------
        tp, n_label, n_predicted
            Counts with types on the last axis.
        panel
            Boolean mask over the types.

        Returns
        -------
        (...) values; NaN where a panel type has no label or the panel is empty, because a value
        over fewer types would be another quantity.
        """
        value = self.function(tp, n_label, n_predicted, panel=panel)
        is_whole = (np.asarray(n_label)[..., panel] > 0).all(axis=-1)
        return np.where(is_whole, value, np.nan)

    def statistic(
        self, panel: np.ndarray
    ) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
        """Return `score` over one panel, as intervals and draws take it."""
        return partial(self.score, panel=panel)


def n_types_scored(n_label: np.ndarray, *, panel: np.ndarray) -> np.ndarray:
    """Return how many panel types have a label, along the last axis."""
    return (np.asarray(n_label)[..., panel] > 0).sum(axis=-1)


METRICS: Final = {
    metric.key: metric
    for metric in (
        Metric(
            key="macro_f1",
            label="macro-F1",
            text="plain mean of the F1 of each type: rare types weigh as much as common ones",
            function=functions.macro_f1,
        ),
        Metric(
            key="weighted_f1",
            label="weighted F1",
            text="mean of the F1 of each type, weighted by its labelled cells",
            function=functions.weighted_f1,
        ),
        Metric(
            key="accuracy",
            label="accuracy",
            text="share of the cells of the panel's types that are predicted as labelled",
            function=functions.accuracy,
        ),
        Metric(
            key="balanced_accuracy",
            label="balanced accuracy",
            text="plain mean of the recall of each type",
            function=functions.balanced_accuracy,
        ),
        Metric(
            key="worst_type",
            label="F1 of the worst type",
            text="lowest F1 of a type",
            function=functions.worst_type,
        ),
        Metric(
            key="matthews_correlation",
            label="Matthews correlation",
            text="correlation of labels and predictions over the panel's types; 0 is chance",
            function=functions.matthews_correlation,
            range=(-1.0, 1.0),
        ),
    )
}
"""Key to metric; the first one is what pages open with."""

MALIGNANCY_METRICS: Final = {
    metric.key: metric
    for metric in (
        Metric(
            key="sensitivity",
            label="sensitivity for malignant cells",
            text="share of the cells labelled malignant that are called malignant",
            function=functions.accuracy,
        ),
        Metric(
            key="specificity",
            label="specificity for malignant cells",
            text="share of the cells labelled normal that are called normal",
            function=functions.accuracy,
        ),
    )
}
"""Rates over the two sides malignant and normal; the panel is the side that the rate is over."""

DEFAULT: Final = next(iter(METRICS))


def metric_named(key: str) -> Metric:
    """Return a metric by its key.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if key not in METRICS:
        msg = f'There is no metric "{key}".'
        raise InputError(msg, f"Choose among: {', '.join(METRICS)}.")
    return METRICS[key]


def metric_of(rows: pd.DataFrame) -> Metric:
    """Return the metric that the column `metric` of a view's rows names, the default if none does."""
    is_named = "metric" in rows and len(rows) > 0
    return (METRICS | MALIGNANCY_METRICS)[rows["metric"].iloc[0] if is_named else DEFAULT]
