"""Pre-training of scGPT: masked bins, told from the gene and from the cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.models.pretraining import Objective, choose

if TYPE_CHECKING:
    from backend.models.base import TokenBatch

__all__ = ["MaskedValues"]


class MaskedValues(Objective):
    """Predict the bins of masked genes, from what the network makes of them and of the cell."""

    text = (
        "masked value prediction: mean squared error of the masked bins (a quarter, a half or "
        "three quarters of the genes), from the gene's state and from the cell's (MVC)"
    )
    unused = ("mvc_decoder.*",)
    shares: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75)
    mvc_decoder: nn.ModuleDict

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.network(2))
        # The classifier's head has nothing to learn here.
        self.network.cls_decoder.requires_grad_(requires_grad=False)
        d = model.sizes.embsize
        self.mvc_decoder = nn.ModuleDict(
            {"gene2query": nn.Linear(d, d), "W": nn.Linear(d, d, bias=False)}
        )

    def mask(self, cells: TokenBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Hide the values of genes; `<cls>` and padding are spared."""
        batch = self.model.collate(cells)
        values = batch["values"]
        is_gene = values != self.model.sizes.pad_value
        is_gene[:, 0] = False
        share = self.shares[int(torch.randint(len(self.shares), (1,), generator=generator))]
        hidden = choose(is_gene, share, generator)
        masked = values.masked_fill(hidden, self.model.sizes.mask_value)
        return batch | {"values": masked, "hidden": hidden, "truth": values[hidden]}

    def forward(self, **batch: Tensor) -> Tensor:
        """Return the sum of both errors; bins are divided by the highest."""
        hidden, truth = batch.pop("hidden"), batch.pop("truth") / (self.model.sizes.n_bins - 1)
        encoded = self.network.encode(**batch)
        by_gene = self.network.decoder.fc(encoded[hidden]).squeeze(-1)
        queries = self.mvc_decoder["gene2query"](self.network.encoder(batch["genes"])).sigmoid()
        by_cell = torch.einsum("bld,bd->bl", self.mvc_decoder["W"](queries), encoded[:, 0])[hidden]
        return F.mse_loss(by_gene.float(), truth) + F.mse_loss(by_cell.float(), truth)

    def tensors(self) -> dict[str, Tensor]:
        """Return the backbone, its expression decoder and the cell's decoder."""
        own = {f"mvc_decoder.{k}": v for k, v in self.mvc_decoder.state_dict().items()}
        kept = self.network.state_dict().items()
        return own | {k: v for k, v in kept if not k.startswith("cls_decoder.")}
