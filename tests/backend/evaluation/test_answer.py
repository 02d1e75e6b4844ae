import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from backend.evaluation import views
from backend.evaluation.metrics import METRICS
from tests.helpers import draw_cells, open_store, write_results


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    root = tmp_path_factory.mktemp("answer")
    cells = draw_cells(samples={"Diagnosis": 1, "Relapse": 2}, cells_per_sample=240, n_studies=1)
    results = write_results(
        root, cells=cells, protocols=("donor",), failed=(), fine=(),
        models={"logreg": ("Logistic_regression", (0,))},
    )  # fmt: skip
    with open_store(root) as store:
        (answer,) = views.answers(store, results.scope())
    return results, answer


def test_the_answer_equals_scikit_learn_over_all_cells(answered):
    results, answer = answered
    keep = results.cells["cell_type_lineage"].notna()
    label = results.cells["cell_type_lineage"][keep].to_numpy(dtype=str)
    predicted = results.predicted["logreg", "donor", 0][keep].astype(str)
    names, counts = np.unique(label, return_counts=True)
    types = names[counts >= 20].tolist()
    expected = f1_score(label, predicted, labels=types, average="macro", zero_division=0)
    of_types = np.isin(label, types)
    assert set(answer.scores) == set(METRICS)
    assert answer.scores["macro_f1"] == pytest.approx(expected)
    assert answer.scores["accuracy"] == pytest.approx(
        accuracy_score(label[of_types], predicted[of_types])
    )
    assert (answer.n_labelled, answer.coverage) == (len(label), 1.0)
    assert answer.description.n_donors == 2
    by_type = dict(zip(types, f1_score(label, predicted, labels=types, average=None), strict=True))
    worst = sorted(by_type, key=by_type.get)[:3]
    assert [one.cell_type for one in answer.failing] == worst
    for one in answer.failing:
        calls = predicted[(label == one.cell_type) & (predicted != one.cell_type)]
        assert one.n_cells == (label == one.cell_type).sum()
        assert one.called[0][1] == np.unique(calls, return_counts=True)[1].max()


def test_the_answer_in_words_has_scores_cells_donors_and_wrong_calls(answered):
    _, answer = answered
    scored, failing = answer.sentences()
    assert scored.startswith(f"Accuracy {answer.scores['accuracy']:.2f}, macro-F1 0.")
    assert "2 donors, " in scored
    first = answer.failing[0]
    assert failing.startswith(f"Fails most on {first.cell_type}, F1 {first.f1:.2f} (")
    assert f"called {first.called[0][0]} ({first.called[0][1]})" in failing
    about = answer.about()
    assert f"of {answer.n_labelled:,} labelled cells (100%); describes these 2 donors" in about
