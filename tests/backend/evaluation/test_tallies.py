import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import LabelError
from backend.evaluation.tallies import Tallies

CELLS = pd.DataFrame(
    {
        "donor": ["a", "a", "a", "b", "b", "b", "b"],
        "label": ["B", "B", "T", "B", "T", "T", None],
        "predicted": ["B", "T", "T", "B", "T", "NK", "T"],
    }
)


def count(cells: pd.DataFrame, **options) -> Tallies:
    return Tallies.from_labels(cells["donor"], cells["label"], cells["predicted"], **options)


def test_counts_equal_the_hand_count_and_leave_out_unlabelled_cells():
    tallies = count(CELLS)
    assert tallies.donors == ("a", "b")
    assert tallies.types == ("B", "NK", "T")
    assert tallies.tp.tolist() == [[1, 0, 1], [1, 0, 1]]
    assert tallies.n_label.tolist() == [[2, 0, 1], [1, 0, 2]]
    assert tallies.n_predicted.tolist() == [[1, 0, 2], [1, 1, 1]]
    assert [counts.tolist() for counts in tallies.pooled()] == [[2, 0, 2], [3, 0, 3], [2, 1, 3]]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(len(CELLS))))
def test_the_order_of_cells_changes_nothing(order):
    plain, shuffled = count(CELLS), count(CELLS.iloc[list(order)])
    for name in ("tp", "n_label", "n_predicted"):
        assert np.array_equal(getattr(plain, name), getattr(shuffled, name))


def test_donors_outside_the_axis_are_left_out_and_missing_ones_are_zero():
    frame = pd.DataFrame(
        {"donor": ["a", "b"], "cell_type": ["T", "T"], "tp": 1, "n_label": 2, "n_predicted": 3}
    )
    tallies = Tallies.from_frame(frame, donors=("b", "c"), types=("T",))
    assert tallies.n_label.tolist() == [[2], [0]]
    assert tallies.of_scored_donors().donors == ("b",)


def test_a_type_outside_the_label_set_is_refused():
    with pytest.raises(LabelError, match="outside the label set: T"):
        count(CELLS, types=("B", "NK"))


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(LabelError, match="do not fit 1 donors and 2 types"):
        Tallies(("a",), ("B", "T"), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 3)))


def test_seeds_stack_on_a_leading_axis_only_when_they_agree():
    one = count(CELLS)
    assert Tallies.stack([one, one]).tp.shape == (2, 2, 3)
    with pytest.raises(LabelError, match="do not share donors and types"):
        Tallies.stack([one, count(CELLS[CELLS["donor"] == "a"])])
