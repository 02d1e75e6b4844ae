"""Optimiser and schedule of a recipe."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import torch

from backend.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from backend.models.base import RecipeDefaults

__all__ = ["SCHEDULES", "cosine_restarts", "make_optimizer", "make_schedule", "parameter_groups"]

SCHEDULES: Final = ("constant", "step", "linear", "cosine_restarts")


def parameter_groups(network: nn.Module, recipe: RecipeDefaults) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups, with and without weight decay.

    `recipe.optimizer_values["no_decay"]` holds the patterns of those without.
    """
    spared = recipe.optimizer_values.get("no_decay", ())
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_spared = any(fnmatchcase(name, pattern) for pattern in spared)
            (plain if is_spared else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(
    network: nn.Module, recipe: RecipeDefaults, *, can_fuse: bool = True
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the trainable parameters, in one pass where it can be.

    Parameters
    ----------
    can_fuse
        False where gradients are scaled (fp16): a fused optimiser cannot be clipped then. Fused,
        the large embedding of genes is read and written once a step.

    Raises
    ------
    InputError
        If the recipe names an optimiser that is not known.
    """
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if recipe.optimizer not in kinds:
        msg = f'There is no optimiser "{recipe.optimizer}".'
        raise InputError(msg, f"Choose one of: {', '.join(sorted(kinds))}.")
    groups = parameter_groups(network, recipe)
    options = {k: v for k, v in recipe.optimizer_values.items() if k != "no_decay"}
    devices = {p.device.type for group in groups for p in group["params"]}
    is_fused = can_fuse and devices <= {"cpu", "cuda"}
    return kinds[recipe.optimizer](groups, lr=recipe.learning_rate, fused=is_fused, **options)


def cosine_restarts(
    epoch: int,
    *,
    peak: float,
    lowest: float,
    first_cycle: int,
    cycle_factor: float,
    warmup_epochs: int,
    peak_factor: float,
) -> float:
    """Return the learning rate of an epoch (from 0) of a cosine with linear warm-up and restarts.

    The part of a cycle after its warm-up grows by `cycle_factor` from cycle to cycle, the peak
    by `peak_factor`.
    """
    length = first_cycle
    while epoch >= length:
        epoch -= length
        peak *= peak_factor
        length = int((length - warmup_epochs) * cycle_factor) + warmup_epochs
    if epoch < warmup_epochs:
        return lowest + (peak - lowest) * epoch / warmup_epochs
    share = (epoch - warmup_epochs) / (length - warmup_epochs)
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * share)) / 2


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: RecipeDefaults, *, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the recipe's learning rates, to be stepped after each optimiser step.

    "step" multiplies by `gamma` every `every_epochs` epochs; "linear" rises over the warm-up
    steps and falls to 0 at the last step; "cosine_restarts" changes once an epoch
    (`cosine_restarts`); "constant" stays after the warm-up.

    Raises
    ------
    InputError
        If the recipe names a schedule that is not known.
    """
    if recipe.schedule not in SCHEDULES:
        msg = f'There is no learning-rate schedule "{recipe.schedule}".'
        raise InputError(msg, f"Choose one of: {', '.join(SCHEDULES)}.")
    values, warmup = recipe.schedule_values, recipe.warmup_steps
    n_steps = max(1, steps_per_epoch * recipe.epochs)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        if recipe.schedule == "step":
            return float(values["gamma"] ** (step // (steps_per_epoch * values["every_epochs"])))
        if recipe.schedule == "linear":
            return max(0.0, (n_steps - step) / max(1, n_steps - warmup))
        if recipe.schedule == "cosine_restarts":
            rate = cosine_restarts(
                step // steps_per_epoch,
                peak=recipe.learning_rate,
                lowest=values["min_lr"],
                first_cycle=values["first_cycle"],
                cycle_factor=values["cycle_mult"],
                warmup_epochs=values["warmup"],
                peak_factor=values["gamma"],
            )
            return rate / recipe.learning_rate
        return 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
