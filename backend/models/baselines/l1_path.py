"""One-vs-rest logistic regression with an L1 penalty, each fit from the weights of another one.

At the optimum nearly all weights are 0, and a weight stays 0 as long as the gradient of the loss
there is at most the penalty. So Newton steps are taken over a *working set*: the genes with a
weight, and those that pull hardest. When these are done the others are looked at, and join it
until none pulls harder than the penalty. The optimum is that of all genes (Yuan et al. 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import sparse
from scipy.special import expit

__all__ = ["OneVsRest", "fit_one_vs_rest", "objectives"]

_MIN_NEW_GENES: Final = 50
"""Genes that join a working set at a time, at most; or as many as have a weight."""
_MAX_ROUNDS: Final = 50
_MAX_STEPS: Final = 50
_MAX_SWEEPS: Final = 1000
_MAX_HALVINGS: Final = 20
_CURVATURE: Final = 0.99
"""Share of the second derivatives that is counted exactly."""
_DESCENT: Final = 0.01
"""Share of the decrease that a step promises by its slope, and must keep."""


@dataclass(frozen=True)
class OneVsRest:
    """Weights of every type against the rest.

    coef      : (n_classes, n_genes) float64
    intercept : (n_classes,) float64; -inf for a type without a cell, so that it is never the best
    slow      : numbers of the types whose fit did not converge
    """

    coef: np.ndarray
    intercept: np.ndarray
    slow: tuple[int, ...] = ()

    def scores(self, expression: sparse.csr_matrix) -> np.ndarray:
        """Return (n_cells, n_classes) decision values."""
        return np.asarray(expression @ self.coef.T) + self.intercept


def fit_one_vs_rest(
    expression: sparse.csr_matrix,
    codes: np.ndarray,
    n_classes: int,
    *,
    C: float,
    tolerance: float,
    start: OneVsRest | None = None,
) -> OneVsRest:
    """Minimise |weights and intercept|₁ + C × Σ log(1 + exp(-y × score)) for each type.

    Parameters
    ----------
    expression
        (n_cells, n_genes) float64.
    codes
        (n_cells,) type of each cell.
    tolerance
        How far a gradient may be from what the penalty allows, in units of the penalty.
    start
        Where to begin, such as at the optimum of a smaller C; without it, at 0.
    """
    seen = np.unique(codes)
    n_genes = expression.shape[1]
    coef, intercept = np.zeros((n_classes, n_genes)), np.full(n_classes, -np.inf)
    if len(seen) == 1:
        intercept[seen] = 0.0
        return OneVsRest(coef, intercept)
    # The intercept is the weight of a gene that is 1 everywhere, as liblinear has it.
    by_gene = sparse.hstack([expression, np.ones((len(codes), 1))], format="csc")
    slow = []
    # With two types one fit serves both: the second's weights and their negative.
    for code in seen[1:] if len(seen) == 2 else seen:
        weights = np.zeros(n_genes + 1)
        if start is not None and np.isfinite(start.intercept[code]):
            weights[:-1], weights[-1] = start.coef[code], start.intercept[code]
        signs = np.where(codes == code, 1.0, -1.0)
        if not _minimise(by_gene, signs, C, weights, tolerance):
            slow.append(int(code))
        coef[code], intercept[code] = weights[:-1], weights[-1]
    if len(seen) == 2:
        coef[seen[0]], intercept[seen[0]] = -coef[seen[1]], -intercept[seen[1]]
        slow = [int(code) for code in seen] if slow else []
    return OneVsRest(coef, intercept, tuple(slow))


def _minimise(
    by_gene: sparse.csc_matrix, signs: np.ndarray, C: float, weights: np.ndarray, tolerance: float
) -> bool:
    """Minimise in place from `weights` on; say whether the tolerance was reached."""
    scores = by_gene @ weights
    for _ in range(_MAX_ROUNDS):
        pull = _violations(by_gene.T @ _derivatives(signs, scores, C)[0], weights)
        worst = pull.max()
        if worst <= tolerance:
            return True
        is_used = weights != 0
        n_new = max(_MIN_NEW_GENES, np.count_nonzero(is_used))
        new = np.argsort(-np.where(is_used, 0, pull), kind="stable")[:n_new]
        chosen = np.union1d(np.flatnonzero(is_used), new[pull[new] > 0])
        part = by_gene[:, chosen].tocsr()
        own = weights[chosen]
        scores = _descend_to(part, signs, C, own, scores, max(tolerance, 0.1 * worst))
        weights[chosen] = own
    return False


def _descend_to(
    part: sparse.csr_matrix,
    signs: np.ndarray,
    C: float,
    weights: np.ndarray,
    scores: np.ndarray,
    goal: float,
) -> np.ndarray:
    """Take Newton steps over the genes of `part` until `goal`, in place; return the scores."""
    # Imports a compiler, which prediction does without.
    from backend.models.baselines.l1_descent import descend

    for _ in range(_MAX_STEPS):
        first, second = _derivatives(signs, scores, C)
        slope = part.T @ first
        worst = _violations(slope, weights).max()
        if worst <= goal:
            break
        curve = _curvature(part, second)
        moved = descend(curve, slope, weights, 0.1 * worst, _MAX_SWEEPS)
        along = part @ moved
        gain = first @ along + np.abs(weights + moved).sum() - np.abs(weights).sum()
        before, share = _objective(signs, scores, C, weights), 1.0
        for _ in range(_MAX_HALVINGS):
            after = _objective(signs, scores + share * along, C, weights + share * moved)
            if after <= before + _DESCENT * share * gain:
                break
            share /= 2
        weights += share * moved
        scores = scores + share * along
    return scores


def _curvature(part: sparse.csr_matrix, second: np.ndarray) -> np.ndarray:
    """Return nearly the (n, n) second derivatives of the loss by the weights of `part`'s genes.

    Cells far from the boundary, most of them, hold hardly any of it; they are left out beside the
    diagonal. A step is a little worse by it, and no optimum another: slopes are of all cells.
    """
    order = np.argsort(-second, kind="stable")
    shares = np.cumsum(second[order])
    heavy = order[: 1 + np.searchsorted(shares, _CURVATURE * shares[-1])]
    rows = part[heavy].toarray().astype(np.float32)
    rows *= np.sqrt(second[heavy]).astype(np.float32)[:, None]
    curve = (rows.T @ rows).astype(np.float64)
    curve[np.diag_indices_from(curve)] = part.power(2).T @ second + 1e-9
    return curve


def _derivatives(signs: np.ndarray, scores: np.ndarray, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the second derivative of the loss by the score of each cell."""
    miss = expit(-signs * scores)
    return -C * signs * miss, C * miss * (1 - miss)


def _violations(slope: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how far each gradient is from what the penalty, of 1, allows at its weight."""
    outside = np.maximum(np.abs(slope) - 1, 0)
    return np.where(weights == 0, outside, np.abs(slope + np.sign(weights)))


def _objective(signs: np.ndarray, scores: np.ndarray, C: float, weights: np.ndarray) -> float:
    return float(np.abs(weights).sum() + C * np.logaddexp(0, -signs * scores).sum())


def objectives(
    expression: sparse.csr_matrix, codes: np.ndarray, found: OneVsRest, *, C: float
) -> np.ndarray:
    """Return what `fit_one_vs_rest` minimises, at what it found, by type: (n_classes,)."""
    signs = np.where(codes[:, None] == np.arange(len(found.intercept)), 1.0, -1.0)
    loss = np.logaddexp(0, -signs * found.scores(expression)).sum(axis=0)
    return np.asarray(np.abs(found.coef).sum(axis=1) + np.abs(found.intercept) + C * loss)
