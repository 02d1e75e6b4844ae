import numpy as np
import pytest
from scipy import stats

from backend.errors import InputError
from backend.evaluation.f1 import f1_by_class
from backend.evaluation.intervals import (
    LeaveOneOut,
    bootstrap_draws,
    bootstrap_weights,
    difference_of_slices,
    jackknife,
    leave_one_out,
    paired_difference,
    standard_error,
    t_interval,
)
from backend.evaluation.metrics import METRICS
from backend.evaluation.tallies import Tallies

BASE, SHARE = np.array([2.0, 1.2, 0.6, 0.0]), np.array([0.4, 0.3, 0.2, 0.1])
"""Four types from easy and common to hard and rare."""


def draw_counts(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    *,
    effect: np.ndarray | None = None,
    shift: float = 0.0,
) -> tuple[np.ndarray, ...]:
    """Draw donors, each with its own size, composition and skill (`effect`, standard normal)."""
    effect = rng.standard_normal(shape) if effect is None else effect
    skill = 1 / (1 + np.exp(-(BASE + shift + 0.6 * effect[..., None])))
    composition = rng.dirichlet(8 * SHARE, size=shape)
    n_label = rng.poisson(rng.lognormal(5.5, 0.5, (*shape, 1)) * composition)
    tp = rng.binomial(n_label, skill)
    wrong_into = rng.multinomial((n_label - tp).sum(axis=-1), np.full(4, 0.25))
    return tp, n_label, tp + wrong_into


def simulated(
    seed: int, n_donors: int, *, repetitions: int | None = None, prefix: str = "d"
) -> Tallies:
    shape = (n_donors,) if repetitions is None else (repetitions, n_donors)
    donors = tuple(f"{prefix}{i}" for i in range(n_donors))
    return Tallies(
        donors, ("B", "HSC", "Mono", "T"), *draw_counts(np.random.default_rng(seed), shape)
    )


def true_macro_f1(shift: float = 0.0) -> float:
    """Return the statistic over a whole population of such donors."""
    population = draw_counts(np.random.default_rng(99), (300_000,), shift=shift)
    return float(MACRO(*(counts.sum(axis=0) for counts in population)))


MACRO = METRICS["macro_f1"].statistic(np.ones(4, dtype=bool))


def sample(n_donors: int, seed: int = 0, prefix: str = "d") -> LeaveOneOut:
    return leave_one_out(simulated(seed, n_donors, prefix=prefix), MACRO)


def test_jackknife_of_a_mean_is_the_textbook_standard_error():
    values = np.array([0.2, 0.5, 0.4, 0.9, 0.3, 0.6])
    deleted = (values.sum() - values) / 5
    loo = LeaveOneOut(tuple("abcdef"), values.mean(), deleted)
    estimate = jackknife(loo)
    assert standard_error(deleted) == pytest.approx(values.std(ddof=1) / np.sqrt(6))
    low, high = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))
    assert estimate.df == 5


def test_leave_one_out_recounts_without_each_donor():
    tallies = simulated(3, 6)
    loo = leave_one_out(tallies, MACRO)
    for index in range(6):
        keep = np.arange(6) != index
        assert loo.deleted[index] == pytest.approx(MACRO(*tallies.with_donors(keep).pooled()))
    by_class = leave_one_out(tallies, f1_by_class)
    assert by_class.deleted.shape == (6, 4)
    assert by_class.deleted.mean(axis=1) == pytest.approx(loo.deleted)


@pytest.mark.parametrize(
    ("n_donors", "kind"),
    [(1, "none"), (4, "none"), (5, "few donors"), (9, "few donors"), (10, "jackknife")],
)
def test_the_number_of_donors_decides_the_kind_of_interval(n_donors, kind):
    estimate = jackknife(sample(n_donors))
    assert estimate.interval == kind
    assert np.isnan(estimate.low) == (kind == "none")
    assert bool(estimate.reason) == (kind != "jackknife")


def test_donors_with_the_label_set_the_degrees_of_freedom_of_a_type():
    loo = sample(12)
    assert jackknife(loo, n_donors=4).interval == "none"
    few = jackknife(loo, n_donors=6)
    assert (few.interval, few.df) == ("few donors", 5)
    assert few.high - few.low > jackknife(loo).high - jackknife(loo).low


def test_intervals_are_cut_to_the_range_of_a_score():
    low, high = t_interval(np.array([0.05, 0.97]), 0.1, 6)
    assert (low[0], high[1]) == (0.0, 1.0)
    low, high = t_interval(0.05, 0.9, 6, bounds=(-1.0, 1.0))
    assert (low, high) == (-1.0, 1.0)


def test_no_spread_between_donors_gives_no_interval():
    estimate = jackknife(LeaveOneOut(tuple("abcdef"), np.array(0.0), np.zeros(6)))
    assert estimate.interval == "none"
    assert estimate.reason == "no spread between donors"
    assert not estimate.excludes_zero


def test_an_undefined_score_gives_no_interval():
    estimate = jackknife(LeaveOneOut(tuple("abcdef"), np.array(np.nan), np.full(6, np.nan)))
    assert estimate.reason == "not scored here"
    only_one = LeaveOneOut(
        tuple("abcdef"), np.array(0.5), np.array([np.nan, 0.5, 0.5, 0.5, 0.5, 0.5])
    )
    assert jackknife(only_one).interval == "none"


def test_seeds_are_averaged_before_donors_are_deleted():
    seeds = [simulated(seed, 12) for seed in range(3)]
    stacked = leave_one_out(Tallies.stack(seeds), MACRO).mean_over_seeds()
    apart = [leave_one_out(tallies, MACRO) for tallies in seeds]
    assert stacked.value == pytest.approx(np.mean([loo.value for loo in apart]))
    assert stacked.deleted == pytest.approx(np.mean([loo.deleted for loo in apart], axis=0))


def test_a_paired_difference_is_narrower_than_two_independent_ones():
    tallies = simulated(7, 20)
    worse = Tallies(
        tallies.donors, tallies.types, tallies.tp * 9 // 10, tallies.n_label, tallies.n_predicted
    )
    a, b = leave_one_out(tallies, MACRO), leave_one_out(worse, MACRO)
    paired = paired_difference(a, b)
    assert paired.value == pytest.approx(float(a.value - b.value))
    assert paired.se < np.hypot(jackknife(a).se, jackknife(b).se) / 2
    assert paired.excludes_zero
    assert paired_difference(b, a).value == pytest.approx(-paired.value)


def test_a_paired_difference_of_equals_is_zero_without_a_claim():
    same = paired_difference(sample(12), sample(12))
    assert same.value == 0.0
    assert not same.excludes_zero


def test_a_paired_difference_refuses_other_donors():
    with pytest.raises(InputError, match="Apart: d5"):
        paired_difference(sample(6), sample(5))


def test_slices_without_shared_donors_add_variances_with_welch_degrees_of_freedom():
    a, b = sample(12, 1), sample(7, 2, prefix="h")
    estimate = difference_of_slices(a, b)
    v_a, v_b = standard_error(a.deleted) ** 2, standard_error(b.deleted) ** 2
    assert estimate.se == pytest.approx(np.sqrt(v_a + v_b))
    assert estimate.df == pytest.approx((v_a + v_b) ** 2 / (v_a**2 / 11 + v_b**2 / 6))
    assert 6 <= estimate.df <= 17
    assert estimate.interval == "few donors"
    assert estimate.n_donors == 7


def test_slices_with_the_same_donors_equal_the_paired_difference():
    a, b = sample(12, 1), sample(12, 2)
    slices, paired = difference_of_slices(a, b), paired_difference(a, b)
    assert slices.se == pytest.approx(paired.se)
    assert slices.df == paired.df == 11
    assert (slices.low, slices.high) == (pytest.approx(paired.low), pytest.approx(paired.high))


def test_a_donor_in_both_slices_is_deleted_from_both_at_once():
    a, b = sample(12, 1), sample(12, 2)
    half = LeaveOneOut(tuple(f"d{i}" if i < 6 else f"x{i}" for i in range(12)), b.value, b.deleted)
    scale = np.sqrt(11 / 12)
    u_a, u_b = (scale * (s.deleted - s.deleted.mean()) for s in (a, b))
    expected = (
        np.square(u_a[:6] - u_b[:6]).sum() + np.square(u_a[6:]).sum() + np.square(u_b[6:]).sum()
    )
    estimate = difference_of_slices(a, half)
    assert estimate.se == pytest.approx(np.sqrt(expected))
    assert estimate.df == 11


def test_a_slice_with_three_donors_is_compared_without_a_test_and_says_where():
    estimate = difference_of_slices(
        sample(3, 1, "h"), sample(12, 2), names=("Healthy", "Diagnosis")
    )
    assert estimate.interval == "none"
    assert estimate.reason == "3 donors at Healthy: no interval below 5"
    assert np.isfinite(estimate.value)


def test_bootstrap_draws_keep_each_stratum_and_whole_donors():
    strata = ["Healthy"] * 3 + ["patient"] * 9
    weights = bootstrap_weights(strata, n_draws=200, seed=1)
    assert (weights[:, :3].sum(axis=1) == 3).all()
    assert (weights[:, 3:].sum(axis=1) == 9).all()
    assert np.array_equal(weights, bootstrap_weights(strata, n_draws=200, seed=1))
    tallies = simulated(2, 12)
    draws = bootstrap_draws(tallies, MACRO, weights)
    rows = np.repeat(np.arange(12), weights[0].astype(int))
    redrawn = [
        counts[rows].sum(axis=0) for counts in (tallies.tp, tallies.n_label, tallies.n_predicted)
    ]
    assert draws.shape == (200,)
    assert draws[0] == pytest.approx(MACRO(*redrawn))


@pytest.mark.slow
@pytest.mark.parametrize(("n_donors", "at_least"), [(12, 0.90), (40, 0.92)])
def test_jackknife_intervals_cover_the_truth(n_donors, at_least):
    tallies, truth = simulated(11, n_donors, repetitions=2000), true_macro_f1()
    loo = leave_one_out(tallies, MACRO)
    low, high = t_interval(loo.value, standard_error(loo.deleted), n_donors - 1)
    coverage = ((low <= truth) & (truth <= high)).mean()
    print(f"{n_donors} donors: coverage {coverage:.3f}")
    assert coverage >= at_least


@pytest.mark.slow
@pytest.mark.parametrize("n_shared", [0, 5, 8])
def test_intervals_of_slice_differences_cover_the_truth_whatever_donors_are_shared(n_shared):
    rng, n_a, n_b, repetitions = np.random.default_rng(17), 14, 8, 1000
    names = [tuple(f"d{i}" for i in range(n_a))]
    names.append(tuple(f"d{i}" if i < n_shared else f"x{i}" for i in range(n_b)))
    truth = true_macro_f1() - true_macro_f1(shift=-0.8)
    hits = 0
    for _ in range(repetitions):
        effect_a, effect_b = rng.standard_normal(n_a), rng.standard_normal(n_b)
        effect_b[:n_shared] = effect_a[:n_shared]
        samples = [
            leave_one_out(Tallies(donors, ("B", "HSC", "Mono", "T"), *counts), MACRO)
            for donors, counts in zip(
                names,
                (
                    draw_counts(rng, (n_a,), effect=effect_a),
                    draw_counts(rng, (n_b,), effect=effect_b, shift=-0.8),
                ),
                strict=True,
            )
        ]
        estimate = difference_of_slices(*samples)
        hits += int(estimate.low <= truth <= estimate.high)
    print(f"{n_shared} shared donors: coverage {hits / repetitions:.3f}")
    assert hits / repetitions >= 0.90


@pytest.mark.slow
def test_a_percentile_bootstrap_over_12_donors_covers_less_than_the_jackknife():
    tallies, truth = simulated(13, 12, repetitions=400), true_macro_f1()
    loo = leave_one_out(tallies, MACRO)
    low, high = t_interval(loo.value, standard_error(loo.deleted), 11)
    weights = bootstrap_weights(["patient"] * 12, n_draws=1000, seed=1)
    hits = 0
    for index in range(400):
        one = Tallies(
            tallies.donors,
            tallies.types,
            tallies.tp[index],
            tallies.n_label[index],
            tallies.n_predicted[index],
        )
        left, right = np.quantile(bootstrap_draws(one, MACRO, weights), [0.025, 0.975])
        hits += int(left <= truth <= right)
    assert hits / 400 < ((low <= truth) & (truth <= high)).mean()
