"""The inner loop of an L1 regression: coordinate descent on a quadratic, compiled."""

from __future__ import annotations

import numpy as np

from backend.data.compiled import compiled

__all__ = ["descend"]


@compiled
def descend(curve, slope, weights, goal, max_sweeps):
    """Return what to add to `weights` to minimise slope·d + d·curve·d / 2 + |weights + d|₁.

    Parameters
    ----------
    curve, slope
        (n, n) symmetric with a positive diagonal, and (n,) float64.
    goal
        Largest change of a slope by one coordinate in the last sweep.
    max_sweeps
        Sweeps at most.
    """
    n = len(weights)
    moved, slopes = np.zeros(n), slope.copy()
    for _ in range(max_sweeps):
        largest = 0.0
        for j in range(n):
            now, steep = weights[j] + moved[j], curve[j, j]
            best, cut = now - slopes[j] / steep, 1.0 / steep
            if best > cut:
                best -= cut
            elif best < -cut:
                best += cut
            else:
                best = 0.0
            change = best - now
            if change != 0.0:
                moved[j] += change
                for k in range(n):
                    slopes[k] += change * curve[j, k]
                largest = max(largest, abs(change) * steep)
        if largest <= goal:
            break
    return moved
