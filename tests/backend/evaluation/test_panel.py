import numpy as np

from backend.evaluation.panel import make_panel

TYPES = ("B", "CLP", "HSC", "HSC-like", "T")


def spread(n_donors: int, *cells: int) -> np.ndarray:
    """Give each type its cells, split evenly over the donors."""
    return np.array([[n // n_donors for n in cells]] * n_donors)


def test_a_panel_type_has_20_cells_and_3_donors_in_every_slice():
    healthy = spread(3, 60, 0, 18, 0, 60)
    diagnosis = spread(5, 100, 5, 100, 500, 100)
    diagnosis[2:, 4] = 0
    panel = make_panel({"Healthy": healthy, "Diagnosis": diagnosis}, TYPES)
    assert panel.types == ("B",)
    assert panel.excluded == {
        "CLP": "no cell at Healthy",
        "HSC": "18 cells at Healthy",
        "HSC-like": "no cell at Healthy",
        "T": "2 donors at Diagnosis",
    }
    assert panel.describe() == "1 of 5 types"


def test_the_bounds_are_inclusive():
    assert make_panel({"x": np.array([[10], [5], [5]])}, ("B",)).types == ("B",)
    assert make_panel({"x": np.array([[10], [5], [4]])}, ("B",)).excluded == {"B": "19 cells"}


def test_a_slice_with_two_donors_does_not_set_the_panel():
    panel = make_panel(
        {"Diagnosis": spread(4, 80, 0, 80, 80, 80), "Relapse": spread(2, 0, 0, 40, 40, 0)}, TYPES
    )
    assert panel.types == ("B", "HSC", "HSC-like", "T")
    assert panel.slices == ("Diagnosis",)
    assert panel.skipped == {"Relapse": "2 donors: shown as dots, does not set the panel"}


def test_without_any_slice_of_three_donors_nothing_is_scored():
    panel = make_panel({"Relapse": spread(2, 40, 0, 40, 40, 0)}, TYPES)
    assert panel.types == ()
    assert set(panel.excluded.values()) == {"no slice has 3 donors"}


def test_types_that_no_cell_is_labelled_with_are_not_counted():
    assert make_panel({"x": spread(4, 80, 0, 80, 80, 80)}, TYPES).n_types == 4


def test_a_healthy_comparison_at_the_fine_level_says_that_normal_types_only_are_scored():
    support = {"Healthy": spread(3, 60, 0, 60, 0, 60), "Diagnosis": spread(3, 60, 0, 60, 60, 60)}
    panel = make_panel(support, TYPES, malignant=("HSC-like",))
    assert panel.describe() == "3 of 4 types, normal types only"
    alone = make_panel({"Diagnosis": support["Diagnosis"]}, TYPES, malignant=("HSC-like",))
    assert not alone.is_normal_only


def test_the_hash_follows_types_and_slices_but_not_the_user_order():
    support = {"x": spread(4, 80, 0, 80, 80, 80)}
    one = make_panel(support, TYPES)
    turned = make_panel({"x": support["x"][:, ::-1]}, TYPES[::-1])
    assert one.sha256 == turned.sha256
    fewer = make_panel(support, TYPES, chosen=("B", "T"))
    assert fewer.types == ("B", "T")
    assert fewer.excluded["HSC"] == "not chosen"
    assert fewer.sha256 != one.sha256
