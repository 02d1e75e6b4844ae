"""Logits of many cells in batches, what the last layer read, and macro-F1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from backend.training.balance import last_linear
from backend.training.batches import in_order_of_length
from backend.training.device import autocast
from backend.training.token_cache import lengths_of

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.base import FoundationModel
    from backend.training.token_cache import AnyTokens

__all__ = ["WithHidden", "macro_f1", "predict_logits"]


class WithHidden(nn.Module):
    """A network whose logits are followed by its hidden state: what its last layer read.

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
        self.network, self._end = network, last_linear(network, n_classes)
        self.train(network.training)

    def forward(self, **batch: Any) -> Tensor:
        """Return (B, n_classes + d) float32: logits, then the hidden state."""
        seen: list[Tensor] = []
        hook = self._end.register_forward_hook(lambda _, read, __: seen.append(read[0]))
        try:
            logits = self.network(**batch)
        finally:
            hook.remove()
        return torch.cat([logits.float(), seen[-1].float()], dim=1)


def predict_logits(
    model: FoundationModel,
    network: nn.Module,
    tokens: AnyTokens,
    *,
    batch_size: int,
    precision: str = "auto",
) -> Tensor:
    """Return float32 logits on the CPU in the order of `tokens`; bf16 inside on a GPU.

    A batch that does not fit into memory is halved.
    """
    device = next(network.parameters()).device
    parts, rows = [], []
    was_training = network.training
    network.eval()
    with torch.inference_mode(), autocast(precision, device):
        for cells in in_order_of_length(lengths_of(tokens), batch_size):
            waiting = [cells]
            while waiting:
                part = waiting.pop()
                batch = model.collate(tokens.take(part))
                try:
                    moved = {name: x.to(device, non_blocking=True) for name, x in batch.items()}
                    logits = network(**moved).float().cpu()
                except torch.OutOfMemoryError:
                    if len(part) == 1:
                        raise
                    waiting += np.array_split(part, 2)
                    continue
                parts.append(logits)
                rows.append(part)
    network.train(was_training)
    logits = torch.cat(parts)
    ordered = torch.empty_like(logits)
    ordered[torch.from_numpy(np.concatenate(rows))] = logits
    return ordered


def macro_f1(codes: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 of the types that occur among `codes`."""
    types = np.unique(codes)
    hits = np.array([((codes == t) & (predicted == t)).sum() for t in types])
    sums = np.array([(codes == t).sum() + (predicted == t).sum() for t in types])
    return float((2 * hits / sums).mean())
