import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from backend.cli import main
from backend.evaluation import views
from backend.evaluation.description import (
    describe_slice,
    describes,
    is_few_donors,
    is_grey,
    kind_of,
)
from backend.evaluation.metrics import METRICS
from backend.evaluation.panel import make_panel
from tests.helpers import draw_cells, open_store, write_results

KEY = ("logreg", "donor", 0)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Two patients at Relapse, one of them at Diagnosis too."""
    cells = draw_cells(samples={"Diagnosis": 1, "Relapse": 2}, cells_per_sample=240, n_studies=1)
    return write_results(
        tmp_path_factory.mktemp("patients"),
        cells=cells,
        name="Two patients",
        simulated=False,
        source="a hospital",
        protocols=("donor",),
        models={"logreg": ("Logistic regression (L1)", (0,))},
        failed=(),
        fine=(),
    )


@pytest.fixture(scope="module")
def patients_store(patients):
    with open_store(patients.root) as opened:
        yield opened


def slice_of(results, **values):
    """Return labels and predictions of labelled cells, and the types with 20 cells among them."""
    keep = results.cells["cell_type_lineage"].notna()
    for column, value in values.items():
        keep &= results.cells[column] == value
    label = results.cells["cell_type_lineage"][keep].to_numpy(dtype=str)
    names, counts = np.unique(label, return_counts=True)
    return label, results.predicted[KEY][keep].astype(str), names[counts >= 20].tolist()


def test_a_slice_is_described_over_types_with_20_cells_at_any_number_of_donors():
    support = np.array([[19, 20, 0, 40]])
    one = describe_slice(support, ("B", "A", "C", "D"))
    assert one.types == ("A", "D")
    assert one.excluded == {"B": "19 cells"}
    assert (one.n_types, one.n_cells, one.n_cells_scored, one.n_donors) == (3, 79, 60, 1)
    assert one.describe() == "2 of 3 types"
    narrowed = describe_slice(support, ("B", "A", "C", "D"), chosen=("A", "B"))
    assert narrowed.types == ("A",)
    assert narrowed.excluded == {"B": "19 cells", "D": "not chosen"}
    assert "no type has 20 labelled cells" in describe_slice(support[:, :1], ("B",)).reason


def test_what_compares_and_what_is_grey_or_marked():
    enough, few = np.full((3, 1), 20), np.full((2, 1), 20)
    assert kind_of(make_panel({"Healthy": enough, "Relapse": few}, ["T"])) == "comparison"
    assert kind_of(make_panel({"Relapse": few}, ["T"])) == "description"
    assert is_grey(np.array([19, 20])).tolist() == [True, False]
    assert is_few_donors(np.array([0, 1, 2, 3])).tolist() == [False, True, True, False]
    assert describes(1) == "describes this 1 donor, says nothing about others"
    assert describes(2) == "describes these 2 donors, says nothing about others"


@pytest.mark.parametrize("metric", METRICS)
def test_two_patients_have_every_metric_and_nothing_is_compared(patients_store, patients, metric):
    view = views.scores_by_timepoint(patients_store, patients.scope(), metric=metric)
    assert view.kind == "description"
    assert view.differences.empty
    assert view.scores["value"].notna().all()
    assert view.donors["value"].notna().all()
    assert set(view.scores["interval"]) == {"none"}
    assert view.scores["low"].isna().all()
    for row in view.scores.itertuples():
        assert row.n_types_scored == len(view.descriptions[row.timepoint].types)
        assert f"{row.n_donors} donor" in row.reason


def test_scores_of_a_description_equal_scikit_learn(patients_store, patients):
    macro = views.scores_by_timepoint(patients_store, patients.scope())
    accuracy = views.scores_by_timepoint(patients_store, patients.scope(), metric="accuracy")
    for timepoint, n_donors in (("Diagnosis", 1), ("Relapse", 2)):
        label, predicted, types = slice_of(patients, timepoint=timepoint)
        assert types
        one = macro.descriptions[timepoint]
        assert list(one.types) == types
        assert one.n_donors == n_donors
        row = macro.scores[macro.scores["timepoint"] == timepoint].iloc[0]
        expected = f1_score(label, predicted, labels=types, average="macro", zero_division=0)
        assert row["value"] == pytest.approx(expected)
        assert (row["n_cells"], row["n_donors"]) == (len(label), n_donors)
        of_types = np.isin(label, types)
        row = accuracy.scores[accuracy.scores["timepoint"] == timepoint].iloc[0]
        assert row["value"] == pytest.approx(accuracy_score(label[of_types], predicted[of_types]))


def test_each_donor_is_described_over_its_own_types(patients_store, patients):
    view = views.scores_by_donor(patients_store, patients.scope(), "logreg")
    assert view.kind == "description"
    assert len(view.totals) == 3
    for row in view.totals.itertuples():
        label, predicted, types = slice_of(patients, timepoint=row.timepoint, donor=row.donor)
        expected = f1_score(label, predicted, labels=types, average="macro", zero_division=0)
        assert row.value == pytest.approx(expected)
        assert (row.n_types, row.n_cells) == (len(types), len(label))


def test_five_donors_without_a_common_type_are_described_with_an_interval(tmp_path):
    cells = draw_cells(samples={"Diagnosis": 6, "Relapse": 6}, cells_per_sample=240)
    early, t_cell = cells["timepoint"] == "Diagnosis", cells["cell_type_lineage"] == "T"
    cells.loc[early != t_cell, ["cell_type_lineage", "cell_type_fine"]] = None
    results = write_results(tmp_path, cells=cells, protocols=("donor",), failed=(), fine=())
    with open_store(tmp_path) as store:
        view = views.scores_by_timepoint(store, results.scope(configurations=("hgb",)))
    assert view.kind == "description"
    assert view.descriptions["Diagnosis"].types == ("T",)
    assert "T" not in view.descriptions["Relapse"].types
    assert (view.scores["low"] < view.scores["value"]).all()
    assert set(view.scores["interval"]) == {"few donors"}
    assert view.differences.empty


def test_the_overview_says_whom_it_describes(patients_store, patients):
    view = views.overview(patients_store, patients.scope())
    (sentence,) = view.sentences
    assert view.kind == "description"
    assert sentence.startswith("`logreg`: macro-F1 Diagnosis 0.")
    assert "describes these 2 donors, says nothing about others." in sentence
    assert "loses" not in sentence
    assert any(note.startswith("Relapse: describes these 2 donors") for note in view.notes)
    assert not any("does not set the panel" in note for note in view.notes)


def test_a_slice_of_small_types_says_why_it_has_no_score(tmp_path):
    cells = draw_cells(samples={"Relapse": 2}, cells_per_sample=20)
    results = write_results(tmp_path, cells=cells, protocols=("donor",), failed=(), fine=())
    with open_store(tmp_path) as store:
        view = views.overview(store, results.scope(configurations=("logreg",)))
    assert view.scores["value"].isna().all()
    assert set(view.scores["reason"]) == {"no type has 20 labelled cells here"}
    assert "no macro-F1." in view.sentences[0]
    assert "no type has 20 labelled cells here." in view.sentences[0]


def test_a_collapsed_type_of_two_patients_is_named_from_20_cells_on(tmp_path):
    cells = draw_cells(samples={"Relapse": 2}, cells_per_sample=240)
    results = write_results(
        tmp_path, cells=cells, protocols=("donor",), failed=(), fine=(),
        models={"logreg": ("Logistic regression", (0,))},
    )  # fmt: skip
    with open_store(tmp_path) as store:
        collapsed = views.overview(store, results.scope()).collapsed
        scores = views.f1_by_cell_type(store, results.scope()).scores
    low = scores[(scores["f1"] < views.COLLAPSE_F1) & (scores["n_cells"] >= 20)]
    assert set(low["cell_type"]) <= set(collapsed["cell_type"])


@pytest.mark.parametrize("by", ["timepoint", "cell_type", "donor"])
def test_score_says_which_of_both_it_prints(capsys, patients, small, by):
    words = ["score", "--by", by, "--results"]
    assert main([*words, str(patients.root)]) == 0
    text = capsys.readouterr().out
    assert "Kind: description; describes these 2 donors, says nothing about others." in text
    assert "Panel:" not in text
    assert main([*words, str(patients.root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "description"
    assert report["describes"] == describes(2)
    assert ("descriptions" in report) == (by == "timepoint")
    assert main([*words, str(small.root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "comparison"
    assert not {"describes", "descriptions"} & set(report)
