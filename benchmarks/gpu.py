"""The study's five full-size models in training on a GPU, by the product's own loop.

Usage: python benchmarks/gpu.py [--presets NAME ...] [--cells 4000] [--steps 60] [--batch 32]
                                [--device auto] [--folder DIR]

One command, meant for less than eight minutes on a card of the H100's class. Checkpoints have the
published layout and random numbers, cells are those of a stand-in of the Ennis 2023 atlas. For each
preset it prints cells a second in float32 and in bf16 with batches of similar length, in bf16 with
batches of random cells, the share of places without a token of both, the most memory, and the model's
operations (counted by torch, forward and back, padding included) as a share of what a large bf16
matrix product reaches on the same device. At last the first preset trains in less memory than its
batch needs: it must go on with halved batches, and say so. `--device cpu` runs all but that, slowly,
to try the script where there is no GPU. The exit code is 1 if bf16 with length buckets is not faster than float32 or
memory that runs out ends a fit.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.config import environment, project_root
from backend.data import read_chunks
from backend.models.registry import model_class
from backend.training.batches import training_batches
from backend.training.device import find_device
from backend.training.loop import Loop
from backend.training.settings import Settings
from backend.training.token_cache import lengths_of
from benchmarks.rehearsal import PRESETS, write_checkpoint

WARM_UP = 3
LITTLE_MEMORY = 0.6
"""Share of what a fit took at most that is left to it, to see memory run out."""
TABLE = "{:<22}{:>10}{:>10}{:>10}{:>9}{:>9}{:>11}{:>8}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--cells", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--folder", type=Path, help="where files are made; needs about 3 GB")
    args = parser.parse_args()
    device = find_device(args.device)
    if device.type == "cpu" and args.device != "cpu":
        print("No GPU here: nothing was measured (--device cpu tries the script).")
        return 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        is_good = measure(args, Path(name), device)
    print(f"{time.perf_counter() - started:.0f} s in all")
    return 0 if is_good else 1


def measure(args: argparse.Namespace, folder: Path, device: torch.device) -> bool:
    cells = folder / "cells.h5ad"
    words = ("simulate", str(cells), "--like", "ennis2023", "--cells", str(args.cells))
    command = [sys.executable, "-m", "backend", "data", *words]
    subprocess.run(command, cwd=project_root(), env=environment(), capture_output=True, check=True)
    peak = matrix_peak(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{name}: bf16 matrix product {peak / 1e12:.1f} TFLOP/s; {args.cells:,} cells, "
        f"{args.steps} steps of {args.batch}"
    )
    heads = ("fp32", "bf16", "unsorted", "padding", "unsorted", "memory", "of peak")
    print(TABLE.format("preset (cells/s)", *heads))
    is_good = True
    for number, preset in enumerate(args.presets):
        key = preset.partition(".")[0]
        write_checkpoint(folder / preset, preset, cells)
        model, _ = model_class(key).from_checkpoint(folder / preset)
        tokens = model.tokenise(read_chunks(cells), seed=0)
        train(model, tokens, args, device, steps=WARM_UP)
        plain = train(model, tokens, args, device, precision="fp32")
        sorted_ = train(model, tokens, args, device)
        unsorted = train(model, tokens, args, device, batches_per_bucket=1)
        speed = sorted_["cells_per_second"]
        share = operations_a_cell(model, tokens, args, device) * speed / peak
        row = (
            f"{plain['cells_per_second']:,.1f}",
            f"{speed:,.1f}",
            f"{unsorted['cells_per_second']:,.1f}",
            f"{sorted_['padding_share']:.1%}",
            f"{unsorted['padding_share']:.1%}",
            f"{sorted_['memory_mib'] / 1024:.1f} GiB",
            f"{share:.0%}",
        )
        print(TABLE.format(preset, *row), flush=True)
        is_good &= device.type == "cpu" or speed > plain["cells_per_second"]
        if number == 0 and device.type == "cuda":
            is_good &= halves(model, tokens, args, device, sorted_["memory_mib"])
    return is_good


def train(
    model, tokens, args, device, *, steps=None, precision="bf16", batches_per_bucket=32
) -> dict:
    """Train some steps by the authors' recipe as a fit does; return the row of the history."""
    codes = np.arange(len(tokens)) % 19
    network = model.network(19)
    recipe = dataclasses.replace(model.recipe(), epochs=1, batch_size=args.batch, accumulate=1)
    freeze(network, recipe)
    loop = Loop(model, network, recipe, 19, device.type, settings=Settings(precision=precision))
    loop.batches_per_bucket = batches_per_bucket
    loop.run(tokens, codes, None, codes[:0], seed=0, max_steps=steps or args.steps)
    return loop.history[0] | {"notes": loop.notes}


def freeze(network, recipe) -> None:
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, each) for each in recipe.trainable))


def operations_a_cell(model, tokens, args, device) -> float:
    """Return the mean of operations a cell over the batches, padding included.

    Operations of a cell grow with its places, linearly and by their square: the shortest and the
    longest cell are counted, and give both factors.
    """
    lengths = lengths_of(tokens)
    ends = [int(np.argmin(lengths)), int(np.argmax(lengths))]
    counted = [operations(model, tokens, row, device) for row in ends]
    (n1, f1), (n2, f2) = counted
    batches = list(training_batches(lengths, args.batch, seed=0))[: args.steps]
    cells = np.array([len(rows) for rows in batches])
    if n1 == n2:
        return f1
    square = (f2 / n2 - f1 / n1) / (n2 - n1)
    linear = f1 / n1 - square * n1
    # Special tokens stand in the counted places, and in none of the lengths.
    places = np.array([lengths[rows].max() for rows in batches]) + (n2 - lengths.max())
    each = linear * places + square * places**2
    return float((each * cells).sum() / cells.sum())


def operations(model, tokens, row, device) -> tuple[int, float]:
    """Return places and operations of one cell, forward and back."""
    network = model.network(19).to(device).train()
    freeze(network, model.recipe())
    batch = {name: x.to(device) for name, x in model.collate(tokens.take(np.array([row]))).items()}
    with FlopCounterMode(display=False) as counter:
        network(**batch).sum().backward()
    return max(x.shape[-1] for x in batch.values()), float(counter.get_total_flops())


def halves(model, tokens, args, device, most_mib: float) -> bool:
    """Train in less memory than the batch needs; say whether it went on in parts."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(LITTLE_MEMORY * most_mib * 2**20 / total, device)
    row = train(model, tokens, args, device)
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    text = "; ".join(row["notes"]) or "NOTHING RAN OUT"
    print(
        f"{'':<22}{LITTLE_MEMORY:.0%} of that memory: {row['cells_per_second']:,.1f} cells/s, {text}"
    )
    return bool(row["notes"])


def matrix_peak(device, n: int = 8192) -> float:
    """Return the operations a second of a large bf16 matrix product."""
    n = n if device.type == "cuda" else 512
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    wait(device)
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    wait(device)
    return 20 * 2 * n**3 / (time.perf_counter() - started)


def wait(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    raise SystemExit(main())
