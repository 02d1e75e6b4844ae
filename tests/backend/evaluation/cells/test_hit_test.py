"""Cells inside a polygon, against a plain count of crossings; what a polygon does to a selection."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InputError
from backend.evaluation.cells.coordinates import binned, quantise
from backend.evaluation.cells.hit_test import (
    MODES,
    cells_inside,
    changed_selection,
    read_event,
    visible_cells,
)


def plain_count(places, polygon) -> list[bool]:
    """Count crossings cell by cell and edge by edge."""
    inside = []
    for x, y, placed in zip(places.x_values(), places.y_values(), places.is_placed, strict=True):
        odd = False
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if min(y1, y2) <= y < max(y1, y2):
                odd ^= x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
        inside.append(bool(odd and placed))
    return inside


corner = st.tuples(st.floats(-2, 2, width=32), st.floats(-2, 2, width=32))


@settings(max_examples=60, deadline=None)
@given(st.lists(corner, min_size=3, max_size=24), st.integers(0, 2**16))
def test_hit_test_counts_crossings(polygon, seed):
    rng = np.random.default_rng(seed)
    places = quantise(rng.uniform(-1.5, 1.5, 80), rng.uniform(-1.5, 1.5, 80))
    polygon = np.array(polygon)
    assert cells_inside(places, polygon).tolist() == plain_count(places, polygon)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16))
def test_cells_on_a_grid_belong_to_exactly_one_of_two_neighbours(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 5, 60).astype(float), rng.integers(0, 5, 60).astype(float)
    x[:2], y[:2] = (0, 4), (0, 4)
    places = quantise(x, y)
    at = float(places.x_values(np.array([np.argmin(np.abs(x - 2))]))[0])
    left = np.array([[-1, -1], [at, -1], [at, 6], [-1, 6]], dtype=float)
    right = np.array([[at, -1], [6, -1], [6, 6], [at, 6]], dtype=float)
    hits = cells_inside(places, left).astype(int) + cells_inside(places, right)
    assert (hits == 1).all()


def test_a_figure_of_eight_leaves_its_middle_out():
    star = [(math.sin(4 * math.pi * k / 5), math.cos(4 * math.pi * k / 5)) for k in range(5)]
    places = quantise(np.array([0.0, 0.0, -2.0, 2.0]), np.array([0.0, 0.7, -2.0, 2.0]))
    assert cells_inside(places, np.array(star)).tolist() == [False, True, False, False]


def test_nothing_is_hit_without_an_area_or_a_place():
    places = quantise(np.array([0.0, np.nan, 1.0]), np.array([0.0, np.nan, 1.0]))
    assert not cells_inside(places, np.zeros((0, 2))).any()
    assert not cells_inside(places, np.array([[0, 0], [1, 1]])).any()
    far = np.array([[50, 50], [60, 50], [60, 60]])
    assert not cells_inside(places, far).any()
    assert not cells_inside(places, -far).any()
    everything = np.array([[-9, -9], [9, -9], [9, 9], [-9, 9]])
    assert cells_inside(places, everything).tolist() == [True, False, True]


def test_hit_test_equals_matplotlib_away_from_edges():
    path = pytest.importorskip("matplotlib.path")
    rng = np.random.default_rng(3)
    places = quantise(rng.normal(size=20_000), rng.normal(size=20_000))
    angle = np.sort(rng.uniform(0, 2 * np.pi, 200))
    radius = rng.uniform(0.4, 1.8, 200)
    polygon = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    points = np.column_stack([places.x_values(), places.y_values()])
    expected = path.Path(polygon).contains_points(points)
    assert (cells_inside(places, polygon) == expected).mean() > 0.9999


def test_modes_are_set_operations():
    before, hit = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    reach = np.array([1, 1, 1, 0], bool)
    after = {mode: changed_selection(before, hit, reach, mode).tolist() for mode in MODES}
    assert after == {
        "replace": [0, 1, 1, 0],
        "add": [1, 1, 1, 0],
        "remove": [1, 0, 0, 0],
        "invert": [0, 0, 1, 0],
        "clear": [0, 0, 0, 0],
    }
    assert changed_selection(None, hit, reach, "invert").tolist() == reach.tolist()
    assert changed_selection(None, hit, reach, "remove").sum() == 0
    assert before.tolist() == [1, 1, 0, 0]


def test_reach_leaves_out_what_is_hidden_outside_or_in_another_panel():
    places = quantise(np.array([0, 1, 2, 3, np.nan]), np.zeros(5))
    options = {
        "in_scope": np.array([1, 1, 1, 0, 1], bool),
        "category": np.array([0, 1, 0, 0, 0], np.uint8),
        "facet_codes": np.array([0, 0, 1, 0, 0], np.uint8),
    }
    assert visible_cells(places, **options, hidden=(), facet=None).tolist() == [1, 1, 1, 0, 0]
    assert visible_cells(places, **options, hidden=(1,), facet=None).tolist() == [1, 0, 1, 0, 0]
    assert visible_cells(places, **options, hidden=(1,), facet=1).tolist() == [0, 0, 1, 0, 0]


def test_event_is_read():
    event = read_event(
        {
            "kind": "lasso",
            "mode": "add",
            "polygon": [[0, 0], [1, 0], [1, 1.5]],
            "nonce": "n",
            "facet": 2,
            "hidden": [0, 7],
        },
        n_cells=10,
    )
    assert (event.kind, event.mode, event.facet, event.hidden) == ("lasso", "add", 2, (0, 7))
    assert event.polygon.shape == (3, 2)
    hover = read_event({"kind": "hover", "cell_index": 9, "nonce": "x"}, n_cells=10)
    assert (hover.cell_index, hover.polygon.shape) == (9, (0, 2))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "lasso",
        [],
        {},
        {"kind": "drop table"},
        {"kind": "lasso", "mode": "explode"},
        {"kind": "lasso", "polygon": "everything"},
        {"kind": "lasso", "polygon": [[0, 0], [1, 1], [2]]},
        {"kind": "lasso", "polygon": [[0, 0, 0]] * 4},
        {"kind": "lasso", "polygon": [[0, 0]] * 501},
        {"kind": "lasso", "polygon": [[0, 0], [1, float("nan")], [2, 2]]},
        {"kind": "lasso", "polygon": [[0, 0], [1, float("inf")], [2, 2]]},
        {"kind": "lasso", "hidden": list(range(300))},
        {"kind": "lasso", "hidden": ["0"]},
        {"kind": "lasso", "hidden": 3},
        {"kind": "lasso", "facet": -1},
        {"kind": "hover", "cell_index": 10},
        {"kind": "hover", "cell_index": -1},
        {"kind": "hover", "cell_index": 1.5},
        {"kind": "hover", "cell_index": True},
        {"kind": "hover", "cell_index": "0; drop"},
    ],
)
def test_what_is_no_event_is_refused(value):
    with pytest.raises(InputError, match="cannot be used"):
        read_event(value, n_cells=10)


def test_binned_counts_every_placed_cell_once():
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    x[:7] = np.nan
    places = quantise(x, rng.normal(size=500))
    mask = rng.random(500) < 0.5
    counts = binned(places, mask, bins=32)
    assert counts.shape == (32, 32)
    assert counts.sum() == (mask & places.is_placed).sum()
    corners = quantise(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert binned(corners, np.ones(2, bool), bins=8)[[0, 7], [0, 7]].tolist() == [1, 1]
