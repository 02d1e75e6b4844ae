"""Optimiser and schedule of a recipe."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import torch

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from backend.models.base import RecipeDefaults

__all__ = ["SCHEDULES", "make_optimizer", "make_schedule", "parameter_groups"]

SCHEDULES: Final = ("constant", "step", "linear")


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


def make_optimizer(network: nn.Module, recipe: RecipeDefaults) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the trainable parameters, fused on a GPU.

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
    is_fused = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return kinds[recipe.optimizer](groups, lr=recipe.learning_rate, fused=is_fused, **options)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: RecipeDefaults, *, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the recipe's learning rates, to be stepped after each optimiser step.

    "step" multiplies by `gamma` every `every_epochs` epochs; "linear" rises over the warm-up
    steps and falls to 0 at the last step; "constant" stays after the warm-up.

    Raises
    ------
    InputError
        If the recipe names a schedule that is not known.
    """
    warmup, n_steps = recipe.warmup_steps, max(1, steps_per_epoch * recipe.epochs)

    def after_warmup(step: int) -> float:
        if recipe.schedule == "step":
            period = steps_per_epoch * recipe.schedule_values.get("every_epochs", 1)
            return float(recipe.schedule_values["gamma"] ** (step // period))
        if recipe.schedule == "linear":
            return max(0.0, (n_steps - step) / max(1, n_steps - warmup))
        return 1.0

    if recipe.schedule not in SCHEDULES:
        msg = f'There is no learning-rate schedule "{recipe.schedule}".'
        raise InputError(msg, f"Choose one of: {', '.join(SCHEDULES)}.")
    factor: Callable[[int], float] = lambda step: (  # noqa: E731 - one expression over two rules
        step / warmup if step < warmup else after_warmup(step)
    )
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
