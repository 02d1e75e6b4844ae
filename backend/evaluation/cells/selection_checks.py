"""What a selection may hold: each field is checked before it is kept or used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from backend.errors import InputError
from backend.evaluation.error_kinds import KINDS
from backend.evaluation.views.failures import OUTCOMES
from backend.types import canonical_json

__all__ = [
    "ID",
    "PREDICATE_KEYS",
    "checked_cells",
    "checked_name",
    "checked_polygon",
    "checked_predicate",
    "checked_scope",
    "refused",
    "short",
]

PREDICATE_KEYS: Final = {
    "timepoint": "timepoint",
    "donor": "donor",
    "study": "study",
    "sample": "sample",
    "genotype": "genotype",
    "label_source": "label source",
    "label": "labelled",
    "predicted": "predicted",
    "outcome": "outcome",
    "error_kind": "kind of error",
    "other_predicted": "predicted by the other model",
    "other_outcome": "outcome of the other model",
    "agreement": "agreement of both models",
}
"""What a predicate may ask of a cell, and the words for it.

`predicted`, `outcome` and `error_kind` are those of the scope's `configuration`; keys that begin
with `other_` are those of its `against`; `agreement` is `same` or `different` predictions of both.
"""

_KNOWN_VALUES: Final = {
    "outcome": OUTCOMES,
    "other_outcome": OUTCOMES,
    "error_kind": KINDS,
    "agreement": ("same", "different"),
}
ID: Final = re.compile(r"[0-9a-f]{16}")
_MAX_POINTS: Final = 500
_MAX_VALUES: Final = 1_000
_MAX_TEXT: Final = 2_000
_MAX_NAME: Final = 200
_MAX_CELLS: Final = 2_000_000
_MAX_SCOPE: Final = 64 * 1024


def refused(found: str, hint: str) -> InputError:
    """Return the error of a selection that cannot be used."""
    return InputError(f"This selection cannot be used: {found}.", hint)


def short(value: object) -> str:
    """Return a value as text of at most 61 characters, for messages."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _is_text(value: object) -> bool:
    """Say whether a value is text that a file can hold: half of a surrogate pair is not."""
    if not isinstance(value, str):
        return False
    return value == value.encode("utf-8", "replace").decode("utf-8")


def checked_name(name: Any) -> str:
    """Return a name with its white space tidied."""
    if not _is_text(name):
        msg = f"its name is a {type(name).__name__}"
        raise refused(msg, "A name is text.")
    name = " ".join(name.split())
    if len(name) > _MAX_NAME:
        msg = f"its name has {len(name):,} characters"
        raise refused(msg, f"Use at most {_MAX_NAME}.")
    return name


def checked_scope(scope: Any) -> dict[str, Any]:
    """Return a scope as plain values of its own."""
    if not isinstance(scope, Mapping) or not ID.fullmatch(str(scope.get("dataset_id"))):
        msg = "its scope names no dataset"
        raise refused(msg, "A scope holds a `dataset_id`.")
    try:
        text = canonical_json(dict(scope))
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError) as error:
        msg = f"its scope is not plain values ({error})"
        raise refused(msg, "Use text, numbers, lists.") from error
    if size > _MAX_SCOPE:
        msg = f"its scope has {size:,} bytes"
        raise refused(msg, f"Use at most {_MAX_SCOPE:,}.")
    return dict(json.loads(text))


def checked_polygon(polygon: Any) -> np.ndarray:
    """Return (k, 2) float64 corners."""
    hint = f"A polygon has 3 to {_MAX_POINTS} corners of two finite numbers each."
    try:
        corners = np.array(polygon, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = "its polygon is not a list of points"
        raise refused(msg, hint) from error
    if corners.ndim != 2 or corners.shape[1] != 2 or not 3 <= len(corners) <= _MAX_POINTS:
        shape = " × ".join(map(str, corners.shape))
        msg = f"its polygon has the shape {shape or 'of one number'}"
        raise refused(msg, hint)
    if not np.isfinite(corners).all():
        msg = "its polygon holds values that are not numbers"
        raise refused(msg, hint)
    corners.setflags(write=False)
    return corners


def checked_predicate(predicate: Any) -> dict[str, tuple[str, ...]]:
    """Return known keys with their distinct values, both sorted."""
    hint = f"Keys are: {', '.join(PREDICATE_KEYS)}; each with a list of texts."
    if not isinstance(predicate, Mapping) or not predicate:
        msg = "its predicate is empty"
        raise refused(msg, hint)
    checked = {}
    for key in sorted(map(str, predicate)):
        if key not in PREDICATE_KEYS:
            msg = f'its predicate asks for "{short(key)}"'
            raise refused(msg, hint)
        values = predicate[key]
        values = [values] if isinstance(values, str) else list(values or ())
        if not values or not all(map(_is_text, values)):
            msg = f'its predicate has no list of texts for "{key}"'
            raise refused(msg, hint)
        if len(values) > _MAX_VALUES or max(map(len, values)) > _MAX_TEXT:
            msg = (
                f'its predicate has {len(values):,} values for "{key}", the longest of '
                f"{max(map(len, values)):,} characters"
            )
            raise refused(
                msg,
                f"Use at most {_MAX_VALUES:,} values of {_MAX_TEXT:,} characters.",
            )
        known = _KNOWN_VALUES.get(key)
        if known is not None and (strange := sorted(set(values) - set(known))):
            msg = f'its predicate has "{short(strange[0])}" for "{key}"'
            raise refused(msg, f"Use: {', '.join(known)}.")
        checked[key] = tuple(sorted(set(values)))
    return checked


def checked_cells(cells: Any) -> np.ndarray:
    """Return distinct ascending int64 values."""
    hint = "Give values of `cell_index`: whole numbers from 0."
    try:
        found = np.asarray(cells)
        is_whole = found.ndim == 1 and (found.size == 0 or np.issubdtype(found.dtype, np.integer))
    except ValueError as error:
        msg = "its cells are not a list of numbers"
        raise refused(msg, hint) from error
    if not is_whole or (found.size and found.min() < 0):
        msg = "its cells are not whole numbers from 0"
        raise refused(msg, hint)
    if found.size > _MAX_CELLS:
        msg = f"it lists {found.size:,} cells"
        raise refused(msg, f"Use at most {_MAX_CELLS:,}.")
    found = np.unique(found.astype(np.int64))
    found.setflags(write=False)
    return found
