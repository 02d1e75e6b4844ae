"""Forward and backward of scGPT and Geneformer at full size, beside stock networks, in one run.

Usage: python benchmarks/network.py [--threads N] [--repeats N] [--batch B] [--tokens L] [--layers N]

On a CPU in float32: ours beside `torch.nn.TransformerEncoder` (scGPT) and eager BERT (Geneformer)
of the same sizes, taking turns, half of the cells padded to three quarters. With a GPU, also bf16
with length buckets: cells a second, and the share of the chip's bf16 peak as a large matrix
product reaches it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.models.base import ModelConfig
from backend.models.geneformer.model import Geneformer
from backend.models.scgpt.model import ScGPT
from backend.training.batches import training_batches

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
    if torch.cuda.is_available():
        on_gpu()
    else:
        print("no GPU here: bf16 with length buckets was not measured")
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


def on_gpu():
    """Measure bf16 training steps on length-bucketed batches; not run on machines without a GPU."""
    device = torch.device("cuda")
    peak = matrix_peak(device)
    print(f"{torch.cuda.get_device_name(device)}: bf16 matrix product {peak / 1e12:.0f} TFLOP/s")
    lengths = np.clip(np.random.default_rng(0).lognormal(7, 0.5, 4096), 200, 2048).astype(int)
    for name, network, d, d_hidden, layers in (
        gpu_network(ScGPT.presets["whole_human"]),
        gpu_network(Geneformer.presets["v2_104m"]),
    ):
        network = network.to(device).train()
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        batches = list(training_batches(lengths, 32, seed=0))[:40]
        flop, n_cells = 0.0, 0
        for index, cells in enumerate(batches):
            if index == 8:
                torch.cuda.synchronize()
                started, flop, n_cells = time.perf_counter(), 0.0, 0
            n_tokens = int(lengths[cells].max())
            batch = {k: x.to(device) for k, x in batch_of(name, len(cells), n_tokens).items()}
            with torch.autocast("cuda", dtype=torch.bfloat16):
                logits = network(**batch)
            target = torch.zeros(len(cells), dtype=torch.long, device=device)
            F.cross_entropy(logits.float(), target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            a_token = 2 * (4 * d * d + 2 * d * d_hidden) + 4 * n_tokens * d
            flop += 3.0 * len(cells) * n_tokens * layers * a_token
            n_cells += len(cells)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        print(
            f"{name:<20} {n_cells / seconds:7,.0f} cells/s  "
            f"{flop / seconds / peak:.0%} of the bf16 peak"
        )


def gpu_network(config):
    genes = [str(i) for i in range(N_GENES)]
    v = config.values
    if config.name.startswith("scgpt"):
        network = ScGPT.scratch(config, genes, seed=0).network(N_CLASSES)
        return config.name, network, v["embsize"], v["d_hid"], v["nlayers"]
    network = Geneformer.scratch(config, genes, seed=0).network(N_CLASSES)
    return config.name, network, v["hidden_size"], v["intermediate_size"], v["num_hidden_layers"]


def matrix_peak(device, n=8192):
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * n**3 / (time.perf_counter() - started)


if __name__ == "__main__":
    raise SystemExit(main())
