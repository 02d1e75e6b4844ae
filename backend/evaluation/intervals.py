"""Intervals with the donor as the unit: jackknife estimates, paired and slice differences, draws.

Every interval says how a score would move with other donors; the fitted models stay fixed.
Formulas and sources: `docs/methods.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy.special import stdtrit

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.evaluation.tallies import Tallies

    Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

__all__ = [
    "CAPTION",
    "FEW_DONORS",
    "MIN_DONORS",
    "NO_INTERVALS",
    "Estimate",
    "LeaveOneOut",
    "bootstrap_draws",
    "bootstrap_weights",
    "difference_of_slices",
    "jackknife",
    "leave_one_out",
    "paired_difference",
    "standard_error",
    "t_interval",
]

MIN_DONORS: Final = 5
"""Below this many donors: dots and their range, no interval and no test."""

FEW_DONORS: Final = 10
"""From `MIN_DONORS` up to one less than this: an interval, marked "few donors"."""

CAPTION: Final = "95 % intervals: donors redrawn, fitted models fixed."
NO_INTERVALS: Final = f"Fewer than {MIN_DONORS} donors: no intervals."

_LEVEL: Final = 0.975
_ROUNDING: Final = 1e-12
_SCORE: Final = (0.0, 1.0)
_DIFFERENCE: Final = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score or a difference with its 95 % interval, or with the reason why it has none.

    `interval` is "jackknife", "few donors" (5-9 donors) or "none"; `low` and `high` are NaN
    for "none". `n_donors` is the number that decides it: for a difference of slices the
    smaller one.
    """

    value: float
    low: float
    high: float
    interval: Literal["jackknife", "few donors", "none"]
    n_donors: int
    reason: str = ""
    se: float = float("nan")
    df: float = float("nan")

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0; never without an interval."""
        return self.interval != "none" and (self.low > 0.0 or self.high < 0.0)


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """A pooled statistic and its values with each donor deleted in turn.

    Parameters
    ----------
    donors
        (D,) the donors of the slice.
    value
        (...) the statistic over all donors.
    deleted
        (D, ...) the statistic without donor d.
    """

    donors: tuple[str, ...]
    value: np.ndarray
    deleted: np.ndarray

    def mean_over_seeds(self) -> LeaveOneOut:
        """Average the leading axis of the statistic (seeds); donors stay paired over seeds."""
        return LeaveOneOut(self.donors, self.value.mean(axis=0), self.deleted.mean(axis=1))

    def at(self, index: int) -> LeaveOneOut:
        """Return one entry of a statistic with a last axis, for example one cell type."""
        return LeaveOneOut(self.donors, self.value[..., index], self.deleted[..., index])


def leave_one_out(tallies: Tallies, statistic: Statistic) -> LeaveOneOut:
    """Evaluate `statistic` on the pooled counts and with each donor's counts taken away.

    `statistic` maps three arrays (..., types) to (...) or (..., types).
    """
    counts = (tallies.tp, tallies.n_label, tallies.n_predicted)
    totals = tallies.pooled()
    rests = [total[..., None, :] - count for total, count in zip(totals, counts, strict=True)]
    deleted = statistic(*rests)
    donor_axis = tallies.tp.ndim - 2
    return LeaveOneOut(tallies.donors, statistic(*totals), np.moveaxis(deleted, donor_axis, 0))


def standard_error(deleted: np.ndarray) -> np.ndarray:
    """Return the delete-one jackknife standard error, sqrt((n-1)/n · Σ(θ₋ᵢ - mean)²), over axis 0."""
    n = deleted.shape[0]
    spread = deleted - deleted.mean(axis=0)
    return np.sqrt((n - 1) / n * np.square(spread).sum(axis=0))


def t_interval(
    value: np.ndarray | float,
    se: np.ndarray | float,
    df: np.ndarray | float,
    *,
    bounds: tuple[float, float] = _SCORE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return value ± t(0.975, df)·se, cut to `bounds`."""
    half = stdtrit(df, _LEVEL) * np.asarray(se)
    return np.maximum(value - half, bounds[0]), np.minimum(value + half, bounds[1])


def _estimate(
    value: float, se: float, df: float, *, n_donors: int, what: str, bounds: tuple[float, float]
) -> Estimate:
    def none(reason: str) -> Estimate:
        return Estimate(value, np.nan, np.nan, "none", n_donors, reason)

    if np.isnan(value):
        return none("not scored here")
    if n_donors < MIN_DONORS:
        return none(
            f"{n_donors} {'donor' if n_donors == 1 else 'donors'}{what}: no interval below {MIN_DONORS}"
        )
    if not np.isfinite(se):
        return none("without one of the donors the score is undefined")
    if se < _ROUNDING:
        return none("no spread between donors")
    low, high = t_interval(value, se, df, bounds=bounds)
    kind: Literal["jackknife", "few donors"] = "jackknife"
    reason = ""
    if n_donors < FEW_DONORS:
        kind, reason = "few donors", f"{n_donors} donors{what}: few for an interval"
    return Estimate(value, float(low), float(high), kind, n_donors, reason, se, df)


def jackknife(
    sample: LeaveOneOut,
    *,
    n_donors: int | None = None,
    bounds: tuple[float, float] = _SCORE,
) -> Estimate:
    """Return a score with its delete-one-donor jackknife interval.

    Parameters
    ----------
    sample
        A scalar statistic; average seeds first.
    n_donors
        Donors that carry the score when that is fewer than all donors of the slice: for the F1
        of one type, the donors with a cell of that label. It sets the degrees of freedom and the
        small-number rules, while every donor is deleted, because any donor can add a wrong
        prediction.
    bounds
        Lowest and highest value of the score, to which the interval is cut.
    """
    n = len(sample.donors) if n_donors is None else n_donors
    se = float(standard_error(sample.deleted)) if len(sample.donors) > 1 else np.nan
    return _estimate(float(sample.value), se, n - 1, n_donors=n, what="", bounds=bounds)


def paired_difference(
    a: LeaveOneOut,
    b: LeaveOneOut,
    *,
    n_donors: int | None = None,
    bounds: tuple[float, float] = _DIFFERENCE,
) -> Estimate:
    """Return a - b on the same donors, with the jackknife of the difference, cut to `bounds`.

    Raises
    ------
    InputError
        If the two were not scored on the same donors.
    """
    if a.donors != b.donors:
        apart = sorted(set(a.donors) ^ set(b.donors))[:5]
        msg = f"A paired difference needs the same donors on both sides. Apart: {', '.join(apart)}."
        raise InputError(msg, "Score both on the cells that they share.")
    n = len(a.donors) if n_donors is None else n_donors
    se = float(standard_error(a.deleted - b.deleted)) if len(a.donors) > 1 else np.nan
    value = float(a.value - b.value)
    return _estimate(value, se, n - 1, n_donors=n, what="", bounds=bounds)


def _influences(sample: LeaveOneOut) -> dict[str, float]:
    n = len(sample.donors)
    scaled = np.sqrt((n - 1) / n) * (sample.deleted - sample.deleted.mean(axis=0))
    return dict(zip(sample.donors, scaled.tolist(), strict=True))


def difference_of_slices(
    a: LeaveOneOut,
    b: LeaveOneOut,
    *,
    n_donors: tuple[int, int] | None = None,
    names: tuple[str, str] = ("the first slice", "the second slice"),
    bounds: tuple[float, float] = _DIFFERENCE,
) -> Estimate:
    """Return a - b of two slices, deleting donors that are in both from both at once.

    SE² = Σ over donors of (scaled influence on a - scaled influence on b)². With no shared donor
    this is SE²(a) + SE²(b), with Welch-Satterthwaite degrees of freedom; with all donors shared it
    is the jackknife of the paired difference (n - 1). In between, degrees of freedom are the
    smaller number of donors less one, which no Welch value falls below.
    """
    n_a, n_b = (len(a.donors), len(b.donors)) if n_donors is None else n_donors
    value = float(a.value - b.value)
    smaller = 0 if n_a <= n_b else 1
    n, what = (n_a, n_b)[smaller], f" at {names[smaller]}"
    if n < MIN_DONORS or len(a.donors) < 2 or len(b.donors) < 2:
        return _estimate(value, np.nan, np.nan, n_donors=n, what=what, bounds=bounds)
    of_a, of_b = _influences(a), _influences(b)
    shared = of_a.keys() & of_b.keys()
    variance = sum(
        (of_a.get(d, 0.0) - of_b.get(d, 0.0)) ** 2 for d in sorted(of_a.keys() | of_b.keys())
    )
    if shared:
        df = float(n - 1)
    else:
        v_a, v_b = sum(u * u for u in of_a.values()), sum(u * u for u in of_b.values())
        weight = v_a**2 / (n_a - 1) + v_b**2 / (n_b - 1)
        df = (v_a + v_b) ** 2 / weight if weight > 0 else float(n - 1)
    se = float(np.sqrt(variance))
    return _estimate(value, se, df, n_donors=n, what=what, bounds=bounds)


def bootstrap_weights(strata: Sequence[str], *, n_draws: int, seed: int) -> np.ndarray:
    """Draw donors with replacement within strata (Healthy / patient), each donor whole.

    Returns
    -------
    (n_draws, D) how often each donor is drawn; each stratum keeps its size in every draw. Use the
    same weights for all models, so that their draws are paired.
    """
    rng = np.random.default_rng(seed)
    labels = np.asarray(strata)
    weights = np.zeros((n_draws, len(labels)))
    for name in np.unique(labels):
        members = np.flatnonzero(labels == name)
        share = np.full(len(members), 1.0 / len(members))
        weights[:, members] = rng.multinomial(len(members), share, size=n_draws)
    return weights


def bootstrap_draws(tallies: Tallies, statistic: Statistic, weights: np.ndarray) -> np.ndarray:
    """Return the statistic in each draw of donors, for ranks and display only.

    A percentile interval over few donors is too narrow (`docs/methods.md`), which is why
    intervals come from `jackknife`.

    Parameters
    ----------
    tallies
        Counts of one slice and one seed, (D, types).
    statistic
        Maps three arrays (draws, types) to (draws,) or (draws, types).
    weights
        (n_draws, D) from `bootstrap_weights`.
    """
    sums = [weights @ counts for counts in (tallies.tp, tallies.n_label, tallies.n_predicted)]
    return statistic(*sums)
