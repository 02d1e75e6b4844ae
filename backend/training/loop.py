"""The epochs of one fit, and prediction in batches: optimiser, best epoch, snapshots, memory."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
from lightning_fabric import Fabric

from backend.errors import JobFailed
from backend.training.balance import Adversary, Objective, class_weights, oversampled
from backend.training.batches import (
    BATCHES_PER_BUCKET,
    in_groups,
    in_order_of_length,
    prefetched,
    training_batches,
)
from backend.training.device import (
    autocast,
    fabric_precision,
    find_device,
    peak_memory_mib,
    start_peak_memory,
)
from backend.training.recipe import make_optimizer, make_schedule
from backend.training.settings import SELECTIONS, Settings
from backend.training.snapshots import (
    Progress,
    Snapshots,
    generator_states,
    set_generator_states,
)
from backend.training.token_cache import lengths_of
from backend.training.work import FitProgress, Workplace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backend.models.base import FoundationModel, RecipeDefaults
    from backend.training.token_cache import Tokens

__all__ = ["SELECTIONS", "Loop", "find_device", "macro_f1", "predict_logits"]

STEPS_PER_REPORT: Final = 20
WORKERS_ON_GPU: Final = 2
_LOG = logging.getLogger(__name__)


def predict_logits(
    model: FoundationModel,
    network: nn.Module,
    tokens: Tokens,
    *,
    batch_size: int,
    precision: str = "auto",
) -> Tensor:
    """Return float32 logits on the CPU in the order of `tokens`; bf16 inside on a GPU.

    A batch that does not fit into a GPU's memory is halved.
    """
    device = next(network.parameters()).device
    parts, rows = [], []
    was_training = network.training
    network.eval()
    waiting = in_order_of_length(lengths_of(tokens), batch_size)
    with torch.inference_mode(), autocast(precision, device):
        for cells in waiting:
            halves = [cells]
            while halves:
                part = halves.pop()
                batch = model.collate(tokens.take(part))
                try:
                    moved = {
                        name: value.to(device, non_blocking=True) for name, value in batch.items()
                    }
                    logits = network(**moved).float().cpu()
                except torch.OutOfMemoryError:
                    if len(part) == 1:
                        raise
                    halves += np.array_split(part, 2)
                    continue
                parts.append(logits)
                rows.append(part)
    network.train(was_training)
    logits = torch.cat(parts)
    ordered = torch.empty_like(logits)
    ordered[torch.from_numpy(np.concatenate(rows))] = logits
    return ordered


@dataclass(frozen=True, slots=True)
class _Piece:
    """Cells that go through the network at once; `share` of its batch's loss is theirs."""

    batch: dict[str, Tensor]
    target: Tensor
    groups: Tensor | None
    share: float | None


class Loop:
    """The epochs of one fit.

    Attributes
    ----------
    history
        One row an epoch, see `Classifier`.
    notes
        What a reader must know beside the settings, for example a halved micro-batch.
    """

    batches_per_bucket: ClassVar[int] = BATCHES_PER_BUCKET

    def __init__(
        self,
        model: FoundationModel,
        network: nn.Module,
        recipe: RecipeDefaults,
        n_classes: int,
        device: str,
        *,
        settings: Settings | None = None,
        place: Workplace | None = None,
    ) -> None:
        self.model, self.network, self.recipe, self.n_classes = model, network, recipe, n_classes
        self.settings, self.place = settings or Settings(), place or Workplace()
        self.device = find_device(device)
        self.is_gpu = self.device.type == "cuda"
        self.device_name = torch.cuda.get_device_name(self.device) if self.is_gpu else "cpu"
        precision = fabric_precision(self.settings.precision, self.device)
        self.is_scaled = precision == "16-mixed"
        self.fabric = Fabric(
            accelerator="cuda" if self.is_gpu else "cpu", devices=1, precision=precision
        )
        workers = self.place.workers
        self.workers = WORKERS_ON_GPU * self.is_gpu if workers is None else workers
        self.notes: list[str] = []
        self._at = Progress(micro=recipe.batch_size)
        self._best: dict[str, Tensor] | None = None
        self._adversary: Adversary | None = None

    @property
    def history(self) -> list[dict[str, float]]:
        """One row an epoch."""
        return self._at.history

    def run(
        self,
        tokens: Tokens,
        codes: np.ndarray,
        valid: Tokens | None,
        valid_codes: np.ndarray,
        *,
        seed: int,
        max_steps: int | None,
        groups: np.ndarray | None = None,
    ) -> None:
        """Train, and leave the best epoch's weights in the network.

        Parameters
        ----------
        tokens, codes
            Of the training cells: tokens, and (n_cells,) int64 number of each cell's type.
        valid, valid_codes
            Of the cells that choose the best epoch; without them the last one is kept.
        groups
            (n_cells,) int64 group of each training cell for an adversary, -1 without one.

        Raises
        ------
        JobFailed
            If the loss is not finite, or one cell does not fit into memory.
        """
        self._tokens, self._seed, self._max_steps = tokens, seed, max_steps
        self._rows = oversampled(codes, seed) if self.settings.oversample else np.arange(len(codes))
        self._lengths = lengths_of(tokens)[self._rows]
        self._codes = torch.from_numpy(codes[self._rows])
        self._groups = None if groups is None else torch.from_numpy(groups[self._rows])
        weights = class_weights(self._codes.numpy(), self.n_classes, self.recipe.class_weights)
        self._objective = Objective(weights, self.settings)
        self._set_up(groups)
        self._read_snapshot()
        while not self._is_over():
            row = self._train_epoch()
            if valid is not None:
                row |= self._validate(valid, valid_codes)
            self._at.history.append(row)
            self._at.next_epoch()
            self._write_snapshot()
        if self._best is not None:
            self.network.load_state_dict(self._best)

    def _set_up(self, groups: np.ndarray | None) -> None:
        """Put network, adversary, optimiser and schedule on the device."""
        recipe, fabric = self.recipe, self.fabric
        n_batches = -(-len(self._codes) // recipe.batch_size)
        self._steps_per_epoch = -(-n_batches // recipe.accumulate)
        self.network.to(fabric.device)
        optimizer = make_optimizer(self.network, recipe, can_fuse=not self.is_scaled)
        if groups is not None:
            weight = self.settings.adversarial_weight or 1.0
            name = f"{self.settings.adversarial}s"
            self._adversary = Adversary(self.network, self.n_classes, groups, weight, name)
            self._adversary.to(fabric.device)
            optimizer.add_param_group({"params": list(self._adversary.parameters())})
        self._schedule = make_schedule(optimizer, recipe, steps_per_epoch=self._steps_per_epoch)
        network: Any = self.network
        if self.settings.compile:
            network = torch.compile(self.network, dynamic=True)
        self._wrapped, self._optimizer = fabric.setup(network, optimizer)
        self._plain_optimizer = optimizer
        folder = self.place.snapshots
        self._snapshots = None if folder is None else Snapshots(folder, self._identity())
        self._last_snapshot = time.monotonic()

    def _identity(self) -> str:
        """Return what a snapshot must have been made of to be gone on with."""
        words = (self.place.run_id, self.recipe, self.settings, self._seed, self._max_steps)
        digest = sha256(repr(words).encode("utf-8"))
        digest.update(self._codes.numpy().tobytes() + self._lengths.tobytes())
        return digest.hexdigest()

    def _is_over(self) -> bool:
        patience = self.recipe.schedule_values.get("patience")
        return (
            self._at.epoch >= self.recipe.epochs
            or (self._max_steps is not None and self._at.step >= self._max_steps)
            or (patience is not None and self._at.since_best >= patience)
        )

    def _train_epoch(self) -> dict[str, float]:
        """Train the rest of the present epoch, and return its row of the history."""
        at, recipe = self._at, self.recipe
        self._wrapped.train()
        start_peak_memory(self.device)
        self._total = torch.tensor(at.loss, dtype=torch.float64, device=self.fabric.device)
        self._started = time.perf_counter() - at.seconds
        batches = training_batches(
            self._lengths,
            recipe.batch_size,
            seed=self._seed * 100_003 + at.epoch,
            batches_per_bucket=self.batches_per_bucket,
        )
        left = itertools.islice(in_groups(batches, recipe.accumulate), at.group, None)
        for group, pieces in prefetched(left, self._collate, self.workers):
            self._total += self._step(group, pieces)
            at.group, at.step = at.group + 1, at.step + 1
            for cells in group:
                lengths = self._lengths[cells]
                at.cells += len(cells)
                at.tokens += int(lengths.sum())
                at.places += len(cells) * int(lengths.max())
            if at.step % STEPS_PER_REPORT == 0:
                self._check_finite(self._total)
                self._report()
            if self._max_steps is not None and at.step >= self._max_steps:
                break
            minutes = (time.monotonic() - self._last_snapshot) / 60
            if minutes >= self.place.checkpoint_minutes:
                self._write_snapshot()
        self._check_finite(self._total)
        self._report()
        return {
            "step": at.step,
            "epoch": at.epoch + 1,
            "train_loss": self._total.item() / at.cells,
            "valid_loss": np.nan,
            "macro_f1": np.nan,
            "lr": float(self._schedule.get_last_lr()[0]),
            "cells_per_second": at.cells / at.seconds,
            "memory_mib": at.memory_mib,
            "padding_share": 1 - at.tokens / max(1, at.places),
        }

    def _collate(self, group: list[np.ndarray]) -> list[_Piece]:
        """Make the tensors of one optimiser step."""
        pieces = []
        for cells in group:
            target = self._codes[cells]
            for start in range(0, len(cells), self._at.micro):
                part = slice(start, start + self._at.micro)
                is_whole = len(cells) <= self._at.micro
                piece = _Piece(
                    self.model.collate(self._tokens.take(self._rows[cells[part]])),
                    target[part],
                    None if self._groups is None else self._groups[cells[part]],
                    None if is_whole else self._objective.share(target, part),
                )
                pieces.append(_pinned(piece) if self.is_gpu else piece)
        return pieces

    def _step(self, group: list[np.ndarray], pieces: list[_Piece]) -> Tensor:
        """Take one optimiser step, in smaller pieces when memory runs out."""
        while True:
            largest = max(len(piece.target) for piece in pieces)
            if largest > self._at.micro:
                # Made in advance, before memory ran out.
                pieces = self._collate(group)
                continue
            try:
                return self._try_step(pieces)
            except torch.OutOfMemoryError:
                pieces.clear()
            # Outside of the handler: the exception holds on to the tensors of the failed step.
            self._halve(largest)
            pieces = self._collate(group)

    def _halve(self, largest: int) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if self.is_gpu:
            torch.cuda.empty_cache()
        if largest == 1:
            msg = f"One cell at a time does not fit into the memory of {self.device_name}."
            raise JobFailed(msg, "Use a device with more memory, or a smaller preset.")
        self._at.micro = min(self._at.micro, largest) // 2
        _LOG.warning("out of memory: %d cells at a time from here on", self._at.micro)
        text = f"memory ran out: batches of {self.recipe.batch_size} cells went through in parts"
        self.notes = [f"{text} of {self._at.micro}"]

    def _try_step(self, pieces: list[_Piece]) -> Tensor:
        """Go forward and back over the pieces, step, and return the summed loss of their cells."""
        recipe, fabric = self.recipe, self.fabric
        total = torch.zeros((), dtype=torch.float64, device=fabric.device)
        for number, piece in enumerate(pieces, start=1):
            logits = self._wrapped(**fabric.to_device(piece.batch)).float()
            target = piece.target.to(fabric.device, non_blocking=True)
            loss = self._objective(logits, target)
            total += loss.detach().double() * len(target)
            if self._adversary is not None and piece.groups is not None:
                loss = loss + self._adversary(piece.groups.to(fabric.device), self._share())
            if piece.share is not None:
                loss = loss * piece.share
            with fabric.no_backward_sync(self._wrapped, enabled=number < len(pieces)):
                fabric.backward(loss / recipe.accumulate)
        if recipe.clip_norm is not None:
            norm = fabric.clip_gradients(
                self._wrapped,
                self._optimizer,
                max_norm=recipe.clip_norm,
                error_if_nonfinite=False,
            )
            if norm is not None and not self.is_scaled:
                # Makes the sum NaN where the norm is not finite, without waiting for a GPU.
                total += 0.0 * norm.detach()
        if not self.is_gpu:
            self._check_finite(total)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def _check_finite(self, total: Tensor) -> None:
        if not torch.isfinite(total):
            msg = f"The training loss or its gradient is not finite after {self._at.step:,} steps."
            raise JobFailed(msg, "Lower learning_rate, or look at the training cells.")

    def _share(self) -> float:
        """Return which share of the steps of the fit is done."""
        n_steps = self._steps_per_epoch * self.recipe.epochs
        return self._at.step / min(n_steps, self._max_steps or n_steps)

    def _report(self) -> None:
        at = self._at
        at.seconds = time.perf_counter() - self._started
        at.memory_mib = max(at.memory_mib, peak_memory_mib(self.device))
        if self.place.progress is not None:
            self.place.progress(
                FitProgress(
                    epoch=at.epoch + 1,
                    n_epochs=self.recipe.epochs,
                    step=at.step,
                    share=self._share(),
                    cells_per_second=at.cells / at.seconds,
                )
            )

    def _validate(self, valid: Tokens, codes: np.ndarray) -> dict[str, float]:
        """Score the validation cells, and keep the weights when they are the best so far."""
        logits = predict_logits(
            self.model,
            self.network,
            valid,
            batch_size=max(self.recipe.batch_size, 32),
            precision=self.settings.precision,
        )
        predicted = logits.argmax(dim=1).numpy()
        scores = {
            "valid_loss": float(self._objective(logits, torch.from_numpy(codes))),
            "valid_accuracy": float((predicted == codes).mean()),
            "macro_f1": macro_f1(codes, predicted),
        }
        score = scores[self.recipe.select_by] * SELECTIONS[self.recipe.select_by]
        if self._at.best_score is None or score > self._at.best_score:
            self._at.best_score, self._best = score, _copy(self.network)
            self._at.since_best = 0
        else:
            self._at.since_best += 1
        return {name: scores[name] for name in ("valid_loss", "macro_f1")}

    def _write_snapshot(self) -> None:
        if self._snapshots is None:
            return
        at = self._at
        if at.group:
            self._check_finite(self._total)
            at.loss, at.seconds = self._total.item(), time.perf_counter() - self._started
        adversary = {} if self._adversary is None else self._adversary.state_dict()
        self._snapshots.write(
            {
                "progress": asdict(at),
                "notes": self.notes,
                "network": self.network.state_dict(),
                "best": self._best,
                "optimizer": self._plain_optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "scaler": self.fabric.strategy.precision.state_dict(),
                "adversary": adversary,
                "random": generator_states(),
            }
        )
        self._last_snapshot = time.monotonic()

    def _read_snapshot(self) -> None:
        """Go on where a killed process stopped, if it left a snapshot of this fit."""
        found = None if self._snapshots is None else self._snapshots.read()
        if found is None:
            return
        self._at, self._best = Progress(**found["progress"]), found["best"]
        self.notes = found["notes"]
        self.network.load_state_dict(found["network"])
        self._plain_optimizer.load_state_dict(found["optimizer"])
        self._schedule.load_state_dict(found["schedule"])
        self.fabric.strategy.precision.load_state_dict(found["scaler"])
        if self._adversary is not None:
            self._adversary.load_state_dict(found["adversary"])
        set_generator_states(found["random"])
        _LOG.info("resumed after %d steps", self._at.step)


def _pinned(piece: _Piece) -> _Piece:
    """Return the piece in memory from which a GPU copies without waiting."""
    batch = {name: tensor.pin_memory() for name, tensor in piece.batch.items()}
    return replace(piece, batch=batch, target=piece.target.pin_memory())


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def macro_f1(codes: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 of the types that occur among `codes`."""
    types = np.unique(codes)
    hits = np.array([((codes == t) & (predicted == t)).sum() for t in types])
    sums = np.array([(codes == t).sum() + (predicted == t).sum() for t in types])
    return float((2 * hits / sums).mean())
