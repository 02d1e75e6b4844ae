"""How bad a mistake is: between which lineages a cell was moved."""

from __future__ import annotations

from typing import Final

from backend.data.labels import family, to_lineage

__all__ = ["CORRECT", "KINDS", "error_kind"]

CORRECT: Final = "correct"
_UNKNOWN: Final = "Other"

KINDS: Final = (
    CORRECT,
    "malignant ↔ normal",
    "same lineage family",
    "other lineage family",
    "family unknown",
)
"""Kinds in the order of charts: right first, then from near to far."""


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
