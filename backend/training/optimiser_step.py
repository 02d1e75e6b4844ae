"""One optimiser step: forward and back in pieces that fit into memory, clip, step."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric

from backend.errors import JobFailed
from backend.training.balance import Adversary, Objective, class_weights
from backend.training.device import fabric_precision, find_device
from backend.training.recipe import make_optimizer, make_schedule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from backend.models.base import FoundationModel, RecipeDefaults
    from backend.training.settings import Settings
    from backend.training.token_cache import AnyTokens

__all__ = ["Piece", "Stepper", "TrainingCells", "check_finite"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingCells:
    """What is trained on. Row i is cell `rows[i]` of `tokens`, of type `codes[i]`.

    `groups` are the numbers of timepoint or donor for an adversary, -1 where there is none.
    """

    tokens: AnyTokens
    rows: np.ndarray
    lengths: np.ndarray
    codes: Tensor
    groups: Tensor | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Cells that go through the network at once; `share` of its batch's loss is theirs."""

    batch: dict[str, Tensor]
    target: Tensor
    groups: Tensor | None
    share: float | None

    def pinned(self) -> Piece:
        """Return the piece in memory from which a GPU copies without waiting."""
        batch = {name: tensor.pin_memory() for name, tensor in self.batch.items()}
        return replace(self, batch=batch, target=self.target.pin_memory())


class Stepper:
    """Network, loss, optimiser and schedule of one fit on one device.

    Attributes
    ----------
    micro
        Cells that go through the network at once. Halved when memory runs out; the gradients of
        the pieces add up to that of the batch, so that a step still sees as many cells.
    """

    def __init__(
        self,
        model: FoundationModel,
        network: nn.Module,
        recipe: RecipeDefaults,
        n_classes: int,
        device: str,
        settings: Settings,
    ) -> None:
        self.model, self.network, self.recipe, self.n_classes = model, network, recipe, n_classes
        self.settings = settings
        self.device = find_device(device)
        self.is_gpu = self.device.type == "cuda"
        precision = fabric_precision(settings.precision, self.device)
        self._is_scaled = precision == "16-mixed"
        self.fabric = Fabric(
            accelerator="cuda" if self.is_gpu else "cpu", devices=1, precision=precision
        )
        self.micro = recipe.batch_size
        self._adversary: Adversary | None = None

    def set_up(self, cells: TrainingCells, *, steps_per_epoch: int) -> None:
        """Put network, adversary, optimiser and schedule on the device."""
        self.cells = cells
        codes = cells.codes.numpy()
        weights = class_weights(codes, self.n_classes, self.recipe.class_weights)
        self.objective = Objective(weights, self.settings)
        self.network.to(self.fabric.device)
        optimizer = make_optimizer(self.network, self.recipe, can_fuse=not self._is_scaled)
        if cells.groups is not None:
            name = self.settings.adversarial
            weight = self.settings.adversarial_weight or 1.0
            groups = cells.groups.numpy()
            self._adversary = Adversary(self.network, self.n_classes, groups, weight, f"{name}s")
            self._adversary.to(self.fabric.device)
            optimizer.add_param_group({"params": list(self._adversary.parameters())})
        self._schedule = make_schedule(optimizer, self.recipe, steps_per_epoch=steps_per_epoch)
        network: Any = self.network
        if self.settings.compile:
            network = torch.compile(self.network, dynamic=True)
        self.wrapped, self._optimizer = self.fabric.setup(network, optimizer)
        self._plain_optimizer = optimizer

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    @property
    def notes(self) -> list[str]:
        """What a reader must know: that batches were cut."""
        if self.micro == self.recipe.batch_size:
            return []
        text = f"memory ran out: batches of {self.recipe.batch_size} cells went through in parts"
        return [f"{text} of {self.micro}"]

    def collate(self, group: list[np.ndarray]) -> list[Piece]:
        """Make the tensors of one step from the rows of its batches."""
        pieces, cells = [], self.cells
        for rows in group:
            target = cells.codes[rows]
            is_whole = len(rows) <= self.micro
            for start in range(0, len(rows), self.micro):
                part = slice(start, start + self.micro)
                piece = Piece(
                    self.model.collate(cells.tokens.take(cells.rows[rows[part]])),
                    target[part],
                    None if cells.groups is None else cells.groups[rows[part]],
                    None if is_whole else self.objective.share(target, part),
                )
                pieces.append(piece.pinned() if self.is_gpu else piece)
        return pieces

    def step(
        self, group: list[np.ndarray], pieces: list[Piece], *, number: int, share_done: float
    ) -> Tensor:
        """Take one step, in smaller pieces when memory runs out.

        Returns
        -------
        The loss summed over the cells: a float64 number on the device.

        Raises
        ------
        JobFailed
            If loss or gradient is not finite (on a GPU see `check_finite`), or if one cell does
            not fit into memory.
        """
        while True:
            largest = max(len(piece.target) for piece in pieces)
            if largest > self.micro:
                # Made in advance, before memory ran out.
                pieces = self.collate(group)
                continue
            try:
                return self._try(pieces, number, share_done)
            except torch.OutOfMemoryError:
                pieces.clear()
            # Outside of the handler: the exception holds on to the tensors of the failed step.
            self._halve(largest)
            pieces = self.collate(group)

    def _halve(self, largest: int) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if self.is_gpu:
            torch.cuda.empty_cache()
        if largest == 1:
            msg = f"One cell at a time does not fit into the memory of the {self.device.type}."
            raise JobFailed(msg, "Use a device with more memory, or a smaller preset.")
        self.micro = largest // 2
        _LOG.warning("out of memory: %d cells at a time from here on", self.micro)

    def _try(self, pieces: list[Piece], number: int, share_done: float) -> Tensor:
        recipe, fabric = self.recipe, self.fabric
        total = torch.zeros((), dtype=torch.float64, device=fabric.device)
        for i, piece in enumerate(pieces, start=1):
            logits = self.wrapped(**fabric.to_device(piece.batch)).float()
            target = piece.target.to(fabric.device, non_blocking=True)
            loss = self.objective(logits, target)
            total += loss.detach().double() * len(target)
            if self._adversary is not None and piece.groups is not None:
                loss = loss + self._adversary(piece.groups.to(fabric.device), share_done)
            if piece.share is not None:
                loss = loss * piece.share
            with fabric.no_backward_sync(self.wrapped, enabled=i < len(pieces)):
                fabric.backward(loss / recipe.accumulate)
        if recipe.clip_norm is not None:
            norm = fabric.clip_gradients(
                self.wrapped,
                self._optimizer,
                max_norm=recipe.clip_norm,
                error_if_nonfinite=False,
            )
            if norm is not None and not self._is_scaled:
                # Makes the sum NaN where the norm is not finite, without waiting for a GPU.
                total += 0.0 * norm.detach()
        if not self.is_gpu:
            check_finite(total, number)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def state_dict(self) -> dict[str, Any]:
        """Return what a snapshot keeps."""
        return {
            "micro": self.micro,
            "network": self.network.state_dict(),
            "optimizer": self._plain_optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "adversary": {} if self._adversary is None else self._adversary.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state from `state_dict`."""
        self.micro = state["micro"]
        self.network.load_state_dict(state["network"])
        self._plain_optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        if self._adversary is not None:
            self._adversary.load_state_dict(state["adversary"])


def check_finite(total: Tensor, n_steps: int) -> None:
    """Raise `JobFailed` for a summed loss that is not finite; waits for a GPU."""
    if not torch.isfinite(total):
        msg = f"The training loss or its gradient is not finite after {n_steps:,} steps."
        raise JobFailed(msg, "Lower learning_rate, or look at the training cells.")
