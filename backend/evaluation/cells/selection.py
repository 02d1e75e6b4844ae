"""Sets of cells that a user can name, share by a link, and find again.

A selection says how its cells are chosen (a polygon on the map, a predicate over roles, or the
cells themselves) and in which scope. Its id is a hash of that, so a link cannot come to mean other
cells. It is kept as `<home>/selections/<owner>/<id>.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

import numpy as np

from backend.errors import InputError, StoreError
from backend.evaluation.cells.hit_test import read_corners
from backend.evaluation.cells.predicate import (
    PREDICATE_KEYS,
    checked_predicate,
    is_text,
    predicate_cells,
    refused,
    short,
)
from backend.files import write_text
from backend.types import OWNER, Scope, canonical_json, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from backend.evaluation.views.series import Reader

__all__ = [
    "KeptSelection",
    "Kind",
    "SavedSelection",
    "cells_of",
    "delete_selection",
    "list_selections",
    "load_selection",
    "save_selection",
    "scope_json",
    "scope_of",
]

Kind = Literal["polygon", "predicate", "cells"]

_ID: Final = re.compile(r"[0-9a-f]{16}")
_SCOPE_FIELDS: Final = tuple(field.name for field in fields(Scope) if field.name != "owner")
_MAX_NAME: Final = 200
_MAX_CELLS: Final = 2_000_000
_MAX_SCOPE: Final = 64 * 1024
_MAX_FILE: Final = 32 * 1024 * 1024


def _checked_name(name: Any) -> str:
    """Return a name with its white space tidied."""
    if not is_text(name):
        msg = f"its name is a {type(name).__name__}"
        raise refused(msg, "A name is text.")
    name = " ".join(name.split())
    if len(name) > _MAX_NAME:
        msg = f"its name has {len(name):,} characters"
        raise refused(msg, f"Use at most {_MAX_NAME}.")
    return name


def _checked_scope(scope: Any) -> dict[str, Any]:
    """Return a scope as plain values of its own."""
    if not isinstance(scope, Mapping) or not _ID.fullmatch(str(scope.get("dataset_id"))):
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


def _checked_polygon(polygon: Any) -> np.ndarray:
    """Return (k, 2) float64 corners."""
    corners = read_corners(polygon, refused, at_least=3)
    corners.setflags(write=False)
    return corners


def _checked_cells(cells: Any) -> np.ndarray:
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
        object.__setattr__(self, "scope", _checked_scope(self.scope))
        object.__setattr__(self, "name", _checked_name(self.name))
        if self.kind == "polygon":
            object.__setattr__(self, "polygon", _checked_polygon(self.polygon))
        elif self.kind == "predicate":
            object.__setattr__(self, "predicate", checked_predicate(self.predicate))
        else:
            object.__setattr__(self, "cells", _checked_cells(self.cells))

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
    if not OWNER.fullmatch(owner):
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{selection.id}.json", canonical_json(selection.to_json()))
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
    if isinstance(selection_id, str) and _ID.fullmatch(selection_id):
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


@dataclass(frozen=True, slots=True)
class KeptSelection:
    """A selection in its owner's folder.

    selection : None where its file is damaged
    kept_at : when it was last saved
    """

    selection_id: str
    selection: SavedSelection | None
    kept_at: datetime


def list_selections(home: Path, owner: str) -> list[KeptSelection]:
    """Return the selections of `owner`, newest first."""
    folder = _folder(home, owner)
    found = []
    for path in folder.glob("*.json") if folder.is_dir() else ():
        if not _ID.fullmatch(path.stem):
            continue
        try:
            kept_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            selection = load_selection(home, owner, path.stem)
        except StoreError:
            selection = None
        except (FileNotFoundError, InputError):
            # Deleted meanwhile, in another tab.
            continue
        found.append(KeptSelection(path.stem, selection, kept_at))
    return sorted(found, key=lambda kept: (kept.kept_at, kept.selection_id), reverse=True)


def delete_selection(home: Path, owner: str, selection_id: str) -> None:
    """Remove a selection of `owner`; one that is gone, or another's, changes nothing."""
    if isinstance(selection_id, str) and _ID.fullmatch(selection_id):
        (_folder(home, owner) / f"{selection_id}.json").unlink(missing_ok=True)


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
