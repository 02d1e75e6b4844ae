"""Objectives of masked-expression pre-training, one for each model.

An objective hides part of a batch of cells and scores what the network makes of it. Each keeps to
its paper in the simplest form that a small model on some thousand cells can use;
`docs/pretraining.md` says what is left out. A model of a plug-in brings its own by a method
`pretraining_objective()` that returns an `Objective`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.errors import InputError
from backend.models.base import FoundationModel, TokenBatch
from backend.models.ragged import pad
from backend.models.scfoundation.tokens import pack

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Objective", "choose", "objective_of"]


class Objective(nn.Module):
    """A network under its pre-training head, what is masked, and the loss.

    Attributes
    ----------
    text
        One sentence for `pretraining.json`.
    unused
        Patterns (`fnmatch`) of tensors that only pre-training needs.
    """

    text: ClassVar[str]
    unused: ClassVar[tuple[str, ...]]
    network: Any

    def __init__(self, model: Any, network: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.network = network

    def mask(self, cells: TokenBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the batch with a share hidden, and the hidden truth: what `forward` takes."""
        raise NotImplementedError

    def forward(self, **batch: Tensor) -> Tensor:
        """Return the mean loss over what was hidden."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors worth keeping, by the names of the model's own files."""
        return dict(self.network.state_dict())


def choose(is_eligible: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Draw each eligible place with probability `share`, and at least one of a batch.

    Raises
    ------
    InputError
        If no place is eligible.
    """
    draws = torch.rand(is_eligible.shape, generator=generator).masked_fill(~is_eligible, 2.0)
    chosen = draws < share
    if not chosen.any():
        if not is_eligible.any():
            msg = f"{len(is_eligible):,} cells of a batch have no gene to mask."
            raise InputError(msg, "Pre-train on cells with counts in known genes.")
        chosen = draws == draws.min()
    return chosen


class MaskedValues(Objective):
    """scGPT: predict the bins of masked genes, from their own states and from the cell's."""

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
        states = self.network.encode(**batch)
        by_gene = self.network.decoder.fc(states[hidden]).squeeze(-1)
        queries = self.mvc_decoder["gene2query"](self.network.encoder(batch["genes"])).sigmoid()
        by_cell = torch.einsum("bld,bd->bl", self.mvc_decoder["W"](queries), states[:, 0])[hidden]
        return F.mse_loss(by_gene.float(), truth) + F.mse_loss(by_cell.float(), truth)

    def tensors(self) -> dict[str, Tensor]:
        """Return the backbone, its expression decoder and the cell's decoder."""
        own = {f"mvc_decoder.{k}": v for k, v in self.mvc_decoder.state_dict().items()}
        kept = self.network.state_dict().items()
        return own | {k: v for k, v in kept if not k.startswith("cls_decoder.")}


class MaskedGenes(Objective):
    """Geneformer: name the masked genes of a ranked cell, as BERT does."""

    text = (
        "masked gene prediction: cross-entropy of 15 % of the ranked genes (80 % of them masked, "
        "10 % replaced by another gene, 10 % left), among the genes that occur in the batch"
    )
    unused = ("cls.predictions.*",)
    share: ClassVar[float] = 0.15

    def __init__(self, model: Any) -> None:
        from transformers import BertForMaskedLM

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


class MaskedBins(Objective):
    """scBERT: tell the bins of masked genes apart."""

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


class MaskedExpression(Objective):
    """scFoundation: regress masked values, expressed or not, from the genes left over."""

    text = (
        "masked expression regression: mean squared error of 30 % of the expressed and 3 % of the "
        "other genes; the encoder reads the rest, the decoder both"
    )
    unused = ("decoder*", "norm.*", "to_final.*")
    share_expressed: ClassVar[float] = 0.3
    share_zero: ClassVar[float] = 0.03

    def __init__(self, model: Any) -> None:
        from backend.models.scfoundation.network import ScFoundationAutoencoder

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


_OBJECTIVES: Final[dict[str, Callable[[Any], Objective]]] = {
    "scgpt": MaskedValues,
    "geneformer": MaskedGenes,
    "scbert": MaskedBins,
    "scfoundation": MaskedExpression,
}


def objective_of(model: FoundationModel) -> Objective:
    """Return the pre-training objective of a model.

    Raises
    ------
    InputError
        If it has none.
    """
    has_own = type(model).pretraining_objective is not FoundationModel.pretraining_objective
    if has_own or model.key not in _OBJECTIVES:
        found: Objective = model.pretraining_objective()
        return found
    return _OBJECTIVES[model.key](model)
