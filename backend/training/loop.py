"""The epochs of one fit, and prediction in batches: device, precision, optimiser, best epoch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric

from backend.errors import JobFailed
from backend.training.batches import in_order_of_length, training_batches
from backend.training.recipe import make_optimizer, make_schedule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backend.models.base import FoundationModel, RecipeDefaults, TokenStore

__all__ = ["SELECTIONS", "Loop", "find_device", "macro_f1", "predict_logits"]

SELECTIONS: Final = {"valid_loss": -1.0, "valid_accuracy": 1.0, "macro_f1": 1.0}
"""What may choose the best epoch, and whether less (-1) or more (1) is better."""


def find_device(wanted: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def predict_logits(
    model: FoundationModel, network: nn.Module, tokens: TokenStore, *, batch_size: int
) -> Tensor:
    """Return float32 logits on the CPU in the order of `tokens`; bf16 inside on a GPU."""
    device = next(network.parameters()).device
    parts, rows = [], []
    was_training = network.training
    network.eval()
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"),
    ):
        for cells in in_order_of_length(np.diff(tokens.indptr), batch_size):
            batch = model.collate(tokens.take(cells))
            moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            parts.append(network(**moved).float().cpu())
            rows.append(cells)
    network.train(was_training)
    logits = torch.cat(parts)
    ordered = torch.empty_like(logits)
    ordered[torch.from_numpy(np.concatenate(rows))] = logits
    return ordered


class Loop:
    """The epochs of one fit."""

    def __init__(
        self,
        model: FoundationModel,
        network: nn.Module,
        recipe: RecipeDefaults,
        n_classes: int,
        device: str,
    ) -> None:
        self.model, self.network, self.recipe, self.n_classes = model, network, recipe, n_classes
        found = find_device(device)
        is_gpu = found.type == "cuda"
        self.device_name = torch.cuda.get_device_name(found) if is_gpu else "cpu"
        self.fabric = Fabric(
            accelerator="cuda" if is_gpu else "cpu",
            devices=1,
            precision="bf16-mixed" if is_gpu else "32-true",
        )
        self.history: list[dict[str, float]] = []

    def run(
        self,
        tokens: TokenStore,
        codes: np.ndarray,
        valid: TokenStore | None,
        valid_codes: np.ndarray,
        *,
        seed: int,
        max_steps: int | None,
    ) -> None:
        """Train, and leave the best epoch's weights in the network."""
        recipe, fabric = self.recipe, self.fabric
        lengths = np.diff(tokens.indptr)
        n_batches = -(-len(codes) // recipe.batch_size)
        steps_per_epoch = -(-n_batches // recipe.accumulate)
        self.network.to(fabric.device)
        optimizer = make_optimizer(self.network, recipe)
        schedule = make_schedule(optimizer, recipe, steps_per_epoch=steps_per_epoch)
        wrapped, optimizer = fabric.setup(self.network, optimizer)
        weights = self._class_weights(codes).to(fabric.device)
        labels = torch.from_numpy(codes)
        best: tuple[float, dict[str, Tensor]] | None = None
        step, since_best = 0, 0
        for epoch in range(recipe.epochs):
            wrapped.train()
            started, seen, total = time.perf_counter(), 0, 0.0
            batches = training_batches(lengths, recipe.batch_size, seed=seed * 100_003 + epoch)
            for number, cells in enumerate(batches, start=1):
                batch = fabric.to_device(self.model.collate(tokens.take(cells)))
                logits = wrapped(**batch).float()
                target = labels[cells].to(fabric.device, non_blocking=True)
                loss = F.cross_entropy(logits, target, weight=weights)
                is_step = number % recipe.accumulate == 0 or number == n_batches
                with fabric.no_backward_sync(wrapped, enabled=not is_step):
                    fabric.backward(loss / recipe.accumulate)
                total += loss.item() * len(cells)
                seen += len(cells)
                if not np.isfinite(total):
                    msg = f"The training loss is not finite after {step:,} steps."
                    raise JobFailed(msg, "Lower learning_rate, or look at the training cells.")
                if is_step:
                    if recipe.clip_norm is not None:
                        fabric.clip_gradients(wrapped, optimizer, max_norm=recipe.clip_norm)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad(set_to_none=True)
                    step += 1
                if max_steps is not None and step >= max_steps:
                    break
            row: dict[str, float] = {
                "step": step,
                "epoch": epoch + 1,
                "train_loss": total / seen,
                "valid_loss": np.nan,
                "macro_f1": np.nan,
                "lr": float(schedule.get_last_lr()[0]),
                "cells_per_second": seen / (time.perf_counter() - started),
            }
            if valid is not None:
                scores = self._validate(valid, valid_codes, weights)
                row |= {name: scores[name] for name in ("valid_loss", "macro_f1")}
                score = scores[recipe.select_by] * SELECTIONS[recipe.select_by]
                if best is None or score > best[0]:
                    best, since_best = (score, _copy(self.network)), 0
                else:
                    since_best += 1
            self.history.append(row)
            patience = recipe.schedule_values.get("patience")
            is_over = max_steps is not None and step >= max_steps
            if is_over or (patience is not None and since_best >= patience):
                break
        if best is not None:
            self.network.load_state_dict(best[1])

    def _class_weights(self, codes: np.ndarray) -> Tensor:
        if self.recipe.class_weights != "balanced":
            return torch.ones(self.n_classes)
        counts = np.bincount(codes, minlength=self.n_classes)
        return torch.from_numpy(len(codes) / (self.n_classes * counts)).float()

    def _validate(self, valid: TokenStore, codes: np.ndarray, weights: Tensor) -> dict[str, float]:
        batch_size = max(self.recipe.batch_size, 32)
        logits = predict_logits(self.model, self.network, valid, batch_size=batch_size)
        predicted = logits.argmax(dim=1).numpy()
        loss = F.cross_entropy(logits, torch.from_numpy(codes), weight=weights.cpu())
        return {
            "valid_loss": float(loss),
            "valid_accuracy": float((predicted == codes).mean()),
            "macro_f1": macro_f1(codes, predicted),
        }


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def macro_f1(codes: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 of the types that occur among `codes`."""
    types = np.unique(codes)
    hits = np.array([((codes == t) & (predicted == t)).sum() for t in types])
    sums = np.array([(codes == t).sum() + (predicted == t).sum() for t in types])
    return float((2 * hits / sums).mean())
