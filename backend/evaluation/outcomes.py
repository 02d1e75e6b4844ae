"""What became of a cell under a model, and how bad a mistake is.

`store/schema/0004_outcomes.sql` says for queries what `outcome_codes` says here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.labels import family, to_lineage

if TYPE_CHECKING:
    import pandas as pd

    from backend.evaluation.views.series import Reader
    from backend.types import Scope

__all__ = [
    "CORRECT",
    "KINDS",
    "OUTCOMES",
    "WRONG",
    "error_kind",
    "is_wrong",
    "outcome_codes",
    "threshold_of",
]

CORRECT: Final = "correct"

OUTCOMES: Final = (CORRECT, "wrong", "confidently wrong", "not scored")
"""Outcomes in the order of legends. A cell is "not scored" when it has no label, or no prediction
because its fold is missing."""

WRONG: Final = OUTCOMES[1:3]
"""Outcomes of a cell whose prediction differs from its label."""

KINDS: Final = (
    CORRECT,
    "malignant ↔ normal",
    "same lineage family",
    "other lineage family",
    "family unknown",
)
"""Kinds of error in the order of charts: right first, then from near to far."""

_UNKNOWN: Final = "Other"


def outcome_codes(
    label: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, threshold: float | None
) -> np.ndarray:
    """Return the outcome of each cell: (n,) uint8 into `OUTCOMES`.

    Parameters
    ----------
    label, predicted
        (n,) codes of the same words, negative for none.
    confidence
        (n,) floats, NaN for none.
    threshold
        Confidence from which a wrong cell is confidently wrong; None: never.
    """
    is_scored = (label >= 0) & (predicted >= 0)
    # Compared as doubles, as queries do: a threshold between two floats is neither of them.
    is_confident = confidence >= np.float64(np.nan if threshold is None else threshold)
    codes = np.select([~is_scored, label == predicted, is_confident], [3, 0, 2], default=1)
    return codes.astype(np.uint8)


def is_wrong(codes: np.ndarray) -> np.ndarray:
    """Say which outcomes are among `WRONG`: (n,) bool."""
    return (codes == 1) | (codes == 2)


def threshold_of(store: Reader, scope: Scope, series_id: str) -> float | None:
    """Return from which confidence on a wrong cell is confidently wrong; None: never.

    It is the median confidence of the series' valid cells that are correct; of an upload, which has
    none, that of the series whose final fit predicted it.
    """
    # Here, because that view reads series and this module is read by views of cells.
    from backend.evaluation.views.model_source import model_source

    rows = _valid_confidence(store, scope, series_id)
    if rows.empty:
        source = model_source(store, scope, series_id)
        if source is not None and not source.reason:
            rows = _valid_confidence(store, source.scope, source.series_id)
    threshold = float(rows["threshold"].iloc[0]) if len(rows) else math.nan
    return threshold if math.isfinite(threshold) else None


def _valid_confidence(store: Reader, scope: Scope, series_id: str) -> pd.DataFrame:
    return store.query(
        "valid_confidence",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=[series_id],
        owner=scope.owner,
    )


def error_kind(label: str, predicted: str) -> str:
    """Return the kind of one label and prediction.

    `X-like` for `X`, or the other way round, is the malignant or normal counterpart. Otherwise the
    families of `backend.data.labels` are compared; a type whose family is not known cannot be.
    """
    if label == predicted:
        return CORRECT
    if to_lineage(label) == to_lineage(predicted):
        return KINDS[1]
    families = family(label), family(predicted)
    if _UNKNOWN in families:
        return KINDS[4]
    return KINDS[2] if families[0] == families[1] else KINDS[3]
