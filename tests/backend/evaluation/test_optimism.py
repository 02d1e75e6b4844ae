import numpy as np
import pytest

from backend.errors import InputError
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.metrics import METRICS
from backend.evaluation.panel import make_panel
from backend.evaluation.tallies import Tallies
from backend.evaluation.views.protocols import optimism_gap

TYPES = ("B", "CLP", "T")
MACRO = METRICS["macro_f1"]
DONORS = tuple(f"d{i:02d}" for i in range(12))


def scored(seed: int, hit: float, label_seed: int = 0) -> Tallies:
    n_label = np.random.default_rng(label_seed).integers(20, 60, (12, 3))
    n_label[2:, 1] = 0
    rng = np.random.default_rng(seed)
    tp = rng.binomial(n_label, hit)
    into = rng.multinomial((n_label - tp).sum(axis=1), [0.5, 0.1, 0.4])
    return Tallies(DONORS, TYPES, tp, n_label, tp + into)


def seeds(*parts: Tallies) -> Tallies:
    return Tallies.stack(parts)


@pytest.fixture
def panel():
    return make_panel({"all": scored(1, 0.9).n_label}, TYPES)


def test_the_gap_is_random_minus_donor_on_one_panel(panel):
    random, donor = scored(1, 0.9), scored(2, 0.7)
    total, by_type = optimism_gap(seeds(random), seeds(donor), panel, MACRO)
    assert panel.types == ("B", "T")
    first, second = (f1_by_class(*part.pooled())[[0, 2]].mean() for part in (random, donor))
    assert (total.first, total.second) == (pytest.approx(first), pytest.approx(second))
    assert total.gap.value == pytest.approx(first - second)
    assert total.gap.excludes_zero
    assert set(by_type) == {"B", "T"}
    assert np.mean([gap.gap.value for gap in by_type.values()]) == pytest.approx(total.gap.value)


def test_a_negative_gap_is_shown(panel):
    total, _ = optimism_gap(seeds(scored(1, 0.6)), seeds(scored(2, 0.8)), panel, MACRO)
    assert total.gap.value < 0
    assert total.gap.low < total.gap.value


def test_seeds_are_paired_and_averaged(panel):
    pairs = [(scored(1, 0.9), scored(2, 0.7)), (scored(3, 0.9), scored(4, 0.7))]
    both, _ = optimism_gap(
        seeds(*(a for a, _ in pairs)), seeds(*(b for _, b in pairs)), panel, MACRO
    )
    apart = [optimism_gap(seeds(a), seeds(b), panel, MACRO)[0].gap.value for a, b in pairs]
    assert both.gap.value == pytest.approx(np.mean(apart))


def test_protocols_scored_on_other_cells_are_refused(panel):
    with pytest.raises(InputError, match="not scored on the same cells"):
        optimism_gap(seeds(scored(1, 0.9)), seeds(scored(2, 0.7, label_seed=5)), panel, MACRO)
