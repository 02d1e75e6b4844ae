import numpy as np
import pytest
from sklearn.metrics import f1_score

from backend.evaluation.views import patient_courses
from tests.helpers import draw_cells, open_store, write_results


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Six patients, four of them with two samples after treatment, and three healthy donors."""
    cells = draw_cells(
        samples={"Healthy": 3, "Diagnosis": 6, "Post-treatment": 5}, cells_per_sample=150
    )
    after = cells.timepoint == "Post-treatment"
    late = after & cells.donor.ne("AML05") & (np.arange(len(cells)) % 3 == 0)
    cells["day"] = np.where(cells.timepoint == "Diagnosis", 0, np.where(late, 90, 30))
    cells["day"] = cells["day"].where(cells.timepoint != "Healthy").astype("Int32")
    cells["sample"] = cells.donor + "-D" + cells.day.astype("string").fillna("")
    made = write_results(
        tmp_path_factory.mktemp("course"), cells=cells, protocols=("donor",),
        models={"logreg": ("Logistic regression", (0,))}, failed=(), fine=(),
    )  # fmt: skip
    store = open_store(made.root)
    yield made, patient_courses(store, made.scope(), "logreg")
    store.close()


def f1_of(made, keep, types):
    cells = made.cells
    keep = keep & cells.cell_type_lineage.notna()
    predicted = made.predicted["logreg", "donor", 0]
    return f1_score(
        cells.cell_type_lineage[keep], predicted[keep], labels=types, average=None, zero_division=0
    )


def test_only_patients_with_two_timepoints_are_followed(course):
    _, view = course
    assert view.n_donors == 5
    assert set(view.by_timepoint.donor) == {f"AML{index:02d}" for index in range(1, 6)}
    assert set(view.by_timepoint.timepoint) == {"Diagnosis", "Post-treatment"}


def test_each_sample_has_its_day_and_its_own_score(course):
    made, view = course
    mine = view.by_sample[view.by_sample.donor == "AML01"]
    assert mine.day.tolist() == [0, 30, 90]
    cells = made.cells
    for row in mine.itertuples():
        keep = (cells["sample"] == row.sample) & cells.cell_type_lineage.notna()
        assert row.n_cells == keep.sum()
        labels = sorted(set(cells.cell_type_lineage[keep]))
        types = [name for name in labels if name in panel_of(made)]
        assert row.n_types == len(types)
        assert row.value == pytest.approx(f1_of(made, keep, types).mean())
    assert len(view.by_sample[view.by_sample.donor == "AML05"]) == 2


def panel_of(made):
    cells = made.cells.dropna(subset=["cell_type_lineage"])
    grouped = cells.groupby(["timepoint", "cell_type_lineage"]).donor.agg(["size", "nunique"])
    enough = (grouped["size"] >= 20) & (grouped["nunique"] >= 3)
    return set(enough.unstack().all()[lambda kept: kept].index)


def test_change_is_over_the_patients_of_both_timepoints(course):
    made, view = course
    assert len(view.changes) == 1
    row = view.changes.iloc[0]
    cells = made.cells
    shared = cells.donor.isin([f"AML{index:02d}" for index in range(1, 6)])
    before = shared & (cells.timepoint == "Diagnosis")
    after = shared & (cells.timepoint == "Post-treatment")
    sizes = [cells.cell_type_lineage[keep].value_counts() for keep in (before, after)]
    types = sorted(set(sizes[0].index[sizes[0] >= 20]) & set(sizes[1].index[sizes[1] >= 20]))
    assert row.n_types == len(types)
    assert row.n_donors == 5
    assert row.before == pytest.approx(f1_of(made, before, types).mean())
    assert row.after == pytest.approx(f1_of(made, after, types).mean())
    assert row.difference == pytest.approx(row.after - row.before)
    assert row.low < row.difference < row.high
    one = view.by_type[view.by_type.cell_type == types[0]].iloc[0]
    assert one.after == pytest.approx(f1_of(made, after, types[:1])[0])
    assert one.n_cells == sizes[1][types[0]]
    of_type = cells[after & (cells.cell_type_lineage == types[0])]
    assert one.top_donor_share == pytest.approx(of_type.donor.value_counts(normalize=True).max())
    assert view.by_type.difference.is_monotonic_increasing


def test_nobody_is_followed_where_every_donor_has_one_timepoint(tmp_path):
    cells = draw_cells(samples={"Healthy": 3, "Diagnosis": 4}, cells_per_sample=40)
    made = write_results(
        tmp_path, cells=cells, protocols=("donor",), models={"logreg": ("LR", (0,))}, failed=()
    )
    store = open_store(tmp_path)
    view = patient_courses(store, made.scope(), "logreg")
    store.close()
    assert view.n_donors == 0
    assert view.by_sample.empty
    assert view.changes.empty
