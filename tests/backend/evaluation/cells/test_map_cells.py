"""Cells of the map against the view of single cells; colours, counts, details."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from backend.errors import InputError
from backend.evaluation.cells.colours import (
    COLOUR_BY,
    VALUES,
    colour_column,
    colour_of_values,
    local_error_rate,
)
from backend.evaluation.cells.columns import Role
from backend.evaluation.cells.coordinates import quantise
from backend.evaluation.cells.map_cells import (
    MapCells,
    count_outcomes,
    load_cells,
    most_confident_first,
    selected_rows,
    wrong_models,
)
from backend.evaluation.outcomes import OUTCOMES
from tests.cells import judged_cells, threshold_in


@pytest.fixture(scope="module")
def cells(store, results) -> MapCells:
    return load_cells(store, results.scope(), "logreg")


@pytest.mark.parametrize(
    ("level", "configuration"), [("lineage", "logreg"), ("lineage", "hgb"), ("fine", "logreg")]
)
def test_cells_are_those_of_the_view(store, results, level, configuration):
    scope = results.scope(label_level=level)
    found = load_cells(store, scope, configuration)
    view = judged_cells(store, scope, configuration)
    assert found.threshold == threshold_in(store, scope, found.series_id)
    assert (view.cell_index == np.arange(len(found))).all()
    rows = np.arange(len(found))
    for name in ("label", "predicted", "donor", "timepoint", "label_source", "genotype"):
        expected = view[name].astype(object).where(view[name].notna(), None)
        assert found.roles[name].words(rows) == list(expected)
    assert [OUTCOMES[code] for code in found.outcome] == list(view.outcome)
    np.testing.assert_array_equal(found.confidence, view.confidence.to_numpy(np.float32))
    step = (found.coordinates.x_max - found.coordinates.x_min) / 65_534
    assert np.abs(found.coordinates.x_values() - view.umap_x).max() <= step
    assert list(found.roles["timepoint"].names) == [
        "Healthy", "Diagnosis", "Post-treatment", "Relapse",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"timepoints": ("Relapse", "Healthy")},
        {"cell_types": ("HSC", "CLP")},
        {"truth": "mutant"},
        {"truth": "clustering", "timepoints": ("Diagnosis",)},
        {"truth": "classifier", "cell_types": ("T",)},
        {"timepoints": ("Relapse",), "cell_types": ("unicorn",)},
    ],
)
def test_filters_and_counts_are_those_of_the_view(store, results, cells, filters):
    scope = results.scope(**filters)
    view = judged_cells(store, scope, "logreg")
    in_scope = cells.in_scope(scope)
    assert np.flatnonzero(in_scope).tolist() == view.cell_index.tolist()
    counts = count_outcomes(cells, in_scope).set_index("outcome")
    assert counts.index.tolist() == list(OUTCOMES)
    for outcome in OUTCOMES:
        told = view[view.outcome == outcome]
        assert counts.n_cells[outcome] == len(told)
        assert counts.n_donors[outcome] == told.donor.nunique()


def test_arrays_cannot_be_written(cells):
    for array in (cells.outcome, cells.confidence, cells.roles["label"].codes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_wrong_cells_come_first_and_the_most_confident_of_them(cells):
    every = np.arange(len(cells))
    rows = most_confident_first(cells, every)
    assert sorted(rows) == every.tolist()
    n_wrong = int(np.isin(cells.outcome, (1, 2)).sum())
    assert cells.is_wrong[rows[:n_wrong]].all()
    assert (np.diff(cells.confidence[rows[:n_wrong]]) <= 0).all()
    assert (np.diff(cells.confidence[rows[n_wrong:]]) <= 0).all()
    for limit in (5, n_wrong, n_wrong + 5):
        assert most_confident_first(cells, every, limit).tolist() == rows[:limit].tolist()
    assert not len(most_confident_first(cells, every[:0]))


def test_rows_of_one_cell_and_of_none(store, results, cells):
    found = selected_rows(store, results.scope(), cells, np.array([40]))
    assert found.cell_index.tolist() == [40]
    assert found.cell_id.tolist() == results.cells.cell_id.iloc[[40]].tolist()
    assert found.predicted.tolist() == cells.roles["predicted"].words(np.array([40]))
    assert len(selected_rows(store, results.scope(), cells, np.array([], int))) == 0


def test_models_that_fail_are_counted_cell_by_cell(store, results):
    scope = results.scope(protocol="random")
    names = ("hgb", "logreg", "majority")
    counts, n_models = wrong_models(store, scope, names, len(results.cells))
    assert n_models == 3
    label = results.cells.cell_type_lineage
    wrong = sum((results.predicted[name, "random", 0] != label).astype(int) for name in names)
    expected = np.where(label.notna(), wrong, -1)
    np.testing.assert_array_equal(counts, expected)


def test_a_cell_that_a_model_did_not_see_is_not_counted(store, results):
    # Fold 3 of hgb failed under donor.
    counts, _ = wrong_models(store, results.scope(), ("hgb", "logreg"), len(results.cells))
    seen = load_cells(store, results.scope(), "hgb").roles["predicted"].codes >= 0
    assert not seen.all()
    assert (counts[~seen] == -1).all()


def test_unknown_configuration_is_named(store, results):
    with pytest.raises(InputError, match="nobody"):
        load_cells(store, results.scope(), "nobody")


@pytest.mark.parametrize("by", COLOUR_BY)
def test_every_way_of_colouring_counts_every_cell(store, results, cells, by):
    in_scope = cells.in_scope(results.scope(timepoints=("Relapse",)))
    n_wrong = wrong_models(store, results.scope(), ("logreg", "majority"), len(cells))
    column = colour_column(cells, by, in_scope, n_wrong)
    assert column.codes.dtype == np.uint8
    assert sum(column.counts) == in_scope.sum()
    assert column.codes.max() < len(column.names)
    assert column.mode == ("continuous" if by in VALUES else "category")
    if by == "label":
        assert column.missing == "not labelled"


def made(n_types: int, *, n: int = 400, wrong: float = 0.3, placed: bool = True) -> MapCells:
    """Cells without a store: any number of types."""
    rng = np.random.default_rng(0)
    label = np.arange(n, dtype=np.int32) % n_types
    predicted = np.where(rng.random(n) < wrong, (label + 1) % n_types, label).astype(np.int32)
    names = tuple(f"type {i:03d}" for i in range(n_types))
    one = Role(np.zeros(n, np.int32), ("A",))
    x = rng.normal(size=n) if placed else np.full(n, np.nan)
    return MapCells(
        "d", "m", "Model", "s", 0.5, quantise(x, x),
        {
            "label": Role(label, names), "predicted": Role(predicted, names), "donor": one,
            "timepoint": one, "label_source": one, "genotype": one,
        },
        rng.random(n).astype(np.float32),
        (label != predicted).astype(np.uint8),
    )  # fmt: skip


def two_clouds(rates: tuple[float, float], *, n: int = 20_000) -> tuple[MapCells, np.ndarray]:
    """Cells of two clouds far apart, each wrong at its own rate, and the cloud of each."""
    rng = np.random.default_rng(0)
    cells = made(3, n=n)
    cloud = rng.integers(0, 2, n)
    x = rng.normal(size=n) + 40 * cloud
    wrong = (rng.random(n) < np.array(rates)[cloud]).astype(np.uint8)
    places = quantise(x, rng.normal(size=n))
    return dataclasses.replace(cells, coordinates=places, outcome=wrong), cloud


def test_local_error_rate_is_the_share_of_wrong_cells_around():
    cells, cloud = two_clouds((0.1, 0.5))
    everywhere = np.ones(len(cells), dtype=bool)
    rate = local_error_rate(cells, everywhere)
    for index, expected in enumerate((0.1, 0.5)):
        dense = rate[cloud == index]
        assert np.median(dense) == pytest.approx(expected, abs=0.03)
    # The other cloud, and cells outside the filters, do not count.
    calm = cells.outcome.copy()
    calm[cloud == 1] = 0
    other = dataclasses.replace(cells, outcome=calm)
    np.testing.assert_allclose(
        local_error_rate(other, everywhere)[cloud == 0], rate[cloud == 0], atol=1e-12
    )
    narrowed = local_error_rate(cells, cloud == 0)
    assert np.isnan(narrowed[cloud == 1]).all()
    np.testing.assert_allclose(narrowed[cloud == 0], rate[cloud == 0], atol=1e-12)


def test_local_error_rate_leaves_out_what_is_not_scored_or_not_placed():
    cells, _ = two_clouds((0.2, 0.2), n=500)
    unscored = dataclasses.replace(cells, outcome=np.full(500, 3, dtype=np.uint8))
    assert np.isnan(local_error_rate(unscored, np.ones(500, dtype=bool))).all()
    assert np.isnan(local_error_rate(made(3, placed=False), np.ones(400, dtype=bool))).all()


@pytest.mark.parametrize("n_types", [1, 150, 255])
def test_up_to_255_types_keep_their_names(n_types):
    cells = made(n_types)
    column = colour_column(cells, "label", np.ones(len(cells), bool))
    assert column.names == cells.roles["label"].names
    assert column.codes.tolist() == cells.roles["label"].codes.tolist()


def test_more_types_share_other_and_lose_no_cell():
    cells = made(300, n=1000)
    column = colour_column(cells, "label", np.ones(1000, bool))
    assert len(column.names) == 255
    assert column.names[-1] == "other"
    assert sum(column.counts) == 1000
    kept = column.codes != 254
    names = np.array(column.names, dtype=object)[column.codes[kept]]
    assert names.tolist() == cells.roles["label"].words(np.flatnonzero(kept))


def test_all_right_and_all_wrong_are_counted():
    everything = np.ones(400, bool)
    right, wrong = made(3, wrong=0.0), made(3, wrong=1.1)
    assert count_outcomes(right, everything).n_cells.tolist() == [400, 0, 0, 0]
    assert count_outcomes(wrong, everything).n_cells.tolist() == [0, 400, 0, 0]
    assert not right.is_wrong.any()


def test_cells_without_a_place_are_counted():
    cells = made(3, placed=False)
    assert not cells.coordinates.is_placed.any()
    assert count_outcomes(cells, np.ones(400, bool)).n_cells.sum() == 400


def test_values_become_codes():
    codes = colour_of_values(np.array([0.0, 0.5, 1.0, np.nan, -3.0, 7.0]))
    assert codes.tolist() == [0, 127, 254, 255, 0, 254]
