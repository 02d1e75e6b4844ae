import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from backend.evaluation.views import averages, f1_by_cell_type, scores_by_timepoint
from tests.helpers import draw_cells, open_store, write_results


def test_averages_equal_scikit_learn_and_the_pages_of_each(store, results):
    table = averages(store, results.scope())
    view = scores_by_timepoint(store, results.scope())
    assert len(table) == len(view.scores.dropna(subset=["value"]))
    for timepoint in ("Healthy", "Relapse"):
        row = table[(table.configuration == "logreg") & (table.timepoint == timepoint)].iloc[0]
        other = view.scores[
            (view.scores.configuration == "logreg") & (view.scores.timepoint == timepoint)
        ]
        assert row.macro_f1 == pytest.approx(other.value.iloc[0])
        cells = results.cells
        here = (cells.timepoint == timepoint) & cells.cell_type_lineage.notna()
        scored = here & cells.cell_type_lineage.isin(view.panel.types)
        accuracies, weighted = [], []
        for seed in (0, 1):
            predicted = results.predicted["logreg", "donor", seed]
            accuracies.append(accuracy_score(cells.cell_type_lineage[scored], predicted[scored]))
            weighted.append(
                f1_score(
                    cells.cell_type_lineage[here], predicted[here], labels=view.panel.types,
                    average="weighted", zero_division=0,
                )
            )  # fmt: skip
        assert row.accuracy == pytest.approx(np.mean(accuracies))
        assert row.weighted_f1 == pytest.approx(np.mean(weighted))
        assert row.n_cells == scored.sum()
        assert row.n_donors == cells.donor[scored].nunique()


def test_the_worst_types_are_those_of_the_heatmap(store, results):
    table = averages(store, results.scope())
    row = table[(table.configuration == "logreg") & (table.timepoint == "Relapse")].iloc[0]
    scores = f1_by_cell_type(store, results.scope(), by="timepoint", configuration="logreg").scores
    panel = scores_by_timepoint(store, results.scope()).panel.types
    mine = scores[(scores.column == "Relapse") & scores.cell_type.isin(panel)].sort_values("f1")
    assert [name for name, _ in row.worst_types] == list(mine.cell_type[:3])
    assert row.worst_f1 == pytest.approx(mine.f1.iloc[0]) == row.worst_types[0][1]
    assert row.worst_n_cells == mine.n_cells.iloc[0]


def test_incomplete_models_have_no_averages_and_baselines_are_named(store, results):
    table = averages(store, results.scope())
    assert "hgb" not in set(table.configuration)
    assert table.is_baseline.all()


def test_one_patient_is_described_over_its_own_types(tmp_path):
    cells = draw_cells(samples={"Post-treatment": 1}, cells_per_sample=300)
    made = write_results(
        tmp_path, cells=cells, protocols=("random",), failed=(), models={"logreg": ("LR", (0,))}
    )
    store = open_store(tmp_path)
    table = averages(store, made.scope(protocol="random"))
    store.close()
    labelled = cells.dropna(subset=["cell_type_lineage"])
    big = labelled.cell_type_lineage.value_counts()
    assert table.n_types.tolist() == [int((big >= 20).sum())]
    assert table.n_cells.tolist() == [int(big[big >= 20].sum())]
