"""The network of Geneformer, stock BERT, and the sizes of its presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch.nn.functional as F
from transformers import BertForSequenceClassification

from backend.models.base import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor
    from transformers.models.bert.modeling_bert import BertLayer

__all__ = ["PRESETS", "GeneformerNetwork"]


class GeneformerNetwork(BertForSequenceClassification):
    """The stock BERT classifier, returning logits."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, n_classes), read from the first token."""
        bert: Any = self.bert
        is_token = None
        if attention_mask is not None and not bool(attention_mask.all()):
            is_token = attention_mask[:, None, None, :].bool()
        states = bert.embeddings(input_ids=input_ids)
        *layers, last = bert.encoder.layer
        for layer in layers:
            states = layer(states, is_token)
        return self.classifier(self.dropout(bert.pooler(_first_state(last, states, is_token))))


def _first_state(layer: BertLayer, states: Tensor, is_token: Tensor | None) -> Tensor:
    """Return what `layer` makes of the first token alone, (B, 1, H).

    Only that token leaves the last layer, so only it asks there. The numbers are those of the
    whole layer; with one layer of two, half of the work is spared.
    """
    attention = layer.attention.self
    first = states[:, :1]

    def heads(part: Tensor) -> Tensor:
        return part.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        heads(attention.query(first)),
        heads(attention.key(states)),
        heads(attention.value(states)),
        attn_mask=is_token,
        dropout_p=attention.dropout.p if attention.training else 0.0,
    )
    attended = layer.attention.output(attended.transpose(1, 2).flatten(2), first)
    return layer.feed_forward_chunk(attended)


def _values(
    *, hidden: int, layers: int, heads: int, inter: int, length: int, dropout: float, has_cls: bool
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inter,
        "max_position_embeddings": length,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "type_vocab_size": 2,
        "has_cls": has_cls,
    }


PRESETS: Final[dict[str, ModelConfig]] = {
    "v1_10m": ModelConfig(
        "geneformer.v1_10m",
        _values(hidden=256, layers=6, heads=4, inter=512, length=2048, dropout=0.02, has_cls=False),
        is_published_size=True,
    ),
    "v2_104m": ModelConfig(
        "geneformer.v2_104m",
        _values(
            hidden=768, layers=12, heads=12, inter=3072, length=4096, dropout=0.1, has_cls=True
        ),
        is_published_size=True,
    ),
    "v2_316m": ModelConfig(
        "geneformer.v2_316m",
        _values(
            hidden=1152, layers=18, heads=18, inter=4608, length=4096, dropout=0.1, has_cls=True
        ),
        is_published_size=True,
    ),
    "small": ModelConfig(
        "geneformer.small",
        # Dropout of attention weights takes most of the time on a CPU.
        _values(hidden=64, layers=2, heads=4, inter=256, length=256, dropout=0.1, has_cls=True)
        | {"attention_probs_dropout_prob": 0.0},
        is_published_size=False,
    ),
}
