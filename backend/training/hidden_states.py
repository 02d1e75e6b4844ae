"""The last states of a classifier network: what its final layer reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from backend.errors import ModelUnavailable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WithStates"]


class WithStates(nn.Module):
    """A network whose outputs are followed by what its last linear layer read.

    Parameters
    ----------
    network
        `forward(**batch)` gives logits (B, n_classes) by a linear layer at its end.
    n_classes
        Number of classes; the last linear layer of that width is the end.

    Raises
    ------
    ModelUnavailable
        If there is no such layer.
    """

    def __init__(self, network: nn.Module, n_classes: int) -> None:
        super().__init__()
        ends = [
            module
            for module in network.modules()
            if isinstance(module, nn.Linear) and module.out_features == n_classes
        ]
        if not ends:
            msg = f"The network has no linear layer of {n_classes} classes at its end."
            raise ModelUnavailable(msg, "End the network's `forward` with one.")
        self.network, self._end = network, ends[-1]
        self.train(network.training)

    def forward(self, **batch: Any) -> Tensor:
        """Return (B, n_classes + d) float32: logits, then states."""
        seen: list[Tensor] = []
        hook = self._end.register_forward_hook(lambda _, read, __: seen.append(read[0]))
        try:
            logits = self.network(**batch)
        finally:
            hook.remove()
        return torch.cat([logits.float(), seen[-1].float()], dim=1)
