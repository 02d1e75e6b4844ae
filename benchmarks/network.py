"""Forward and backward of scGPT and Geneformer at full size, beside stock networks, in one run.

Usage: python benchmarks/network.py [--threads N] [--repeats N] [--batch B] [--tokens L] [--layers N]

On a CPU in float32: ours beside `torch.nn.TransformerEncoder` (scGPT) and eager BERT (Geneformer)
of the same sizes, taking turns, half of the cells padded to three quarters. On a GPU:
benchmarks/gpu.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.models.base import ModelConfig
from backend.models.geneformer.model import Geneformer
from backend.models.scgpt.model import ScGPT

N_CLASSES = 18
N_GENES = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1200)
    parser.add_argument("--layers", type=int, help="fewer layers, for a slow machine")
    parser.add_argument("--geneformer", default="v1_10m", help="preset of Geneformer")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(
        f"batch {args.batch} × {args.tokens} tokens, float32, {args.threads} threads, dropout off"
    )
    is_fast = True
    for name, ours, theirs in (pair_of_scgpt(args), pair_of_geneformer(args)):
        batch = batch_of(name, args.batch, args.tokens)
        for network in (ours, theirs):
            without_dropout(network)
            step(network, batch)
        seconds = {"ours": [], "stock": []}
        for _ in range(args.repeats):
            seconds["ours"].append(step(ours, batch))
            seconds["stock"].append(step(theirs, batch))
        mine, stock = (statistics.median(times) for times in seconds.values())
        print(f"{name:<20} ours {mine:6.2f} s  stock {stock:6.2f} s  ratio {stock / mine:5.2f}")
        is_fast &= stock >= mine
    return 0 if is_fast else 1


def with_layers(config, name, args):
    values = {**config.values, name: args.layers or config.values[name]}
    return ModelConfig(config.name, values, is_published_size=True)


def pair_of_scgpt(args):
    config = with_layers(ScGPT.presets["whole_human"], "nlayers", args)
    ours = ScGPT.scratch(config, [str(i) for i in range(N_GENES)], seed=0).network(N_CLASSES)
    return config.name, ours, Stock(config.values, len(ours.encoder.embedding.weight))


def pair_of_geneformer(args):
    config = with_layers(Geneformer.presets[args.geneformer], "num_hidden_layers", args)
    ours = Geneformer.scratch(config, [str(i) for i in range(N_GENES)], seed=0).network(N_CLASSES)
    eager = BertConfig(**{**ours.config.to_dict(), "attn_implementation": "eager"})
    return config.name, ours, BertForSequenceClassification(eager)


class Stock(nn.Module):
    """The same classifier around torch's own encoder."""

    def __init__(self, values, n_tokens):
        super().__init__()
        d = values["embsize"]
        self.genes = nn.Sequential(nn.Embedding(n_tokens, d), nn.LayerNorm(d))
        self.values = nn.Sequential(nn.Linear(1, d), nn.ReLU(), nn.Linear(d, d), nn.LayerNorm(d))
        layer = nn.TransformerEncoderLayer(
            d, values["nheads"], values["d_hid"], values["dropout"], batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, values["nlayers"], enable_nested_tensor=False)
        self.head = nn.Linear(d, N_CLASSES)

    def forward(self, genes, values, is_padding):
        x = self.genes(genes) + self.values(values.unsqueeze(-1))
        return self.head(self.encoder(x, src_key_padding_mask=is_padding)[:, 0])


def without_dropout(network):
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def batch_of(name, n_cells, n_tokens):
    genes = torch.randint(4, N_GENES, (n_cells, n_tokens))
    is_padding = torch.zeros(n_cells, n_tokens, dtype=torch.bool)
    is_padding[: n_cells // 2, n_tokens * 3 // 4 :] = True
    if name.startswith("scgpt"):
        values = torch.randint(1, 51, (n_cells, n_tokens)).float()
        return {"genes": genes, "values": values, "is_padding": is_padding}
    return {"input_ids": genes, "attention_mask": (~is_padding).long()}


def step(network, batch):
    started = time.perf_counter()
    logits = network(**batch)
    logits = getattr(logits, "logits", logits)
    network.zero_grad(set_to_none=True)
    F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)).backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
