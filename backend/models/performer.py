"""Performer blocks (FAVOR+ attention, Choromanski et al. 2021, doi:10.48550/arXiv.2009.14794).

The variant of scBERT and of scFoundation's decoder: softmax kernel, not causal, pre-norm blocks,
key names of their checkpoints. Attention is linear in the number of tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["KERNEL_EPSILON", "KeyMaximum", "Performer", "PerformerOptions", "random_projection"]

KERNEL_EPSILON: Final = 1e-4
"""Added to every kernel feature, so that none vanishes. It also makes the key maximum matter."""

REDRAW_INTERVAL: Final = 1000
"""Training forwards after which the references draw new random features."""

KeyMaximum = Literal["cell", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformerOptions:
    """Where a Performer may depart from its reference.

    key_maximum
        The maximum that steadies the key kernel: over each cell ("cell", so that a prediction
        never depends on its neighbours) or over the whole batch ("batch", as the reference).
        Both are the same for one cell.
    redraw_features
        Draw new random features every 1,000 training forwards, as the reference does without
        saying so. Off, a checkpoint keeps the features it was trained with.
    checkpoint_activations
        Recompute each block in the backward pass instead of keeping its activations.
    """

    key_maximum: KeyMaximum = "cell"
    redraw_features: bool = False
    checkpoint_activations: bool = False


def random_projection(n_features: int, d: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw an (n_features, d) matrix of orthogonal directions with the lengths of normal vectors.

    Directions are orthogonal within each block of `d` rows.
    """
    n_blocks = math.ceil(n_features / d)
    directions = torch.cat(
        [torch.linalg.qr(torch.randn(d, d, generator=generator))[0].T for _ in range(n_blocks)]
    )[:n_features]
    lengths = torch.randn(n_features, d, generator=generator).norm(dim=1)
    return directions * lengths[:, None]


class _RoundedExponential(torch.autograd.Function):
    """Exponential of float32, rounded to half precision; only the rounded result is kept."""

    @staticmethod
    def forward(ctx: Any, exponents: Tensor, dtype: torch.dtype) -> Tensor:
        features = exponents.exp().to(dtype)
        ctx.save_for_backward(features)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        return (gradients[0] * features).float(), None


class FastAttention(nn.Module):
    """Softmax attention approximated with positive random features."""

    projection_matrix: Tensor

    def __init__(self, dim_head: int, options: PerformerOptions) -> None:
        super().__init__()
        self.options = options
        n_features = int(dim_head * math.log(dim_head))
        self.register_buffer("projection_matrix", random_projection(n_features, dim_head))

    def exponentials(
        self,
        x: Tensor,
        *,
        is_query: bool,
        padding: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return exp(Wcu - |cu|²/2 - max), (B, heads, L, features), in `dtype`.

        A kernel feature is this plus `KERNEL_EPSILON`; a common factor cancels in attention.
        The maxima stay in the gradient, as in the reference. Exponents are far from 0, so that
        half precision would lose per cents of a feature: they are computed in float32 always.
        """
        with torch.autocast(x.device.type, enabled=False):
            u = x.float() * x.shape[-1] ** -0.25
            logits = u @ self.projection_matrix.float().T
            squared = u.square().sum(dim=-1, keepdim=True) / 2
            if padding is not None and not is_query:
                logits = logits.masked_fill(padding[:, None, :, None], -torch.inf)
            # `max` along one dimension keeps indices; without one it would keep the whole tensor.
            if is_query:
                highest = logits.max(dim=-1, keepdim=True).values
            elif self.options.key_maximum == "batch":
                highest = logits.flatten().max(dim=0).values
            else:
                highest = logits.flatten(1).max(dim=1).values[:, None, None, None]
            # In place: no step of the backward pass needs the exponents, and they are large.
            exponents = logits.sub_(squared + highest)
            if dtype == torch.float32:
                return exponents.exp_()
            return _RoundedExponential.apply(exponents, dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None = None) -> Tensor:
        """Attend; q, k and v are (B, heads, L, d), `padding` (B, L) is true for absent tokens."""
        q_features = self.exponentials(q, is_query=True, dtype=v.dtype)
        k_features = self.exponentials(k, is_query=False, padding=padding, dtype=v.dtype)
        # A column of ones yields the denominator together with the numerator.
        v = F.pad(v, (0, 1), value=1.0)
        if padding is not None:
            v = v.masked_fill(padding[:, None, :, None], 0.0)
        # The epsilon is added to sums, not to features: the same, with half the activations.
        context = k_features.transpose(-1, -2) @ v
        context = context + KERNEL_EPSILON * v.sum(dim=-2, keepdim=True)
        out = q_features @ context + KERNEL_EPSILON * context.sum(dim=-2, keepdim=True)
        return out[..., :-1] / out[..., -1:]


class PerformerAttention(nn.Module):
    """Multi-head FAVOR+ self-attention with its projections."""

    def __init__(
        self, dim: int, heads: int, dim_head: int, options: PerformerOptions, *, qkv_bias: bool
    ) -> None:
        super().__init__()
        inner = heads * dim_head
        self.heads = heads
        self.fast_attention = FastAttention(dim_head, options)
        self.to_q = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_k = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_v = nn.Linear(dim, inner, bias=qkv_bias)
        self.to_out = nn.Linear(inner, dim)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return the attention result of x (B, L, dim)."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        out = self.fast_attention(q, k, v, padding)
        return self.to_out(out.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    """Two linear layers around an exact GELU, under the nested names of the checkpoints."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fn = nn.ModuleDict({"w1": nn.Linear(dim, 4 * dim), "w2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        return self.fn["w2"](F.gelu(self.fn["w1"](x)))


class _PreNorm(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        return self.fn(x) if padding is None else self.fn(x, padding)


class _Block(nn.ModuleList):
    """Attention and feed-forward, each on a normalised copy that is added back."""

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        x = x + self[0](x, padding)
        return x + self[1](x)


class _Layers(nn.Module):
    def __init__(self, blocks: list[_Block]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)


class Performer(nn.Module):
    """A stack of Performer blocks; no final norm."""

    calls_since_last_redraw: Tensor

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        dim_head: int,
        qkv_bias: bool = False,
        options: PerformerOptions | None = None,
    ) -> None:
        super().__init__()
        self.options = options or PerformerOptions()
        blocks = [
            _Block(
                [
                    _PreNorm(
                        dim,
                        PerformerAttention(dim, heads, dim_head, self.options, qkv_bias=qkv_bias),
                    ),
                    _PreNorm(dim, _FeedForward(dim)),
                ]
            )
            for _ in range(depth)
        ]
        self.net = _Layers(blocks)
        self.register_buffer("calls_since_last_redraw", torch.tensor(0))

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Transform x (B, L, dim)."""
        if self.training and self.options.redraw_features:
            self._count_and_redraw()
        for block in self.net.layers:
            if self.options.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, padding, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, padding)
        return x

    def _count_and_redraw(self) -> None:
        """Count a training forward; after 1,000 of them draw new features for every block."""
        if int(self.calls_since_last_redraw) < REDRAW_INTERVAL:
            self.calls_since_last_redraw += 1
            return
        for module in self.modules():
            if isinstance(module, FastAttention):
                fresh = random_projection(*module.projection_matrix.shape)
                module.projection_matrix.copy_(fresh)
        self.calls_since_last_redraw.zero_()
