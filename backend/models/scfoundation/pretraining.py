"""Pre-training of scFoundation: masked values of all genes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backend.models.base import TokenBatch
from backend.models.pretraining import Objective, choose
from backend.models.ragged import pad
from backend.models.scfoundation.network import ScFoundationAutoencoder
from backend.models.scfoundation.tokens import pack

__all__ = ["MaskedExpression"]


class MaskedExpression(Objective):
    """Regress masked values, expressed or not, from the genes left over."""

    text = (
        "masked expression regression: mean squared error of 30 % of the expressed and 3 % of the "
        "other genes; the encoder reads the rest, the decoder both"
    )
    unused = ("decoder*", "norm.*", "to_final.*")
    share_expressed: ClassVar[float] = 0.3
    share_zero: ClassVar[float] = 0.03

    def __init__(self, model: Any) -> None:
        network = ScFoundationAutoencoder(model.sizes, len(model.panel))
        super().__init__(model, network)

    def mask(self, cells: TokenBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Split each cell into genes that the encoder reads and genes that are asked for."""
        n_genes = len(self.model.panel)
        dense = np.zeros((len(cells), n_genes), np.float32)
        for row, ids, values in zip(dense, cells.ids, cells.values, strict=True):
            row[ids] = values
        is_expressed = torch.from_numpy(dense) > 0
        chosen = choose(is_expressed, self.share_expressed, generator)
        is_zero = torch.rand(chosen.shape, generator=generator) < self.share_zero
        hidden = (chosen | (~is_expressed & is_zero)).numpy()
        left = [np.flatnonzero(row) for row in is_expressed.numpy() & ~hidden]
        # Without the authors' down-sampling of counts, both read-depth tokens say the cell's own.
        depth = np.nan_to_num(cells.extra["source_depth"], neginf=0.0)
        packed = pack(
            TokenBatch(
                ids=left,
                values=[row[ids] for row, ids in zip(dense, left, strict=True)],
                extra={"target_depth": depth, "source_depth": depth},
            ),
            with_depth=True,
            n_genes=n_genes,
            pad_value=self.model.sizes.pad_token_id,
            pad_position=n_genes + 2,
            max_tokens=self.model.sizes.max_tokens,
        )
        asked = pad([np.flatnonzero(row) for row in hidden], n_genes + 2, np.int64)
        truth = torch.from_numpy(dense[hidden])
        return packed | {"asked": torch.from_numpy(asked), "truth": truth}

    def forward(self, **batch: Tensor) -> Tensor:
        """Return the mean squared error of the values asked for.

        The decoder reads encoded and asked genes, not the panel's other zeros: light, for a CPU.
        """
        asked, truth = batch.pop("asked"), batch.pop("truth")
        network = self.network
        encoded = network.encode(**batch)
        marks = network.token_emb.emb_mask.weight.expand(*asked.shape, -1)
        positions = torch.cat([batch["gene_ids"], asked], dim=1)
        absent = torch.cat([batch["padding"], asked == network.n_genes + 2], dim=1)
        x = torch.cat([encoded, marks.to(encoded.dtype)], dim=1) + network.pos_emb(positions)
        x = network.decoder["performer"](network.decoder_embed(x), absent)
        x = network.norm(network.decoder["norm"](x))[:, encoded.shape[1] :]
        predicted = network.to_final(x[asked != network.n_genes + 2]).squeeze(-1)
        return F.mse_loss(predicted.float(), truth)
