"""A choice of cells by their roles and predictions: what it may ask for, and which cells it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.errors import InputError, is_utf8
from backend.evaluation.outcomes import KINDS, OUTCOMES, error_kind, threshold_of
from backend.evaluation.views.series import Reader, rows_of_series, shown_series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backend.types import Scope

__all__ = [
    "PREDICATE_KEYS",
    "checked_predicate",
    "is_text",
    "predicate_cells",
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
_PARAMETER: Final = {
    "timepoint": "course",
    "donor": "donors",
    "study": "studies",
    "sample": "samples",
    "genotype": "genotypes",
    "label_source": "label_sources",
    "label": "labels",
    "predicted": "predicted",
    "outcome": "outcomes",
    "other_predicted": "other_predicted",
    "other_outcome": "other_outcomes",
    "agreement": "agreement",
}
_MAX_VALUES: Final = 1_000
_MAX_TEXT: Final = 2_000


def refused(found: str, hint: str) -> InputError:
    """Return the error of a selection that cannot be used."""
    return InputError(f"This selection cannot be used: {found}.", hint)


def short(value: object) -> str:
    """Return a value as text of at most 61 characters, for messages."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def is_text(value: object) -> bool:
    """Say whether a value is text that a file can hold: half of a surrogate pair is not."""
    return isinstance(value, str) and is_utf8(value)


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
        if not values or not all(map(is_text, values)):
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


def _shown(store: Reader, scope: Scope, values: Mapping[str, Any], key: str) -> str | None:
    """Return the series of the configuration that a selection's scope names under `key`."""
    name = values.get(key)
    if name is None:
        return None
    seed = values.get("seed") if key == "configuration" else None
    is_seed = isinstance(seed, int) and not isinstance(seed, bool)
    return str(shown_series(store, scope, str(name), seed if is_seed else None)["series_id"])


def predicate_cells(
    store: Reader,
    scope: Scope,
    predicate: Mapping[str, Iterable[str]],
    view: Mapping[str, Any],
) -> np.ndarray:
    """Return the ascending `cell_index` values of the cells of `scope` that a predicate names.

    Parameters
    ----------
    view
        `configuration`, `seed` and `against`, where the predicate asks for predictions.
    """
    asked = set(predicate)
    series = _shown(store, scope, view, "configuration")
    other = _shown(store, scope, view, "against")
    is_of_other = {key for key in asked if key.startswith("other_") or key == "agreement"}
    for keys, found, what in (
        (asked & {"predicted", "outcome", "error_kind", "agreement"}, series, "configuration"),
        (is_of_other, other, "against"),
    ):
        if keys and found is None:
            msg = f"{', '.join(sorted(keys))} need a model"
            raise refused(msg, f"Name it as `{what}` in the scope.")
    parameters = {_PARAMETER[key]: list(predicate[key]) for key in asked - {"error_kind"}}
    if "error_kind" in asked:
        counts = rows_of_series(store, "confusion", scope, [series] if series else [])
        kinds = set(predicate["error_kind"])
        parameters["pairs"] = [
            f"{label}\x1f{predicted}"
            for label, predicted in zip(counts["label"], counts["predicted"], strict=True)
            if error_kind(label, predicted) in kinds
        ]
        if not parameters["pairs"]:
            return np.zeros(0, dtype=np.int64)
    if scope.cell_types and "label" not in asked:
        parameters["labels"] = list(scope.cell_types)
    rows = store.query(
        "selection_cells",
        owner=scope.owner,
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=series,
        other_id=other,
        threshold=None if series is None else threshold_of(store, scope, series),
        other_threshold=None if other is None else threshold_of(store, scope, other),
        timepoints=list(scope.timepoints) or None,
        truth=scope.truth,
        **parameters,
    )
    return rows["cell_index"].to_numpy(dtype=np.int64)
