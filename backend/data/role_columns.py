"""Find the columns of roles in a file: by what was said, by their names, and by their values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np

from backend.data.columns import column_names, read_column, table_length
from backend.data.labels import EXPECTED_TYPES, to_lineage
from backend.data.problems import Refusal, some
from backend.data.roles import PURPOSES, Roles, guess_roles, map_timepoint
from backend.data.vocabularies import counterpart, names_no_type

if TYPE_CHECKING:
    import pandas as pd

    from backend.data.profiles import Profile

__all__ = ["NO_LABELS", "column_candidates", "find_roles", "known_types_share"]

_ROLE_WORDS: Final = {"cell_type": "the cell type", "donor": "the donor"}
_MOST_COLUMNS: Final = 200
_MOST_TYPES: Final = 300
_SHARE_KNOWN: Final = 0.6
_MOST_DONORS: Final = 2_000
_CELLS_A_DONOR: Final = 5
_NEVER_DONORS: Final = frozenset(
    ["leiden", "louvain", "seurat_clusters", "cluster", "clusters", "phase", "sex", "gender",
     "assay", "tissue", "organism", "disease", "batch", "chemistry", "predicted_doublet"]
)  # fmt: skip


NO_LABELS: Final = "no_labels"
"""Code of the refusal of a file without any column that could hold cell types."""


def find_roles(
    file: h5py.File,
    given: Roles | None,
    purpose: str,
    notes: list[str],
    profile: Profile | None = None,
) -> Roles:
    """Return the column of each role: those that are given, and for the rest those guessed.

    Parameters
    ----------
    given
        Roles that a person named; every other role stays guessed.
    purpose
        See `PURPOSES`.
    notes
        Gets a sentence where another column looks more like the labels.
    profile
        How the file is read where it is one of a known data set.

    Raises
    ------
    Refusal
        If a column does not exist, or a role that the purpose needs has none: the columns whose
        values look like it are named.
    """
    columns = column_names(file, "obs")
    given = given or Roles()
    strange = sorted(set(given.columns().values()) - set(columns))
    if strange:
        msg = f"`obs` has no column {some(strange)}. Found: {some(columns) or 'no columns'}."
        raise Refusal(msg, "Name columns that the file has.", code="roles")
    guessed = guess_roles(columns)
    if profile is not None and profile.form is not None:
        guessed = profile.form.roles(file)
    words = {**guessed.timepoints, **given.timepoints}
    if given.timepoint is not None and given.timepoint != guessed.timepoint:
        words = dict(given.timepoints)
    key = "" if profile is None else profile.key
    roles = replace(given.over(guessed), timepoints=words, profile=key)
    found = roles.columns()
    missing = [role for role in PURPOSES[purpose] if role not in found]
    if missing:
        raise _no_column(file, missing, columns, found)
    for role in PURPOSES[purpose]:
        if not int(read_column(file, "obs", found[role]).nunique()):
            msg = f'The column "{found[role]}" for {_ROLE_WORDS[role]} is empty.'
            raise Refusal(msg, "Fill it, or choose another column.", code="roles")
    if given.cell_type is None and "cell_type" in found:
        _note_on_labels(file, found["cell_type"], found, notes)
    return roles


def column_candidates(file: h5py.File, taken: dict[str, str]) -> dict[str, list[str]]:
    """Name the columns whose values look like cell types or donors, the likeliest first.

    Parameters
    ----------
    taken
        Role → column; columns of other roles are no candidates.

    Returns
    -------
    `cell_type`: columns whose values are mostly known cell types, those with most values first.
    `donor`: columns of few values that each stand for several cells, and of which several occur
    within one timepoint.
    """
    others = {role: set(taken.values()) - {taken.get(role)} for role in ("cell_type", "donor")}
    n_cells = table_length(file, "obs")
    types: list[tuple[int, str]] = []
    donors: list[tuple[int, str]] = []
    when = read_column(file, "obs", taken["timepoint"]) if "timepoint" in taken else None
    for name in column_names(file, "obs")[:_MOST_COLUMNS]:
        values = _few_texts(file, name)
        if values is None:
            continue
        names = [str(value) for value in values.cat.categories]
        if known_types_share(names) >= _SHARE_KNOWN:
            if name not in others["cell_type"] and len(names) > 1:
                types.append((-len(names), name))
        elif name not in others["donor"] and _repeats(name, names, values, when, n_cells):
            donors.append((-len(names), name))
    return {
        "cell_type": [name for _, name in sorted(types)],
        "donor": [name for _, name in sorted(donors)],
    }


def known_types_share(names: list[str]) -> float:
    """Return the share (0–1) of labels that name a cell type of a known vocabulary."""
    named = [name for name in names if name.strip() and not names_no_type(name)]
    if not named or len(named) > _MOST_TYPES:
        return 0.0
    known = sum(
        to_lineage(name) in EXPECTED_TYPES or counterpart(name) is not None for name in named
    )
    return known / len(named)


def _few_texts(file: h5py.File, name: str) -> pd.Series | None:
    """Return a column of text with few values as categories, else None; ids of cells are not read."""
    node: Any = file["obs"].get(name)
    if isinstance(node, h5py.Group):
        kinds = node.get("categories", node.get("values"))
        if kinds is None or (isinstance(kinds, h5py.Dataset) and kinds.dtype.kind in "iufb"):
            return None
    elif node is None or (node.dtype.kind in "iufb" and "__categories" not in file["obs"]):
        return None
    try:
        values = read_column(file, "obs", name)
    except Refusal:
        # A column that cannot be read is no candidate; if it is needed, that is said.
        return None
    if str(values.dtype) != "category" or len(values.cat.categories) > _MOST_DONORS:
        return None
    return values.cat.remove_unused_categories()


def _repeats(
    name: str, names: list[str], values: pd.Series, when: pd.Series | None, n_cells: int
) -> bool:
    if not 2 <= len(names) <= n_cells / _CELLS_A_DONOR or name.casefold() in _NEVER_DONORS:
        return False
    if all(map_timepoint(value) is not None for value in names):
        return False
    if when is None:
        return True
    per_timepoint = values.groupby(when.astype(str).to_numpy(), observed=True).nunique()
    return bool((per_timepoint > 1).any())


def _no_column(
    file: h5py.File, missing: list[str], columns: list[str], found: dict[str, str]
) -> Refusal:
    words = " or ".join(_ROLE_WORDS[role] for role in missing)
    msg = f"`obs` has no column for {words}. Found: {some(columns) or 'no columns'}."
    candidates = column_candidates(file, found)
    offers = [
        f"{_ROLE_WORDS[role]} may be in {_quoted(candidates[role])} "
        f"(--role {role}={candidates[role][0]})"
        for role in missing
        if candidates[role]
    ]
    hint = f"Rename one to {' or '.join(missing)}, or say which column it is."
    if missing == ["cell_type"] and not offers:
        hint += " Without labels, `predict` gives composition and the accuracy to expect."
    if offers:
        hint = f"By their values, {'; '.join(offers)}. Say which column it is."
    return Refusal(
        msg, hint, code=NO_LABELS if missing == ["cell_type"] and not offers else "roles"
    )


def _quoted(names: list[str]) -> str:
    return " or ".join(f'"{name}"' for name in names[:3])


def _note_on_labels(file: h5py.File, column: str, found: dict[str, str], notes: list[str]) -> None:
    """Say when the labels name no known type while another column does."""
    values = read_column(file, "obs", column)
    if str(values.dtype) == "category":
        used = np.unique(values.cat.codes.to_numpy())
        names = [str(values.cat.categories[code]) for code in used if code >= 0]
    else:
        names = [str(value) for value in values.dropna().unique()[:_MOST_TYPES]]
    if names and len(names) < _MOST_TYPES and known_types_share(names) < _SHARE_KNOWN / 2:
        others = [c for c in column_candidates(file, found)["cell_type"] if c != column]
        if others:
            notes.append(
                f'The column "{column}" names hardly any known cell type ({some(names, 3)}); '
                f"{_quoted(others)} does. --role cell_type={others[0]} takes that one."
            )
