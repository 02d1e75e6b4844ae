"""The bytes of the cell map: what is sent is what is read, 8 a cell."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.evaluation.cells.coordinates import MISSING, quantise
from backend.evaluation.cells.message import encode, flags_of
from tests.cells import decoded

HEADER = {
    "mode": "category",
    "categories": ["<b>T</b>", "🩸 ببب"],
    "colours": ["#000000", "#FFFFFF"],
}


def columns(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = ("category", "continuous", "facet", "flags")
    return {name: rng.integers(0, 256, n, dtype=np.uint8) for name in names}


def coordinates(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return quantise(rng.normal(size=n), rng.normal(size=n))


def test_layout_is_the_contract():
    places, sent = coordinates(5), columns(5)
    message = encode(places, **sent, header=HEADER)
    assert message[:4] == b"FLM1"
    (length,) = struct.unpack("<I", message[4:8])
    header = json.loads(message[8 : 8 + length].decode("utf-8"))
    assert header["n"] == 5
    assert header["categories"] == HEADER["categories"]
    assert {"x_min", "x_max", "y_min", "y_max"} <= header.keys()
    start = -(-(8 + length) // 8) * 8
    assert set(message[8 + length : start]) <= {0}
    expected = places.x.astype("<u2").tobytes() + places.y.astype("<u2").tobytes()
    expected += b"".join(
        sent[name].tobytes() for name in ("category", "continuous", "facet", "flags")
    )
    assert message[start:] == expected
    assert len(message) - start == 8 * 5


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 300), seed=st.integers(0, 2**16), text=st.text(max_size=40))
def test_message_is_read_back(n, seed, text):
    places, sent = coordinates(n, seed), columns(n, seed)
    header, found = decoded(encode(places, **sent, header={**HEADER, "title": text}))
    assert header["title"] == text
    assert found.keys() == {"x", "y", *sent}
    for name, column in {**sent, "x": places.x, "y": places.y}.items():
        np.testing.assert_array_equal(found[name], column)


def test_a_recolouring_needs_four_bytes_a_cell():
    places, sent = coordinates(1000), columns(1000)
    whole = encode(places, **sent, header=HEADER)
    again = encode(places, **sent, header=HEADER, with_coordinates=False)
    header, found = decoded(again)
    assert header["coordinates"] == decoded(whole)[0]["coordinates"] == places.token
    assert "x" not in found
    # The header says which columns there are, so it is a little shorter.
    assert 4000 <= len(whole) - len(again) <= 4016


def test_token_names_the_places():
    places = coordinates(50)
    assert places.token == coordinates(50).token
    assert places.token != coordinates(50, seed=1).token
    moved = quantise(places.x_values() + 1, places.y_values())
    assert (moved.x == places.x).all()
    assert moved.token != places.token


def test_flags_are_bits():
    bits = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool).T
    flags = flags_of(wrong=bits[0], confident=bits[1], selected=bits[2], context=bits[3])
    assert flags.tolist() == [0, 1, 3, 4, 8]
    assert flags_of(wrong=bits[0], confident=bits[1], selected=None, context=bits[3])[3] == 0


def test_columns_of_another_length_are_a_fault():
    with pytest.raises(ValueError, match="facet"):
        encode(coordinates(9), **{**columns(9), "facet": np.zeros(8, np.uint8)}, header=HEADER)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(0, 2**16),
)
def test_places_keep_their_value_within_half_a_step(x, seed):
    y = np.random.default_rng(seed).normal(size=len(x))
    places = quantise(x, y)
    assert places.is_placed.all()
    step = (places.x_max - places.x_min) / 65_534
    assert np.abs(places.x_values() - x).max() <= step * 0.5001 + 1e-9
    assert (places.x <= 65_534).all()


def test_cells_without_a_place_keep_their_row():
    x = np.array([0.0, np.nan, 2.0, np.inf, 4.0])
    y = np.array([0.0, 1.0, np.nan, 3.0, 4.0])
    places = quantise(x, y)
    assert places.is_placed.tolist() == [True, False, False, False, True]
    assert places.x[1] == places.y[1] == MISSING
    assert (places.x_min, places.x_max) == (0.0, 4.0)


def test_one_cell_and_no_cell_have_a_map():
    one = quantise(np.array([3.0]), np.array([-1.0]))
    assert one.x_min < 3.0 < one.x_max
    assert abs(one.x_values()[0] - 3.0) < 1e-4
    none = quantise(np.array([np.nan]), np.array([np.nan]))
    assert not none.is_placed.any()
    assert none.x_max > none.x_min
    assert len(quantise(np.zeros(0), np.zeros(0))) == 0
