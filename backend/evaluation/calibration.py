"""Calibration: the temperature at which a model's probabilities say how often it is right."""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = ["calibrated_confidence", "fit_temperature"]

_LEAST: Final = 2.0**-24
"""The smallest probability that half precision holds; bundles store probabilities so."""
_RANGE: Final = (0.05, 20.0)


def _scaled(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Return log-probabilities (n, classes) at a temperature."""
    logits = np.log(np.maximum(proba.astype(np.float64), _LEAST)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def fit_temperature(proba: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    """Return the temperature T > 0 with the least weighted negative log-likelihood.

    Parameters
    ----------
    proba
        (n, classes) probabilities of validation cells.
    label
        (n,) index of each cell's class.
    weight
        (n,) weight of each cell; by donor, so that every donor counts once.

    Notes
    -----
    Guo C, et al. On calibration of modern neural networks. ICML 2017.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(label))

    def loss(log_temperature: float) -> float:
        chosen = _scaled(proba, float(np.exp(log_temperature)))[rows, label]
        return float(-(weight * chosen).sum() / weight.sum())

    found = minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    return float(np.exp(found.x))


def calibrated_confidence(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Return the largest probability of each cell at a temperature, (n,) float64."""
    return np.exp(_scaled(proba, temperature).max(axis=1))
