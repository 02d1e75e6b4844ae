"""Sets of cells that a user can name, share by a link, and find again.

A selection says how its cells are chosen (a polygon on the map, a predicate over roles, or the
cells themselves) and in which scope. Its id is a hash of that, so a link cannot come to mean other
cells. It is kept as `<home>/selections/<owner>/<id>.json`.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

import numpy as np

from backend.errors import InputError, StoreError
from backend.evaluation.cells.selection_checks import (
    ID,
    PREDICATE_KEYS,
    checked_cells,
    checked_name,
    checked_polygon,
    checked_predicate,
    checked_scope,
    refused,
    short,
)
from backend.evaluation.error_kinds import error_kind
from backend.evaluation.views.failures import threshold_of
from backend.evaluation.views.series import Reader, shown_series
from backend.types import Scope, canonical_json, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "PREDICATE_KEYS",
    "Kind",
    "SavedSelection",
    "cells_of",
    "load_selection",
    "save_selection",
    "scope_json",
    "scope_of",
]

Kind = Literal["polygon", "predicate", "cells"]

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
_SCOPE_FIELDS: Final = tuple(field.name for field in fields(Scope) if field.name != "owner")
_OWNER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_FILE: Final = 32 * 1024 * 1024


@dataclass(frozen=True, eq=False, kw_only=True)
class SavedSelection:
    """A set of cells by how it is chosen.

    Parameters
    ----------
    kind
        Which of the three fields below says it.
    scope
        Plain values: those of `Scope` but its owner, and what else the view needs (`configuration`,
        `against`, `seed`, facets). See `scope_json`.
    name
        What the user calls it; any text.
    polygon
        (k, 2) corners in the units of the map, 3 to 500 of them.
    predicate
        Key of `PREDICATE_KEYS` to the values that are allowed; all keys must hold.
    cells
        Values of `cell_index`.

    Raises
    ------
    InputError
        If a field is missing or cannot be used.
    """

    kind: Kind
    scope: Mapping[str, Any]
    name: str = ""
    polygon: Any = None
    predicate: Mapping[str, Iterable[str]] | None = None
    cells: Any = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            msg = f'its kind is "{short(self.kind)}"'
            raise refused(msg, "Use polygon, predicate or cells.")
        given = [name for name in get_args(Kind) if getattr(self, name) is not None]
        if given != [self.kind]:
            found = ", ".join(given) or "none of them"
            msg = f"a {self.kind} is needed and {found} is given"
            raise refused(msg, "Give that one only.")
        object.__setattr__(self, "scope", checked_scope(self.scope))
        object.__setattr__(self, "name", checked_name(self.name))
        if self.kind == "polygon":
            object.__setattr__(self, "polygon", checked_polygon(self.polygon))
        elif self.kind == "predicate":
            object.__setattr__(self, "predicate", checked_predicate(self.predicate))
        else:
            object.__setattr__(self, "cells", checked_cells(self.cells))

    @property
    def id(self) -> str:
        """First 16 hex digits of the sha256 over the canonical JSON."""
        return sha256_of(self.to_json())[:16]

    @property
    def dataset_id(self) -> str:
        """The dataset whose cells are meant."""
        return str(self.scope["dataset_id"])

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` reads them."""
        value: Any = self.predicate
        if self.kind == "polygon":
            value = self.polygon.tolist()
        elif self.kind == "predicate":
            value = {key: list(values) for key, values in (self.predicate or {}).items()}
        else:
            value = self.cells.tolist()
        return {"kind": self.kind, "name": self.name, "scope": dict(self.scope), self.kind: value}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Return the selection that `to_json` described."""
        if not isinstance(values, Mapping):
            msg = f"it is a {type(values).__name__}"
            raise refused(msg, "Give an object.")
        known = {"kind", "name", "scope", *get_args(Kind)}
        if strange := sorted(map(str, set(values) - known)):
            msg = f"it holds {short(', '.join(strange[:5]))}"
            raise refused(msg, "Leave that out.")
        given: dict[str, Any] = {"kind": None, "scope": None} | dict(values)
        return cls(**given)

    def describe(self) -> str:
        """Say in plain words how the cells are chosen; labels are quoted as they are."""
        if self.kind == "polygon":
            return f"an area of the map with {len(self.polygon)} corners"
        if self.kind == "cells":
            return f"{len(self.cells):,} cells by name"
        parts = []
        for key, values in (self.predicate or {}).items():
            values = list(values)
            more = f" and {len(values) - 3} more" if len(values) > 3 else ""
            parts.append(f"{PREDICATE_KEYS[key]} {', '.join(values[:3])}{more}")
        return "; ".join(parts)


def scope_json(scope: Scope, **more: Any) -> dict[str, Any]:
    """Return a scope as a selection keeps it.

    Parameters
    ----------
    more
        What the view adds: `configuration` (the model shown), `seed`, `against`, facets. None is
        left out.
    """
    values = {name: getattr(scope, name) for name in _SCOPE_FIELDS}
    return values | {key: value for key, value in more.items() if value is not None}


def scope_of(selection: SavedSelection, owner: str) -> Scope:
    """Return the scope of a selection for `owner`.

    Raises
    ------
    InputError
        If it is no scope.
    """
    given = {name: selection.scope[name] for name in _SCOPE_FIELDS if name in selection.scope}
    try:
        return Scope(owner=owner, **given)
    except InputError as error:
        msg = f"in its scope, {error.message[:1].lower()}{error.message[1:].rstrip('.')}"
        raise refused(msg, error.hint) from error


def _folder(home: Path, owner: str) -> Path:
    if not _OWNER.fullmatch(owner):
        msg = f'"{short(owner)}" is no owner.'
        raise InputError(msg, "An owner has 1 to 64 letters, digits, - or _.")
    return home / "selections" / owner


def save_selection(home: Path, owner: str, selection: SavedSelection) -> str:
    """Keep a selection and return its id; saving the same one again changes nothing.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    folder = _folder(home, owner)
    content = canonical_json(selection.to_json()).encode("utf-8")
    target = folder / f"{selection.id}.json"
    new = folder / f".{selection.id}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            new.write_bytes(content)
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        msg = f"The selection cannot be saved ({type(error).__name__})."
        raise StoreError(msg, "Check that the folder of FAULTLINE_HOME can be written.") from error
    return selection.id


def load_selection(home: Path, owner: str, selection_id: str) -> SavedSelection:
    """Return a selection of `owner`.

    Raises
    ------
    InputError
        If `owner` has none of that id; of another's or an impossible id nothing more is said.
    StoreError
        If its file is damaged.
    """
    path = _folder(home, owner) / f"{selection_id}.json"
    content = None
    if isinstance(selection_id, str) and ID.fullmatch(selection_id):
        try:
            if path.stat().st_size <= _MAX_FILE:
                content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            content = None
    if content is None:
        msg = f'No selection "{short(selection_id)}": it is gone, or it was never saved here.'
        raise InputError(msg, "Select the cells again, or ask who sent the link for theirs.")
    try:
        selection = SavedSelection.from_json(json.loads(content))
    except (UnicodeDecodeError, json.JSONDecodeError, InputError) as error:
        msg = f"The saved selection {selection_id} is damaged ({type(error).__name__})."
        raise StoreError(msg, "Select the cells again and save them.") from error
    return selection


def _shown(store: Reader, scope: Scope, values: Mapping[str, Any], key: str) -> str | None:
    """Return the series of the configuration that a selection's scope names under `key`."""
    name = values.get(key)
    if name is None:
        return None
    seed = values.get("seed") if key == "configuration" else None
    is_seed = isinstance(seed, int) and not isinstance(seed, bool)
    return str(shown_series(store, scope, str(name), seed if is_seed else None)["series_id"])


def cells_of(store: Reader, owner: str, selection: SavedSelection) -> np.ndarray:
    """Return the ascending `cell_index` values (int64) of the cells of a selection.

    A polygon is resolved by the map's own hit test, not here.

    Raises
    ------
    InputError
        If it is a polygon, or if its dataset, model or scope is gone.
    """
    if selection.kind == "polygon":
        msg = "an area needs the map it was drawn on"
        raise refused(msg, "Open it on the Failure map.")
    scope = scope_of(selection, owner)
    datasets = store.query("datasets", owner=owner)
    sizes = datasets.loc[datasets["dataset_id"] == scope.dataset_id, "n_cells"]
    if sizes.empty:
        msg = f"The dataset {scope.dataset_id} of this selection is not here any more."
        raise InputError(msg, "Bring its results back, or select cells of another dataset.")
    if selection.kind == "cells":
        cells: np.ndarray = selection.cells
        return cells[cells < int(sizes.iloc[0])]
    return predicate_cells(store, scope, selection.predicate or {}, selection.scope)


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
        counts = store.query(
            "confusion",
            owner=scope.owner,
            dataset_id=scope.dataset_id,
            label_level=scope.label_level,
            series_ids=[series],
            timepoints=list(scope.timepoints) or None,
            truth=scope.truth,
        )
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
        threshold=None if series is None else _finite(threshold_of(store, scope, series)),
        other_threshold=None if other is None else _finite(threshold_of(store, scope, other)),
        timepoints=list(scope.timepoints) or None,
        truth=scope.truth,
        **parameters,
    )
    return rows["cell_index"].to_numpy(dtype=np.int64)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
