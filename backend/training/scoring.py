"""Logits of many cells in batches, and their macro-F1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from backend.training.batches import in_order_of_length
from backend.training.device import autocast
from backend.training.token_cache import lengths_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backend.models.base import FoundationModel
    from backend.training.token_cache import AnyTokens

__all__ = ["macro_f1", "predict_logits"]


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
