"""All cells of a dataset under one series, as columns of numbers that a map can be drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.data.labels import FAMILIES, family
from backend.evaluation.cell_map.coordinates import Coordinates, quantise
from backend.evaluation.views.failures import OUTCOMES, threshold_of
from backend.evaluation.views.series import Reader, series_of, shown_series
from backend.evaluation.views.source import in_clinical_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backend.types import Scope

__all__ = ["MapCells", "Role", "cell_details", "load_cells", "wrong_models"]

CORRECT: Final = OUTCOMES.index("correct")
WRONG: Final = OUTCOMES.index("wrong")
CONFIDENT: Final = OUTCOMES.index("confidently wrong")
NOT_SCORED: Final = OUTCOMES.index("not scored")


@dataclass(frozen=True, eq=False)
class Role:
    """A word for each cell: `codes` (n,) int32 into `names`, -1 where there is none."""

    codes: np.ndarray
    names: tuple[str, ...]

    def is_among(self, names: Iterable[str]) -> np.ndarray:
        """Say which cells have one of these words."""
        wanted = [self.names.index(name) for name in names if name in self.names]
        return np.isin(self.codes, np.array(wanted, dtype=np.int64))

    def words(self, rows: np.ndarray) -> list[str | None]:
        """Return the words of some cells."""
        return [self.names[code] if code >= 0 else None for code in self.codes[rows]]


@dataclass(frozen=True, eq=False)
class MapCells:
    """Every cell of a dataset with its outcome under one series; row i has `cell_index` i.

    Parameters
    ----------
    roles
        `label`, `predicted`, `donor`, `timepoint`, `label_source` and `genotype`.
    confidence
        (n,) float32, NaN without a prediction.
    outcome
        (n,) uint8 into `views.OUTCOMES`.
    threshold
        Confidence from which a wrong cell is confidently wrong; None when that is not known.
    is_computed
        Whether the places come from predictions, because the dataset has none of its own.
    """

    dataset_id: str
    configuration: str
    display_name: str
    series_id: str
    seed: int
    status_text: str
    threshold: float | None
    coordinates: Coordinates
    roles: dict[str, Role]
    confidence: np.ndarray
    outcome: np.ndarray
    is_computed: bool = False

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def n_unplaced(self) -> int:
        """Number of cells without a place on the map."""
        return int(np.count_nonzero(~self.coordinates.is_placed))

    def in_scope(self, scope: Scope) -> np.ndarray:
        """Say which cells pass the filters of a scope: (n,) bool."""
        mask = np.ones(len(self), dtype=bool)
        if scope.timepoints:
            mask &= self.roles["timepoint"].is_among(scope.timepoints)
        if scope.cell_types:
            mask &= self.roles["label"].is_among(scope.cell_types)
        if scope.truth == "mutant":
            mask &= self.roles["genotype"].is_among(["mutant"])
        elif scope.truth != "all":
            mask &= self.roles["label_source"].is_among([scope.truth])
        return mask


def by_family(names: Iterable[str]) -> list[str]:
    """Return cell types in the order of charts: by family, then by name."""
    return sorted(names, key=lambda name: (FAMILIES.index(family(name)), name))


def _role(values: pd.Series, order: Sequence[str] | None = None) -> Role:
    codes, found = pd.factorize(values, sort=False)
    names = [str(name) for name in found]
    ordered = sorted(names) if order is None else [name for name in order if name in names]
    place = np.array([ordered.index(name) for name in names] + [-1], dtype=np.int32)
    return Role(_fixed(place[codes]), tuple(ordered))


def _fixed(array: np.ndarray) -> np.ndarray:
    """Forbid writing: these arrays are shared by all users."""
    array.setflags(write=False)
    return array


def _outcomes(
    label: Role, predicted: Role, confidence: np.ndarray, threshold: float | None
) -> np.ndarray:
    place = {name: code for code, name in enumerate(label.names)}
    same = np.array([place.get(name, -2) for name in predicted.names] + [-2], dtype=np.int32)
    is_scored = (label.codes >= 0) & (predicted.codes >= 0)
    is_right = is_scored & (same[predicted.codes] == label.codes)
    is_confident = np.zeros(len(confidence), dtype=bool)
    if threshold is not None:
        is_confident = confidence >= threshold
    conditions = [~is_scored, is_right, is_confident]
    chosen = np.select(conditions, [NOT_SCORED, CORRECT, CONFIDENT], default=WRONG)
    return chosen.astype(np.uint8)


def load_cells(
    store: Reader,
    scope: Scope,
    configuration: str,
    seed: int | None = None,
    *,
    places: np.ndarray | None = None,
) -> MapCells:
    """Read all cells of the scope's dataset under one series; filters of the scope are not applied.

    Parameters
    ----------
    places
        (n, 2) places by `cell_index`, for a dataset that has none of its own.

    Raises
    ------
    InputError
        If there is no such configuration or seed.
    """
    row = shown_series(store, scope, configuration, seed)
    series_id = str(row["series_id"])
    rows = store.query(
        "map_cells",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_id=series_id,
        owner=scope.owner,
    )
    slices = store.query("map_slices", dataset_id=scope.dataset_id, owner=scope.owner)
    place = pd.Index(slices["slice_key"]).get_indexer(rows["slice_key"])
    roles = {
        "label": _role(rows["label"], by_family(rows["label"].dropna().unique())),
        "predicted": _role(rows["predicted"], by_family(rows["predicted"].dropna().unique())),
    }
    for name in ("donor", "timepoint", "label_source", "genotype"):
        order = in_clinical_order(slices[name].dropna().unique()) if name == "timepoint" else None
        role = _role(slices[name], order)
        roles[name] = Role(_fixed(role.codes[place]), role.names)
    own = rows[["umap_x", "umap_y"]].to_numpy(dtype=np.float64, na_value=np.nan)
    is_computed = places is not None and not np.isfinite(own).any()
    threshold = threshold_of(store, scope, series_id)
    confidence = rows["confidence"].to_numpy(dtype=np.float32, na_value=np.nan).copy()
    return MapCells(
        dataset_id=scope.dataset_id,
        configuration=configuration,
        display_name=str(row["display_name"]),
        series_id=series_id,
        seed=int(row["seed"]),
        status_text=str(row["status_text"]),
        threshold=threshold,
        coordinates=quantise(*(places if is_computed else own).T),  # type: ignore[union-attr]
        is_computed=is_computed,
        roles=roles,
        confidence=_fixed(confidence),
        outcome=_fixed(_outcomes(roles["label"], roles["predicted"], confidence, threshold)),
    )


def cell_details(
    store: Reader, scope: Scope, cells: MapCells, cell_indices: Sequence[int] | None
) -> pd.DataFrame:
    """Return one row for each cell asked for, in that order; None gives all cells.

    Returns
    -------
    Columns `cell_id`, `cell_index`, `label`, `predicted`, `confidence`, `outcome`, `donor`,
    `timepoint`, `study`, `sample`, `day`, `genotype`, `label_source`, `n_counts`, `n_genes`.
    """
    asked = None if cell_indices is None else [int(index) for index in cell_indices]
    columns = ["cell_id", "cell_index", "label", "predicted", "confidence", "outcome"]
    rows = store.query(
        "map_details",
        dataset_id=scope.dataset_id,
        # No cell and no filter look the same to the store.
        cell_indices=[-1] if asked == [] else asked,
        owner=scope.owner,
    )
    if asked is not None:
        rows = rows.set_index("cell_index", drop=False).loc[asked].reset_index(drop=True)
    place = rows["cell_index"].to_numpy(dtype=np.int64)
    added = rows.assign(
        label=pd.Series(cells.roles["label"].words(place), dtype=object),
        predicted=pd.Series(cells.roles["predicted"].words(place), dtype=object),
        confidence=cells.confidence[place],
        outcome=[OUTCOMES[code] for code in cells.outcome[place]],
    )
    return added[columns + [name for name in rows.columns if name not in columns]]


def wrong_models(
    store: Reader, scope: Scope, configurations: Sequence[str], n_cells: int
) -> tuple[np.ndarray, int]:
    """Count for each cell how many of some models call it wrong.

    Returns
    -------
    (n_cells,) int16, -1 where a cell has no label or not every model a prediction for it, and the
    number of models.
    """
    known = set(series_of(store, scope)["configuration"])
    shown = [name for name in configurations if name in known]
    series = [str(shown_series(store, scope, name)["series_id"]) for name in shown]
    rows = store.query(
        "map_failing_models",
        dataset_id=scope.dataset_id,
        label_level=scope.label_level,
        series_ids=series,
        owner=scope.owner,
    )
    rows = rows[rows["n_models"] == len(series)]
    counts = np.full(n_cells, -1, dtype=np.int16)
    counts[rows["cell_index"].to_numpy(dtype=np.int64)] = rows["n_wrong"].to_numpy(dtype=np.int16)
    return _fixed(counts), len(series)
