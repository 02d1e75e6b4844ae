"""The network of scGPT, with the tensor names of the authors' files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ScGPTNetwork", "ScGPTSizes"]

MAX_VALUE: Final = 512
"""Values are clipped to this before they are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScGPTSizes:
    """Sizes and input options of one scGPT.

    max_length : longest sequence with `<cls>`; longer cells keep a drawn sample of their genes
    n_hvg      : highly variable genes chosen on training cells when trained from scratch
    reads_zeros: read genes without counts too (the authors' `include_zero_gene`)
    attention_dropout: as `dropout`, of attention weights; 0 spares a CPU most of its time
    """

    embsize: int = 512
    nheads: int = 8
    d_hid: int = 512
    nlayers: int = 12
    n_layers_cls: int = 3
    n_bins: int = 51
    max_length: int = 3001
    pad_value: int = -2
    mask_value: int = -1
    dropout: float = 0.2
    attention_dropout: float = 0.2
    n_hvg: int | None = None
    reads_zeros: bool = False


class _GeneEncoder(nn.Module):
    def __init__(self, n_tokens: int, d: int, pad_id: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, d, padding_idx=pad_id)
        self.enc_norm = nn.LayerNorm(d)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, genes: Tensor) -> Tensor:
        return self.enc_norm(self.embedding(genes))


class _ValueEncoder(nn.Module):
    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, d)
        self.linear2 = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        x = F.relu(self.linear1(values.unsqueeze(-1).clamp(max=MAX_VALUE)))
        return self.dropout(self.norm(self.linear2(x)))


class _Attention(nn.Module):
    def __init__(self, d: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d, d))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * d))
        self.out_proj = nn.Linear(d, d)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, is_token: Tensor | None, n_queries: int | None) -> Tensor:
        d = x.shape[-1]

        def heads(part: Tensor) -> Tensor:
            return part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

        if n_queries is None:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            weight, bias = self.in_proj_weight, self.in_proj_bias
            q = F.linear(x[:, :n_queries], weight[:d], bias[:d])
            k, v = F.linear(x, weight[d:], bias[d:]).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            heads(q),
            heads(k),
            heads(v),
            attn_mask=is_token,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """Post-norm block: attention, then a ReLU network, each added to its input and normed."""

    def __init__(self, sizes: ScGPTSizes) -> None:
        super().__init__()
        d = sizes.embsize
        self.self_attn = _Attention(d, sizes.nheads, sizes.attention_dropout)
        self.linear1 = nn.Linear(d, sizes.d_hid)
        self.linear2 = nn.Linear(sizes.d_hid, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, is_token: Tensor | None, n_queries: int | None = None) -> Tensor:
        attended = self.self_attn(x, is_token, n_queries)
        x = self.norm1(x[:, :n_queries] + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class _Encoder(nn.Module):
    def __init__(self, sizes: ScGPTSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.nlayers))

    def forward(self, x: Tensor, is_token: Tensor | None, n_queries: int | None) -> Tensor:
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            # Only some tokens leave the last layer, so only they ask there.
            x = layer(x, is_token, n_queries if index == last else None)
        return x


class _ExpressionDecoder(nn.Module):
    """Predicts masked values in pre-training; a classifier carries it along unused."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, 1)
        )


class _ClassDecoder(nn.Module):
    def __init__(self, d: int, n_classes: int, n_layers: int) -> None:
        super().__init__()
        self._decoder = nn.ModuleList()
        for _ in range(n_layers - 1):
            self._decoder.extend([nn.Linear(d, d), nn.ReLU(), nn.LayerNorm(d)])
        self.out_layer = nn.Linear(d, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._decoder:
            x = layer(x)
        return self.out_layer(x)


class ScGPTNetwork(nn.Module):
    """The classifier, with the tensor names of the authors' files (plain-torch attention)."""

    def __init__(self, sizes: ScGPTSizes, n_tokens: int, pad_id: int, n_classes: int) -> None:
        super().__init__()
        self.encoder = _GeneEncoder(n_tokens, sizes.embsize, pad_id)
        self.value_encoder = _ValueEncoder(sizes.embsize, sizes.dropout)
        self.transformer_encoder = _Encoder(sizes)
        self.decoder = _ExpressionDecoder(sizes.embsize)
        self.cls_decoder = _ClassDecoder(sizes.embsize, n_classes, sizes.n_layers_cls)

    def encode(
        self,
        genes: Tensor,
        values: Tensor,
        is_padding: Tensor | None = None,
        *,
        n_queries: int | None = None,
    ) -> Tensor:
        """Return the state of the first `n_queries` tokens (all by default), (B, L, D)."""
        x = self.encoder(genes) + self.value_encoder(values)
        is_token = None if is_padding is None else ~is_padding[:, None, None, :]
        return self.transformer_encoder(x, is_token, n_queries)

    def embed(self, genes: Tensor, values: Tensor, is_padding: Tensor | None = None) -> Tensor:
        """Return the state of `<cls>`, (B, D)."""
        return self.encode(genes, values, is_padding, n_queries=1)[:, 0]

    def forward(self, genes: Tensor, values: Tensor, is_padding: Tensor | None = None) -> Tensor:
        """Return logits (B, n_classes); `is_padding` is None when no cell of the batch is padded."""
        return self.cls_decoder(self.embed(genes, values, is_padding))
