"""Pre-training of scBERT: masked bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.models.pretraining import Objective, choose

if TYPE_CHECKING:
    from backend.models.base import TokenBatch

__all__ = ["MaskedBins"]


class MaskedBins(Objective):
    """Tell the bins of masked genes apart."""

    text = (
        "masked bin prediction: cross-entropy over the bins of 15 % of the genes with a bin above "
        "0 (90 % of them masked, 10 % left)"
    )
    unused = ("to_out.*",)
    share: ClassVar[float] = 0.15

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.network(None))

    def mask(self, cells: TokenBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Hide bins; bin 0 is spared."""
        batch = self.model.collate(cells)
        tokens = batch["tokens"]
        chosen = choose(tokens > 0, self.share, generator)
        is_shown = torch.rand(tokens.shape, generator=generator) >= 0.9
        masked = tokens.masked_fill(chosen & ~is_shown, self.model.sizes.n_bins + 1)
        return batch | {"tokens": masked, "hidden": chosen, "truth": tokens[chosen]}

    def forward(self, **batch: Tensor) -> Tensor:
        """Return the cross-entropy over the bins."""
        hidden, truth = batch.pop("hidden"), batch.pop("truth")
        logits = self.network.to_out(self.network.encode(**batch)[hidden])
        return F.cross_entropy(logits.float(), truth)
