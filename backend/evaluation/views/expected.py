"""Accuracy to expect of a model on cells without labels, and how far off that guess was before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.data.vocabularies import ABSTAINED
from backend.evaluation.calibration import calibrated_confidence, fit_temperature
from backend.evaluation.f1 import SMALL_CELLS
from backend.evaluation.views.model_source import model_source
from backend.evaluation.views.series import configurations_in
from backend.evaluation.views.source import NO_DONOR, NO_TIMEPOINT, in_clinical_order
from backend.evaluation.wording import number, plain, plural
from backend.store.per_cell import cell_places, run_pieces
from backend.types import LABEL_LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.evaluation.views.model_source import ModelSource
    from backend.store.cache import Store
    from backend.types import Scope

__all__ = ["Expected", "expected_accuracy", "expected_table"]

_MOST_CLASSES: Final = 64
"""Above, bundles keep the five largest probabilities only."""


@dataclass(frozen=True)
class Expected:
    """What one model's calibrated confidence says of its accuracy on a sample.

    Parameters
    ----------
    value, temperature
        Mean calibrated confidence (0-1) over the called cells, and the temperature used.
    by_donor
        `donor, timepoint, expected, n_cells` of the sample.
    reference
        Name of the dataset that the guess was tried on.
    errors
        `donor, expected, accuracy, error, n_cells` of every donor held out there.
    reason
        Why there is no guess; empty otherwise.
    untried
        Timepoints of the sample that no reference donor has.
    """

    configuration: str
    display_name: str
    value: float
    temperature: float
    n_cells: int
    by_donor: pd.DataFrame
    reference: str
    errors: pd.DataFrame
    reason: str = ""
    untried: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Say in Markdown what to expect, and how far off the same guess was on the reference."""
        if self.reason:
            return f"No accuracy can be expected: {self.reason}."
        off = self.errors["error"].abs()
        return (
            f"Accuracy to expect: {number(self.value)} ({plural(self.n_cells, 'cell')}; no labels, "
            f"so this is a guess from confidence). On {plural(len(off), 'donor')} of "
            f"{plain(self.reference)} this guess was off by {number(float(off.median()))} at the "
            f"median, {number(float(off.max()))} at most. {self.caution()}".strip()
        )

    def caution(self) -> str:
        """Say in Markdown at which timepoints of the sample the guess was never tried, if any."""
        if not self.untried:
            return ""
        untried = " and ".join(plain(name) for name in self.untried)
        return (
            f"No donor of {plain(self.reference)} was at {untried}, so it may be off by more there."
        )


def expected_accuracy(store: Store, scope: Scope) -> tuple[Expected, ...]:
    """Guess the accuracy of every model of an upload from its confidence.

    The temperature is fitted on the validation cells of all folds of the model's series. The
    error beside it is of guesses made in the same way on each test donor, with the temperature of
    that donor's fold alone: neither model nor temperature has seen the donor.
    """
    found = []
    for item in configurations_in(store, scope):
        if not item.series:
            continue
        source = model_source(store, scope, item.series[0])
        if source is None:
            continue
        found.append(_guess(store, scope, source, item.key, item.display_name, item.series[0]))
    return tuple(found)


def expected_table(found: Sequence[Expected]) -> pd.DataFrame:
    """Return a row for every model that has a guess, with how far off it was on the reference.

    Columns `display_name`, `expected` (0-1), `median_error`, `largest_error` (absolute, over
    `n_donors` donors of `reference`), `n_cells`.
    """
    rows = [
        {
            "display_name": one.display_name,
            "expected": one.value,
            "median_error": float(one.errors["error"].abs().median()),
            "largest_error": float(one.errors["error"].abs().max()),
            "n_cells": one.n_cells,
            "n_donors": len(one.errors),
            "reference": one.reference,
        }
        for one in found
        if not one.reason
    ]
    return pd.DataFrame(rows)


def _guess(
    store: Store, scope: Scope, source: ModelSource, key: str, name: str, series_id: str
) -> Expected:
    none = pd.DataFrame()

    def refused(reason: str) -> Expected:
        return Expected(key, name, np.nan, np.nan, 0, none, source.name, none, reason)

    runs = store.query("runs", owner=scope.owner, dataset_id=scope.dataset_id)
    run = runs[runs["series_id"] == series_id].iloc[0]
    if source.reason:
        return refused(source.reason)
    if run["label_level"] != scope.label_level or scope.label_level not in LABEL_LEVELS:
        return refused(f"it is guessed for {run['label_level']} labels only")
    if len(run["classes"]) > _MOST_CLASSES:
        return refused(f"it answers more than {_MOST_CLASSES} types")
    temperature, errors = _tried(store, source)
    if errors.empty:
        return refused("its folds hold no validation cells to calibrate on")
    by_donor = _of_sample(store, scope, str(run["run_id"]), tuple(run["classes"]), temperature)
    n_cells = int(by_donor["n_cells"].sum())
    if not n_cells:
        return refused("no cell has a call")
    value = float((by_donor["expected"] * by_donor["n_cells"]).sum() / n_cells)
    known = set(cell_places(store, source.dataset_id, owner=scope.owner).timepoints)
    untried = in_clinical_order(set(by_donor["timepoint"]) - known - {NO_TIMEPOINT})
    return Expected(
        key, name, value, temperature, n_cells, by_donor, source.name, errors, untried=untried
    )


def _tried(store: Store, source: ModelSource) -> tuple[float, pd.DataFrame]:
    """Return the temperature of all validation cells, and the guess against each test donor."""
    owner = source.scope.owner
    places = cell_places(store, source.dataset_id, owner=owner)
    valid, tests = [], []
    for run_id, classes in source.runs:
        index = pd.Index(classes)
        pieces: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
            "valid": [],
            "test": [],
        }
        for cells, proba in run_pieces(store, run_id, len(classes), owner=owner):
            label = index.get_indexer(cells["label"])
            donor = places.donor_of(cells["cell_id"])
            for role, kept in pieces.items():
                chosen = (cells["role"] == role).to_numpy() & (label >= 0)
                kept.append((proba[chosen], label[chosen], donor[chosen]))
        proba, label, donor = _joined(pieces["valid"])
        if not len(label):
            continue
        valid.append((proba, label, donor))
        own = fit_temperature(proba, label, _even(donor))
        tests.append(_donor_errors(*_joined(pieces["test"]), own))
    if not valid:
        return np.nan, pd.DataFrame()
    proba, label, donor = _joined(valid)
    return fit_temperature(proba, label, _even(donor)), pd.concat(tests, ignore_index=True)


def _joined(
    pieces: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    proba, label, donor = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return proba, label, donor


def _even(donor: np.ndarray) -> np.ndarray:
    """Return weights by which every donor counts once."""
    _, inverse, counts = np.unique(donor, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def _donor_errors(
    proba: np.ndarray, label: np.ndarray, donor: np.ndarray, temperature: float
) -> pd.DataFrame:
    cells = pd.DataFrame(
        {
            "donor": donor,
            "expected": calibrated_confidence(proba, temperature),
            "accuracy": proba.argmax(axis=1) == label,
        }
    )
    by_donor = cells.groupby("donor", as_index=False).agg(
        expected=("expected", "mean"), accuracy=("accuracy", "mean"), n_cells=("accuracy", "size")
    )
    by_donor = by_donor[by_donor["n_cells"] >= SMALL_CELLS]
    return by_donor.assign(error=by_donor["expected"] - by_donor["accuracy"])


def _of_sample(
    store: Store, scope: Scope, run_id: str, classes: tuple[str, ...], temperature: float
) -> pd.DataFrame:
    places = cell_places(store, scope.dataset_id, owner=scope.owner)
    types = [place for place, name in enumerate(classes) if name != ABSTAINED]
    parts = []
    for cells, proba in run_pieces(store, run_id, len(classes), owner=scope.owner):
        called = (cells["predicted"] != ABSTAINED).to_numpy()
        parts.append(
            pd.DataFrame(
                {
                    "donor": places.donor_of(cells["cell_id"])[called],
                    "timepoint": places.timepoint_of(cells["cell_id"])[called],
                    "expected": calibrated_confidence(proba[called][:, types], temperature),
                }
            )
            .groupby(["donor", "timepoint"], dropna=False)["expected"]
            .agg(["sum", "size"])
        )
    summed = pd.concat(parts).groupby(level=[0, 1]).sum().reset_index()
    return pd.DataFrame(
        {
            "donor": summed["donor"].replace("", NO_DONOR),
            "timepoint": summed["timepoint"].replace("", NO_TIMEPOINT),
            "expected": summed["sum"] / summed["size"],
            "n_cells": summed["size"].astype(int),
        }
    )
