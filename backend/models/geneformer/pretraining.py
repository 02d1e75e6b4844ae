"""Pre-training of Geneformer: masked genes of a ranked cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertForMaskedLM

from backend.models.pretraining import Objective, choose

if TYPE_CHECKING:
    from backend.models.base import TokenBatch

__all__ = ["MaskedGenes"]


class MaskedGenes(Objective):
    """Name the masked genes of a ranked cell, as BERT does."""

    text = (
        "masked gene prediction: cross-entropy of 15 % of the ranked genes (80 % of them masked, "
        "10 % replaced by another gene, 10 % left), among the genes that occur in the batch"
    )
    unused = ("cls.predictions.*",)
    share: ClassVar[float] = 0.15

    def __init__(self, model: Any) -> None:
        super().__init__(model, BertForMaskedLM(model.network(2).config))
        tokens, genes = model.dictionaries.tokens, model.dictionaries.medians
        self.mask_token: int = tokens["<mask>"]
        self.special = torch.tensor([tokens[name] for name in tokens if name not in genes])

    def mask(self, cells: TokenBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Hide genes; special tokens and padding are spared."""
        batch = self.model.collate(cells)
        ids = batch["input_ids"]
        is_gene = ~torch.isin(ids, self.special)
        chosen = choose(is_gene, self.share, generator)
        # The softmax over all genes would take longer than the network.
        genes = ids[is_gene].unique()
        truth = torch.searchsorted(genes, ids[chosen])
        draws = torch.rand(truth.shape, generator=generator)
        others = genes[torch.randint(len(genes), truth.shape, generator=generator)]
        shown = torch.where(draws < 0.8, self.mask_token, ids[chosen])
        shown = torch.where((draws >= 0.8) & (draws < 0.9), others, shown)
        masked = ids.masked_scatter(chosen, shown)
        return batch | {"input_ids": masked, "hidden": chosen, "truth": truth, "genes": genes}

    def forward(self, **batch: Tensor) -> Tensor:
        """Return the cross-entropy over the genes of the batch."""
        hidden, truth, genes = (batch.pop(name) for name in ("hidden", "truth", "genes"))
        states = self.network.bert(**batch).last_hidden_state[hidden]
        head = self.network.cls.predictions
        vectors = self.network.bert.embeddings.word_embeddings(genes)
        logits = F.linear(head.transform(states), vectors, head.bias[genes])
        return F.cross_entropy(logits.float(), truth)

    def tensors(self) -> dict[str, Tensor]:
        """Return backbone and head; the tied output embedding is the input's."""
        kept = self.network.state_dict().items()
        return {k: v for k, v in kept if not k.startswith("cls.predictions.decoder.")}
