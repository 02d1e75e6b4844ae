"""What a fit may do about rare types and about batch: weights, repeats, focal loss, an adversary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from backend.errors import InputError, ModelUnavailable
from backend.training.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Adversary", "Objective", "class_weights", "last_linear", "oversampled", "reverse"]

GAMMA: Final = 2.0
"""Exponent of the focal loss that its authors found best (Lin et al. 2017, arXiv:1708.02002)."""

UNKNOWN: Final = -1
"""Group of a cell without one: the adversary does not score it."""


def class_weights(codes: np.ndarray, n_classes: int, kind: str) -> Tensor:
    """Return the (n_classes,) float32 weight of each type: 1, or inverse to its cells."""
    if kind != "balanced":
        return torch.ones(n_classes)
    counts = np.bincount(codes, minlength=n_classes)
    return torch.from_numpy(len(codes) / (n_classes * counts)).float()


def oversampled(codes: np.ndarray, seed: int) -> np.ndarray:
    """Return row numbers in which every type is as frequent as the largest, every row at least once.

    Drawn with replacement by imbalanced-learn's `RandomOverSampler`.
    """
    if len(np.unique(codes)) < 2:
        return np.arange(len(codes))
    from imblearn.over_sampling import RandomOverSampler

    sampler = RandomOverSampler(random_state=seed)
    sampler.fit_resample(np.zeros((len(codes), 1), dtype=np.int8), codes)
    return np.asarray(sampler.sample_indices_, dtype=np.int64)


class Objective:
    """The loss of a batch: a weighted mean over its cells, cross entropy or focal.

    Parameters
    ----------
    weights
        (n_classes,) weight of each type.
    settings
        `loss` and `gamma` are read.
    """

    def __init__(self, weights: Tensor, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.weights = weights
        self._gamma = None
        if settings.loss == "focal":
            self._gamma = GAMMA if settings.gamma is None else settings.gamma

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (B, n_classes) float32 logits."""
        weights = self.weights.to(logits.device)
        if self._gamma is None:
            return F.cross_entropy(logits, target, weight=weights)
        logs = logits.log_softmax(dim=1).gather(1, target[:, None]).squeeze(1)
        of_cells = weights[target]
        # The power of an exact zero has no gradient; the smallest float keeps it finite.
        wrong = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny)
        return -(of_cells * wrong**self._gamma * logs).sum() / of_cells.sum()

    def share(self, target: Tensor, part: slice) -> float:
        """Return which share of a batch's loss is the mean loss of some of its cells."""
        of_cells = self.weights[target].double()
        return float(of_cells[part].sum() / of_cells.sum())


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradient, None


def reverse(values: Tensor, strength: float) -> Tensor:
    """Return the values; their gradient comes back reversed and times `strength`."""
    reversed_values: Tensor = _Reverse.apply(values, strength)
    return reversed_values


def last_linear(network: nn.Module, n_outputs: int) -> nn.Linear:
    """Return the last linear layer of a network with so many outputs.

    Raises
    ------
    ModelUnavailable
        If there is none.
    """
    ends = [
        module
        for module in network.modules()
        if isinstance(module, nn.Linear) and module.out_features == n_outputs
    ]
    if not ends:
        msg = f"The network has no linear layer of {n_outputs} classes at its end."
        raise ModelUnavailable(msg, "Leave out adversarial for this model.")
    return ends[-1]


class Adversary(nn.Module):
    """A head that guesses a cell's group from what the last layer of a network reads.

    Its gradient reaches the network reversed (Ganin et al. 2016, arXiv:1505.07818), so that the
    network forgets what tells the groups apart. Cells without a group do not count.

    Parameters
    ----------
    network
        Ends in a linear layer of `n_classes` outputs.
    groups
        (n_cells,) group of each training cell, `UNKNOWN` where there is none.
    weight
        Of the adversary's loss beside that of the types.

    Raises
    ------
    InputError
        If the training cells have fewer than two groups.
    """

    def __init__(
        self, network: nn.Module, n_classes: int, groups: np.ndarray, weight: float, name: str
    ) -> None:
        super().__init__()
        n_groups = len(np.unique(groups[groups != UNKNOWN]))
        if n_groups < 2:
            msg = f"The training cells have {n_groups} {name}: nothing to unlearn."
            raise InputError(msg, "Leave out adversarial, or train on more of them.")
        end = last_linear(network, n_classes)
        width = end.in_features
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_groups))
        self.weight = weight
        self._read: Tensor | None = None
        end.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Validation reads no gradient, and needs no adversary.
        self._read = inputs[0] if torch.is_grad_enabled() else None

    def forward(self, groups: Tensor, share_done: float) -> Tensor:
        """Return the weighted loss of the batch that the network read last.

        The reversed gradient grows from 0 to its full strength over the fit, as its authors do.
        """
        assert self._read is not None
        read, self._read = self._read, None
        is_known = groups != UNKNOWN
        if not bool(is_known.any()):
            return read.sum() * 0.0
        strength = 2.0 / (1.0 + math.exp(-10.0 * share_done)) - 1.0
        guessed = self.head(reverse(read.float(), strength))
        return self.weight * F.cross_entropy(guessed, groups, ignore_index=UNKNOWN)
