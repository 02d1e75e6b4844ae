import numpy as np
import pandas as pd
import pytest

from backend.evaluation.intervals import standard_error
from backend.evaluation.views import CALLED, blasts
from tests.helpers import draw_cells, open_store, write_results


@pytest.fixture(scope="module")
def called(results):
    """Labelled cells with what the fine series of logistic regression calls them."""
    predicted = results.predicted_fine["logreg", "donor"]
    cells = results.cells.assign(predicted=predicted).dropna(subset=["cell_type_fine"])
    return cells.assign(
        is_blast=cells.cell_type_fine.str.endswith("-like"),
        is_called=cells.predicted.str.endswith("-like"),
    )


def one(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize("timepoint", ["Diagnosis", "Post-treatment", "Relapse"])
def test_sensitivity_and_its_interval_are_those_of_the_cells(store, results, called, timepoint):
    view = blasts(store, results.scope())
    row = one(view.rates, configuration="logreg", timepoint=timepoint, metric="sensitivity")
    mine = called[(called.timepoint == timepoint) & called.is_blast]
    assert row["value"] == pytest.approx(mine.is_called.mean())
    assert row["n_cells"] == len(mine)
    assert row["n_donors"] == mine.donor.nunique()
    assert row["top_donor_share"] == pytest.approx(mine.donor.value_counts(normalize=True).max())
    without = [mine[mine.donor != donor].is_called.mean() for donor in mine.donor.unique()]
    assert row["low"] < row["value"] < row["high"]
    half = (row["high"] - row["low"]) / 2
    se = float(standard_error(np.array(without)))
    assert 1.9 * se < half < 2.8 * se


def test_specificity_is_over_normal_cells_healthy_ones_included(store, results, called):
    view = blasts(store, results.scope())
    for timepoint in ("Healthy", "Diagnosis"):
        row = one(view.rates, configuration="logreg", timepoint=timepoint, metric="specificity")
        mine = called[(called.timepoint == timepoint) & ~called.is_blast]
        assert row["value"] == pytest.approx(1 - mine.is_called.mean())
        assert row["n_cells"] == len(mine)
    healthy = view.rates[view.rates.timepoint == "Healthy"]
    assert set(healthy.metric) == {"specificity"}


def test_donors_and_shares_are_those_of_each_patient(store, results, called):
    view = blasts(store, results.scope())
    mine = called[(called.timepoint == "Diagnosis") & (called.donor == "AML03")]
    where = {"configuration": "logreg", "timepoint": "Diagnosis", "donor": "AML03"}
    share = one(view.shares, **where)
    assert share["labelled_share"] == pytest.approx(mine.is_blast.mean())
    assert share["predicted_share"] == pytest.approx(mine.is_called.mean())
    assert (share["n_cells"], share["n_malignant"]) == (len(mine), mine.is_blast.sum())
    dot = one(view.donors, metric="sensitivity", **where)
    assert dot["value"] == pytest.approx(mine[mine.is_blast].is_called.mean())
    assert dot["n_cells"] == mine.is_blast.sum()
    # Sorted samples are healthy ones, so no healthy donor has a composition.
    assert "Healthy" not in set(view.shares.timepoint)


def test_states_name_what_each_is_called(store, results, called):
    states = blasts(store, results.scope()).states
    mine = called[called.is_blast]
    assert set(states.label) == set(mine.cell_type_fine)
    for label, part in states.groupby("label"):
        per_donor = mine[mine.cell_type_fine == label].donor.value_counts()
        assert set(part.n_label_donors) == {len(per_donor)}
        assert set(part.label_top_donor_share) == {per_donor.max() / per_donor.sum()}
        cells = mine[mine.cell_type_fine == label]
        assert part.share.sum() == pytest.approx(1)
        for row in part.itertuples():
            these = cells[cells.predicted == row.predicted]
            assert row.n_cells == len(these)
            assert row.n_donors == these.donor.nunique()
            assert row.top_donor_share == pytest.approx(
                these.donor.value_counts(normalize=True).max()
            )
    kinds = {
        (row.label, row.predicted): row.called for row in states.itertuples() if row.n_cells > 0
    }
    assert all(
        kind == CALLED[0] for (label, predicted), kind in kinds.items() if label == predicted
    )
    assert kinds["HSC-like", "HSC"] == CALLED[2]
    assert kinds["HSC-like", "T"] == CALLED[3]
    others = [pair for pair in kinds if pair[1].endswith("-like") and pair[0] != pair[1]]
    assert others
    assert {kinds[pair] for pair in others} == {CALLED[1]}


def test_mutant_cells_are_checked_without_labels(store, results, called):
    mutants = blasts(store, results.scope()).mutants
    mine = called[(called.genotype == "mutant") & (called.timepoint == "Relapse")]
    row = one(mutants, configuration="logreg", timepoint="Relapse")
    assert row["predicted_share"] == pytest.approx(mine.is_called.mean())
    assert row["labelled_share"] == pytest.approx(mine.is_blast.mean())
    assert (row["n_cells"], row["n_donors"]) == (len(mine), mine.donor.nunique())
    assert row["top_donor_share"] == pytest.approx(mine.donor.value_counts(normalize=True).max())
    assert list(mutants.timepoint) == ["Diagnosis", "Post-treatment", "Relapse"]


def test_a_choice_of_models_at_the_scope_s_level_finds_their_fine_series(store, results):
    some = results.scope(configurations=("logreg@fine", "majority"))
    assert set(blasts(store, some).rates.configuration) == {"logreg"}


def test_a_dataset_without_malignant_labels_says_so(tmp_path):
    cells = draw_cells(samples={"Healthy": 4}, cells_per_sample=40)
    made = write_results(tmp_path, cells=cells, protocols=("donor",), failed=())
    store = open_store(tmp_path)
    view = blasts(store, made.scope())
    store.close()
    assert view.malignant == ()
    assert view.rates.empty


def test_seeds_are_averaged_and_cells_counted_once(tmp_path):
    cells = draw_cells(samples={"Diagnosis": 6}, cells_per_sample=60)
    models = {"logreg": ("Logistic regression", (0,))}
    made = write_results(
        tmp_path, cells=cells, protocols=("donor",), models=models, failed=(), fine=("logreg",)
    )
    # A second seed of the same fine series, with other predictions.
    from tests import helpers

    second = helpers._write_series(
        made, "logreg", "Logistic regression", "donor", 1, "fine", 5, set()
    )
    store = open_store(tmp_path)
    view = blasts(store, made.scope())
    store.close()
    row = one(view.rates, timepoint="Diagnosis", metric="sensitivity")
    blast = cells.cell_type_fine.str.endswith("-like").eq(True).to_numpy()
    rates = [
        pd.Series(predicted)[blast].str.endswith("-like").mean()
        for predicted in (made.predicted_fine["logreg", "donor"], second)
    ]
    assert rates[0] != rates[1]
    assert row["value"] == pytest.approx(np.mean(rates))
    assert (row["n_seeds"], row["n_cells"]) == (2, blast.sum())
    assert view.states.drop_duplicates("label").n_label.sum() == blast.sum()
    assert view.shares.n_malignant.sum() == blast.sum()
