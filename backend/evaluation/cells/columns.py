"""Columns of all cells that maps and selections share, with and without the predictions of a series.

A column has a number for each cell and cannot be written, so that all users of a process can share
it. Words are codes of one or two bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.data.labels import chart_order
from backend.errors import InputError
from backend.evaluation.cells.coordinates import Coordinates, quantise
from backend.evaluation.views.source import in_clinical_order
from backend.types import LABEL_LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backend.evaluation.views.series import Reader
    from backend.types import Scope

__all__ = [
    "CellColumns",
    "Hits",
    "Role",
    "SeriesRows",
    "by_family",
    "fixed",
    "load_columns",
    "load_hits",
    "load_series_rows",
    "passes",
]

SLICED: Final = ("donor", "timepoint", "label_source", "genotype")
"""Roles that the store keeps once for each combination that occurs."""

UNKNOWN: Final = -1
"""Stands in `Hits.is_right` for a cell without a label or without a prediction."""


@dataclass(frozen=True, eq=False)
class Role:
    """A word for each cell: `codes` (n,) signed integers into `names`, -1 where there is none."""

    codes: np.ndarray
    names: tuple[str, ...]

    def is_among(self, names: Iterable[str]) -> np.ndarray:
        """Say which cells have one of these words."""
        wanted = [self.names.index(name) for name in names if name in self.names]
        return np.isin(self.codes, np.array(wanted, dtype=np.int64))

    def words(self, rows: np.ndarray) -> list[str | None]:
        """Return the words of some cells."""
        return [self.names[code] if code >= 0 else None for code in self.codes[rows]]

    def coded_as(self, names: Sequence[str]) -> np.ndarray:
        """Return codes into other names: `len(names)` for a word that is none of them, -1 for none."""
        code_of = {name: code for code, name in enumerate(names)}
        # The shortest type with some room above its codes.
        kind = np.int8 if len(names) < 100 else np.int16 if len(names) < 30_000 else np.int32
        renamed = [*(code_of.get(name, len(names)) for name in self.names), -1]
        return np.array(renamed, dtype=kind)[self.codes]


@dataclass(frozen=True, eq=False)
class CellColumns:
    """What is known of every cell of a dataset before any prediction; row i has `cell_index` i.

    Parameters
    ----------
    roles
        `donor`, `timepoint`, `label_source`, `genotype`, and the labels of each level by the name of
        the level.
    n_counts, n_genes
        (n,) float32, NaN where they are not known.
    """

    coordinates: Coordinates
    roles: dict[str, Role]
    n_counts: np.ndarray
    n_genes: np.ndarray

    def __len__(self) -> int:
        return len(self.n_counts)


@dataclass(frozen=True, eq=False)
class SeriesRows:
    """Label and test prediction of every cell by one series.

    `is_tested` (n,) bool says which cells it predicted; `label` and `predicted` lack a word for all
    others, `confidence` (n,) float32 is NaN there.
    """

    is_tested: np.ndarray
    label: Role
    predicted: Role
    confidence: np.ndarray


@dataclass(frozen=True, eq=False)
class Hits:
    """On which cells one series is right: 1, wrong: 0, or `UNKNOWN`; with its confidence.

    `is_right` is (n,) int8, `confidence` (n,) float32, NaN without a prediction.
    """

    is_right: np.ndarray
    confidence: np.ndarray


def passes(roles: dict[str, Role], scope: Scope, n_cells: int) -> np.ndarray:
    """Say which cells pass the scope's filters by timepoint and truth: (n,) bool."""
    mask = np.ones(n_cells, dtype=bool)
    if scope.timepoints:
        mask &= roles["timepoint"].is_among(scope.timepoints)
    if scope.truth == "mutant":
        mask &= roles["genotype"].is_among(["mutant"])
    elif scope.truth != "all":
        mask &= roles["label_source"].is_among([scope.truth])
    return mask


def by_family(names: Iterable[str]) -> list[str]:
    """Return cell types in the order of charts: by family, then by maturation."""
    return sorted(names, key=chart_order)


def fixed(array: np.ndarray) -> np.ndarray:
    """Forbid writing: columns are shared by all users."""
    array.setflags(write=False)
    return array


def _ordered_role(codes: np.ndarray, found: Iterable[object], kind: str) -> Role:
    """Return codes into `found`, -1 for none, as a role whose names are in the order of charts."""
    names = [str(name) for name in found]
    if kind in LABEL_LEVELS:
        order = by_family(names)
    else:
        order = list(in_clinical_order(names)) if kind == "timepoint" else sorted(names)
    return Role(fixed(Role(codes, tuple(names)).coded_as(order)), tuple(order))


def _role_of(values: pd.Series, kind: str) -> Role:
    codes, found = pd.factorize(values)
    return _ordered_role(codes, found, kind)


def load_columns(store: Reader, scope: Scope) -> CellColumns:
    """Read what is known of every cell of the scope's dataset; filters are not applied.

    Raises
    ------
    InputError
        If the dataset is not there.
    """
    about = {"dataset_id": scope.dataset_id, "owner": scope.owner}
    rows = store.query("cell_columns", **about)
    if rows.empty:
        msg = f"The dataset {scope.dataset_id} is not here any more."
        raise InputError(msg, "Choose another dataset.")
    slices = store.query("map_slices", **about)
    slice_of = pd.Index(slices["slice_key"]).get_indexer(rows["slice_key"])
    roles = {}
    for name in SLICED:
        role = _role_of(slices[name], name)
        roles[name] = Role(fixed(role.codes[slice_of]), role.names)
    for level in LABEL_LEVELS:
        roles[level] = _role_of(rows[f"cell_type_{level}"], level)
    places = rows[["umap_x", "umap_y"]].to_numpy(dtype=np.float64, na_value=np.nan)
    return CellColumns(
        coordinates=quantise(*places.T),
        roles=roles,
        n_counts=fixed(rows["n_counts"].to_numpy(dtype=np.float32, na_value=np.nan).copy()),
        n_genes=fixed(rows["n_genes"].to_numpy(dtype=np.float32, na_value=np.nan).copy()),
    )


def load_series_rows(store: Reader, scope: Scope, series_id: str, n_cells: int) -> SeriesRows:
    """Read label and test prediction of every cell by one series."""
    asked = _asked(scope, series_id)
    rows = store.query("series_cells", **asked)
    words = store.query("series_words", **asked)
    at = rows["cell_index"].to_numpy()

    def role(column: str) -> Role:
        # Ids of words are few and may be anywhere; their places among the words are dense.
        ids = pd.Index(words["word_id"])
        keys = rows[column].to_numpy()
        present = np.unique(keys)
        present = present[present >= 0]
        found = words["word"].to_numpy(dtype=object)[ids.get_indexer(present)].tolist()
        codes = np.full(n_cells, -1, dtype=np.int32)
        codes[at] = np.where(keys >= 0, np.searchsorted(present, keys), -1)
        return _ordered_role(codes, found, scope.label_level)

    is_tested = np.zeros(n_cells, dtype=bool)
    is_tested[at] = True
    return SeriesRows(
        is_tested, role("label_key"), role("predicted_key"), _confidence(rows, n_cells)
    )


def load_hits(store: Reader, scope: Scope, series_id: str, n_cells: int) -> Hits:
    """Read on which cells one series is right: all that a comparison of models needs of it."""
    rows = store.query("series_cells", **_asked(scope, series_id))
    label, predicted = rows["label_key"].to_numpy(), rows["predicted_key"].to_numpy()
    is_right = np.full(n_cells, UNKNOWN, dtype=np.int8)
    is_right[rows["cell_index"].to_numpy()] = np.where(label >= 0, label == predicted, UNKNOWN)
    return Hits(fixed(is_right), _confidence(rows, n_cells))


def _asked(scope: Scope, series_id: str) -> dict[str, str]:
    return {
        "dataset_id": scope.dataset_id,
        "label_level": scope.label_level,
        "series_id": series_id,
        "owner": scope.owner,
    }


def _confidence(rows: pd.DataFrame, n_cells: int) -> np.ndarray:
    confidence = np.full(n_cells, np.nan, dtype=np.float32)
    confidence[rows["cell_index"].to_numpy()] = rows["confidence"].to_numpy()
    return fixed(confidence)
