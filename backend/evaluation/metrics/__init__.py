"""Metrics of a class panel: one registry, each a pure function of per-type counts."""

from __future__ import annotations

from backend.evaluation.metrics.registry import (
    DEFAULT,
    MALIGNANCY_METRICS,
    METRICS,
    Metric,
    metric_named,
    metric_of,
    n_types_scored,
)

__all__ = [
    "DEFAULT",
    "MALIGNANCY_METRICS",
    "METRICS",
    "Metric",
    "metric_named",
    "metric_of",
    "n_types_scored",
]
