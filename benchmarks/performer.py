"""scBERT's Performer: forward time against length, and peak memory of one training step.

Usage: python benchmarks/performer.py [--layers authors|all] [--skip-memory] [--device cpu|cuda]

Published size with random weights, one cell. Every memory figure is the growth of a process of
its own (on a GPU: the peak of the allocator) over the network with its optimiser.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.models.scbert.model import ScBert
from backend.models.scbert.network import ScBertNetwork, ScBertSizes

LENGTHS = (2048, 4096, 8192, 16384)
N_GENES = 16_906
PUBLISHED = ScBert.sizes_of(ScBert.presets["panglao"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", choices=("authors", "all"), default="authors")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.step:
        precision, _, checkpoints = args.step.partition("-")
        print(json.dumps(training_step(args, precision, is_checkpointed=bool(checkpoints))))
        return 0

    print(f"Performer forward, {torch.get_num_threads()} threads, {args.device}")
    seconds = [forward_seconds(length, args.device) for length in LENGTHS]
    for length, value in zip(LENGTHS, seconds, strict=True):
        print(f"  {length:>6} tokens  {value:7.2f} s  {1e6 * value / length:7.1f} us/token")
    slope = np.polyfit(np.log(LENGTHS), np.log(seconds), 1)[0]
    is_linear = 0.8 < slope < 1.2
    print(f"  time grows with length to the power {slope:.2f} (1 is linear)")
    if args.skip_memory:
        return 0 if is_linear else 1

    print(f"one training step at {N_GENES + 1:,} tokens, layers: {args.layers}")
    for step in ("fp32", "fp32-checkpointed", "bf16", "bf16-checkpointed"):
        command = [sys.executable, __file__, "--step", step]
        command += ["--layers", args.layers, "--device", args.device]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(run.stdout)
        print(f"  {step:<18} {found['mib']:7,.0f} MiB  {found['seconds']:6.1f} s")
    return 0 if is_linear else 1


def build(sizes: ScBertSizes, n_genes: int, device: str) -> ScBertNetwork:
    torch.manual_seed(0)
    return ScBertNetwork(sizes, n_genes, 11).to(device)


def tokens_of(n_genes: int, device: str) -> torch.Tensor:
    """Return one cell with a tenth of the genes expressed."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 6, (1, n_genes + 1)) * (rng.random((1, n_genes + 1)) < 0.1)
    return torch.as_tensor(tokens, device=device)


@torch.no_grad()
def forward_seconds(length: int, device: str) -> float:
    """Return the time of a forward pass through the six blocks, the best of three.

    On a CPU: processor time over the threads, which other programs disturb less than wall time.
    """
    clock = time.perf_counter if device == "cuda" else processor_seconds
    network = build(replace(PUBLISHED, checkpoint_activations=False), length - 1, device).eval()
    tokens = tokens_of(length - 1, device)
    times = []
    for _ in range(4):
        start = clock()
        network.encode(tokens)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[1:])


def processor_seconds() -> float:
    return time.process_time() / torch.get_num_threads()


def training_step(args: argparse.Namespace, precision: str, *, is_checkpointed: bool) -> dict:
    sizes = replace(PUBLISHED, checkpoint_activations=is_checkpointed)
    network = build(sizes, N_GENES, args.device).train()
    if args.layers == "authors":
        patterns = ScBert(ScBert.presets["panglao"], ["A"], weights={}).recipe().trainable
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-4)
    tokens = tokens_of(N_GENES, args.device)
    is_cuda = args.device == "cuda"
    before = torch.cuda.memory_allocated() if is_cuda else resident_bytes()
    start = time.perf_counter()
    with torch.autocast(args.device, torch.bfloat16, enabled=precision == "bf16"):
        logits = network(tokens)
    loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0], device=args.device))
    loss.backward()
    optimizer.step()
    if is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if is_cuda else peak_bytes()
    return {"mib": (peak - before) / 2**20, "seconds": seconds}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
