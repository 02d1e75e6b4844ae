"""Networks of scFoundation (Hao et al. 2024): encoder over expressed genes, decoder over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.models.performer import KeyMaximum, Performer, PerformerOptions

__all__ = [
    "N_SPECIAL",
    "ScFoundationAutoencoder",
    "ScFoundationClassifier",
    "ScFoundationEncoder",
    "ScFoundationSizes",
]

N_SPECIAL: Final = 3
"""Positions after the genes: target depth T, source depth S, and none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScFoundationSizes:
    """Sizes and options of the networks; defaults are the published ones.

    pool_padding
        Let the classifier's maximum run over padding too, as the reference does: logits then
        depend on the other cells of the batch. By default padding is ignored.
    depth_tokens
        Give the classifier the two read-depth tokens as well; the reference does not.
    max_tokens
        Keep only so many genes a cell, those with the highest values. Not what the authors do:
        a deviation, for speed and memory.
    resolution
        Target depth T: `t4` is 10,000 counts, `f2` is twice the cell's own, `a1` ten times it.
    key_maximum
        Of the decoder, see `PerformerOptions`.
    """

    SHAPE: ClassVar[tuple[str, ...]] = (
        "dim", "depth", "heads", "n_bins", "decoder_dim", "decoder_depth", "decoder_heads"
    )  # fmt: skip
    """Sizes that make a network the published one."""

    dim: int = 768
    depth: int = 12
    heads: int = 12
    n_bins: int = 100
    bin_alpha: float = 1.0
    pad_token_id: float = 103.0
    mask_token_id: float = 102.0
    hidden: int = 256
    dropout: float = 0.1
    decoder_dim: int = 512
    decoder_depth: int = 6
    decoder_heads: int = 8
    decoder_dim_head: int = 64
    panel_size: int | None = None
    max_tokens: int | None = None
    resolution: str = "t4"
    depth_tokens: bool = False
    pool_padding: bool = False
    key_maximum: KeyMaximum = "cell"


class ValueEmbedding(nn.Module):
    """Embed a continuous expression value as a soft mixture of learned bins."""

    def __init__(self, sizes: ScFoundationSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.mlp = nn.Linear(1, sizes.n_bins)
        self.mlp2 = nn.Linear(sizes.n_bins, sizes.n_bins)
        self.emb = nn.Embedding(sizes.n_bins, sizes.dim)
        self.emb_mask = nn.Embedding(1, sizes.dim)
        self.emb_pad = nn.Embedding(1, sizes.dim)

    def bin_weights(self, values: Tensor) -> Tensor:
        """Return the share of each bin in each value, (..., n_bins)."""
        hidden = F.leaky_relu(self.mlp(values.unsqueeze(-1)), negative_slope=0.1)
        return (self.sizes.bin_alpha * hidden + self.mlp2(hidden)).softmax(dim=-1)

    def forward(self, values: Tensor) -> Tensor:
        """Return embeddings (..., dim); the mask and pad values have vectors of their own."""
        embedded = self.bin_weights(values) @ self.emb.weight
        for special, vector in (
            (self.sizes.mask_token_id, self.emb_mask.weight),
            (self.sizes.pad_token_id, self.emb_pad.weight),
        ):
            embedded = torch.where((values == special).unsqueeze(-1), vector, embedded)
        return embedded


class _Transformer(nn.Module):
    """Post-norm transformer layers and a final norm."""

    def __init__(self, sizes: ScFoundationSizes) -> None:
        super().__init__()
        self.transformer_encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(
                sizes.dim,
                sizes.heads,
                dim_feedforward=4 * sizes.dim,
                dropout=sizes.dropout,
                batch_first=True,
            )
            for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.dim)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        for layer in self.transformer_encoder:
            x = layer(x, src_key_padding_mask=padding)
        return self.norm(x)


class ScFoundationEncoder(nn.Module):
    """Value and gene embeddings under a post-norm transformer, without a head."""

    def __init__(self, sizes: ScFoundationSizes, n_genes: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.n_genes = n_genes
        self.token_emb = ValueEmbedding(sizes)
        self.pos_emb = nn.Embedding(n_genes + N_SPECIAL, sizes.dim)
        self.encoder = _Transformer(sizes)

    def embedded(self, values: Tensor, gene_ids: Tensor) -> Tensor:
        """Return the sum of value and gene embeddings, (B, n, dim)."""
        return self.token_emb(values) + self.pos_emb(gene_ids)

    def encode(self, values: Tensor, gene_ids: Tensor, padding: Tensor) -> Tensor:
        """Return encodings (B, n, dim) of packed tokens; `padding` is true for absent ones."""
        return self.encoder(self.embedded(values, gene_ids), padding)


class ScFoundationClassifier(ScFoundationEncoder):
    """The authors' fine-tuning module: maximum over tokens, batch norm, two linear layers."""

    def __init__(self, sizes: ScFoundationSizes, n_genes: int, n_classes: int) -> None:
        super().__init__(sizes, n_genes)
        self.norm = nn.BatchNorm1d(sizes.dim, affine=False, eps=1e-6)
        self.fc1 = nn.Sequential(
            nn.Linear(sizes.dim, sizes.hidden), nn.ReLU(), nn.Linear(sizes.hidden, n_classes)
        )

    def pooled(self, values: Tensor, gene_ids: Tensor, padding: Tensor) -> Tensor:
        """Return the maximum over the tokens of each cell, (B, dim)."""
        encoded = self.encode(values, gene_ids, padding)
        if not self.sizes.pool_padding:
            encoded = encoded.masked_fill(padding.unsqueeze(-1), -torch.inf)
        return encoded.amax(dim=1)

    def forward(self, values: Tensor, gene_ids: Tensor, padding: Tensor) -> Tensor:
        """Return logits (B, n_classes)."""
        x = self.pooled(values, gene_ids, padding)
        if self.training and len(x) == 1:
            # One cell has no variance: it is normalised with the running statistics.
            x = F.batch_norm(x, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)
        else:
            x = self.norm(x)
        return self.fc1(x)


class ScFoundationAutoencoder(ScFoundationEncoder):
    """The pre-training network: a Performer decodes every gene from the encoded ones."""

    def __init__(self, sizes: ScFoundationSizes, n_genes: int) -> None:
        super().__init__(sizes, n_genes)
        self.decoder_embed = nn.Linear(sizes.dim, sizes.decoder_dim)
        self.decoder = nn.ModuleDict(
            {
                "performer": Performer(
                    dim=sizes.decoder_dim,
                    depth=sizes.decoder_depth,
                    heads=sizes.decoder_heads,
                    dim_head=sizes.decoder_dim_head,
                    qkv_bias=True,
                    options=PerformerOptions(key_maximum=sizes.key_maximum),
                ),
                "norm": nn.LayerNorm(sizes.decoder_dim),
            }
        )
        self.norm = nn.LayerNorm(sizes.decoder_dim)
        self.to_final = nn.Linear(sizes.decoder_dim, 1)

    def gene_embeddings(
        self, values: Tensor, gene_ids: Tensor, padding: Tensor, everything: Tensor
    ) -> Tensor:
        """Return an embedding of every gene, (B, n_genes, decoder_dim).

        `everything` (B, n_genes + 2) holds the values of all genes, zeros included, T and S.
        """
        encoded = self.encode(values, gene_ids, padding)
        x = self.token_emb(everything)
        # Encoded tokens replace their values; padding falls on a column that is cut off.
        x = F.pad(x, (0, 0, 0, 1))
        target = gene_ids.masked_fill(padding, x.shape[1] - 1)
        x = x.scatter(1, target.unsqueeze(-1).expand_as(encoded), encoded)[:, :-1]
        x = self.decoder_embed(x + self.pos_emb.weight[: x.shape[1]])
        x = self.norm(self.decoder["norm"](self.decoder["performer"](x)))
        return x[:, : self.n_genes]

    def expression(
        self, values: Tensor, gene_ids: Tensor, padding: Tensor, everything: Tensor
    ) -> Tensor:
        """Return the expression that the decoder predicts for every gene, (B, n_genes)."""
        return self.to_final(self.gene_embeddings(values, gene_ids, padding, everything)).squeeze(
            -1
        )
