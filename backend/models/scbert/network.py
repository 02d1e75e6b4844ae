"""Network of scBERT (Yang et al. 2022): a Performer over every panel gene, and its heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.models.performer import KeyMaximum, Performer, PerformerOptions

__all__ = ["TOKENS_PER_PASS", "ConvolutionHead", "ScBertNetwork", "ScBertSizes"]

TOKENS_PER_PASS: Final = 32_768
"""Without gradients: nearly two cells of the full panel, about 2 GiB at the published size."""


class _RowConvolution(nn.Conv2d):
    """A convolution whose kernel spans the whole row: one number a token.

    Computed as the linear map that it is: the gradient of the convolution's weight was wrong
    on CPU at some widths (torch 2.13, last element unset).
    """

    def __init__(self, dim: int) -> None:
        super().__init__(1, 1, kernel_size=(1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L) of x (B, L, dim)."""
        return F.linear(x, self.weight.flatten(1), self.bias).squeeze(-1)


class ConvolutionHead(nn.Module):
    """The authors' classifier: one number a token, then three linear layers over all tokens.

    `width` is the number of token positions; each position has its own weights in `fc1`.
    """

    def __init__(self, dim: int, width: int, hidden: int, n_classes: int) -> None:
        super().__init__()
        self.width = width
        self.conv1 = _RowConvolution(dim)
        self.fc1 = nn.Linear(width, 512)
        self.fc2 = nn.Linear(512, hidden)
        self.fc3 = nn.Linear(hidden, n_classes)

    def forward(
        self, x: Tensor, positions: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, n_classes) of encodings (B, L, dim).

        With `positions` (B, L), only those tokens are given: the others count as zero.
        """
        x = F.relu(self.conv1(x))
        if positions is not None:
            if padding is not None:
                x = x.masked_fill(padding, 0.0)
            x = x.new_zeros(len(x), self.width).scatter_add(1, positions, x)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScBertSizes:
    """Sizes and options of one scBERT network.

    n_bins
        Expressed genes are binned to 0 … n_bins; one more token is the mask of pre-training.
    expressed_only
        Read only the genes that a cell expresses (and the appended token) instead of the whole
        panel. Not what the authors do: a deviation, for speed.
    key_maximum, redraw_features, checkpoint_activations
        See `PerformerOptions`.
    """

    SHAPE: ClassVar[tuple[str, ...]] = ("dim", "depth", "heads", "dim_head", "n_bins", "head_dim")
    """Sizes that make a network the published one."""

    dim: int = 200
    depth: int = 6
    heads: int = 10
    dim_head: int = 64
    n_bins: int = 5
    head_dim: int = 128
    panel_size: int | None = None
    expressed_only: bool = False
    key_maximum: KeyMaximum = "cell"
    redraw_features: bool = False
    checkpoint_activations: bool = False


class ScBertNetwork(nn.Module):
    """Token and gene embedding, Performer, norm and a head, under the names of the checkpoints.

    `n_classes=None` builds the pre-training head, which returns logits over tokens.
    """

    def __init__(self, sizes: ScBertSizes, n_genes: int, n_classes: int | None) -> None:
        super().__init__()
        width = n_genes + 1
        self.key_maximum = sizes.key_maximum
        self.token_emb = nn.Embedding(sizes.n_bins + 2, sizes.dim)
        self.pos_emb = nn.ModuleDict({"emb": nn.Embedding(width, sizes.dim)})
        self.performer = Performer(
            dim=sizes.dim,
            depth=sizes.depth,
            heads=sizes.heads,
            dim_head=sizes.dim_head,
            options=PerformerOptions(
                key_maximum=sizes.key_maximum,
                redraw_features=sizes.redraw_features,
                checkpoint_activations=sizes.checkpoint_activations,
            ),
        )
        self.norm = nn.LayerNorm(sizes.dim)
        self.to_out: nn.Module
        if n_classes is None:
            self.to_out = nn.Linear(sizes.dim, sizes.n_bins + 2)
        else:
            self.to_out = ConvolutionHead(sizes.dim, width, sizes.head_dim, n_classes)

    def embedded(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the sum of token and gene embeddings, (B, L, dim)."""
        genes = self.pos_emb["emb"].weight if positions is None else self.pos_emb["emb"](positions)
        return self.token_emb(tokens) + genes

    def encode(
        self, tokens: Tensor, positions: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Return the encoding of each token, (B, L, dim)."""
        return self.norm(self.performer(self.embedded(tokens, positions), padding))

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Return logits of `tokens` (B, L), all of the panel or those at `positions`.

        Without gradients, a large batch goes through in parts: cells do not depend on each other.
        """
        parts = [part for part in (tokens, positions, padding) if part is not None]
        size = max(1, TOKENS_PER_PASS // tokens.shape[1])
        is_cut = self.key_maximum == "cell" and not torch.is_grad_enabled() and len(tokens) > size
        if not is_cut:
            return self._logits(*parts)
        cut = zip(*(part.split(size) for part in parts), strict=True)
        return torch.cat([self._logits(*cells) for cells in cut])

    def _logits(
        self, tokens: Tensor, positions: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        x = self.encode(tokens, positions, padding)
        return self.to_out(x) if positions is None else self.to_out(x, positions, padding)
