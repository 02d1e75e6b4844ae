import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_recall_fscore_support

from backend.evaluation.f1 import class_table, f1_by_class, is_small
from backend.evaluation.tallies import Tallies

TYPES = ("B", "CLP", "HSC", "Mono", "T")


def random_cells(seed: int, n_cells: int = 400, n_donors: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.choice(TYPES, n_cells, p=[0.3, 0.02, 0.08, 0.3, 0.3])
    wrong = rng.random(n_cells) < 0.35
    return pd.DataFrame(
        {
            "donor": rng.choice([f"d{i}" for i in range(n_donors)], n_cells),
            "label": label,
            "predicted": np.where(wrong, rng.choice(TYPES, n_cells), label),
        }
    )


def count(cells: pd.DataFrame) -> Tallies:
    return Tallies.from_labels(cells["donor"], cells["label"], cells["predicted"], types=TYPES)


def test_f1_of_a_hand_computed_table():
    # tp 2 of 3 labels and 2 predictions; never hit; never predicted; no label but predicted.
    score = f1_by_class([2, 0, 0, 0], [3, 4, 5, 0], [2, 3, 0, 6])
    assert score[:3] == pytest.approx([0.8, 0.0, 0.0])
    assert np.isnan(score[3])


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed):
    cells = random_cells(seed)
    table = class_table(count(cells))
    precision, recall, f1, support = precision_recall_fscore_support(
        cells["label"], cells["predicted"], labels=TYPES, zero_division=np.nan
    )
    scored = support > 0
    assert np.allclose(table["f1"][scored], f1[scored])
    assert np.allclose(table["precision"], precision, equal_nan=True)
    assert np.allclose(table["recall"], recall, equal_nan=True)
    assert table["n_cells"].tolist() == support.tolist()


def test_table_names_small_types_dominant_donors_and_predictions_into_absent_types():
    cells = pd.DataFrame(
        {
            "donor": ["a"] * 30 + ["b"] * 10 + ["c"] * 10,
            "label": ["B"] * 50,
            "predicted": ["B"] * 45 + ["CLP"] * 5,
        }
    )
    table = class_table(count(cells)).set_index("cell_type")
    assert table.loc["B", "n_donors"] == 3
    assert table.loc["B", "top_donor_share"] == pytest.approx(0.6)
    assert not table.loc["B", "is_small"]
    assert table.loc["CLP", "is_small"]
    assert np.isnan(table.loc["CLP", "f1"])
    assert table.loc["CLP", "n_predicted_absent"] == 5
    assert table.loc["B", "n_predicted_absent"] == 0


def test_small_means_fewer_than_20_cells_or_3_donors():
    assert is_small([19, 20, 20], [3, 3, 2]).tolist() == [True, False, True]


def test_several_seeds_are_scored_each_and_then_averaged():
    first, second = random_cells(2), random_cells(2)
    second["predicted"] = second["label"]
    both = class_table(Tallies.stack([count(first), count(second)]))
    apart = [class_table(count(cells))["f1"] for cells in (first, second)]
    assert np.allclose(both["f1"], (apart[0] + apart[1]) / 2)
    assert both["n_cells"].tolist() == class_table(count(first))["n_cells"].tolist()
