"""The epochs of one fit: steps, the best epoch, history, snapshots."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch

from backend.training.balance import oversampled
from backend.training.batches import (
    BATCHES_PER_BUCKET,
    in_groups,
    prefetched,
    training_batches,
)
from backend.training.device import peak_memory_mib, start_peak_memory
from backend.training.fit_workspace import FitWorkspace
from backend.training.optimiser_step import Stepper, TrainingCells, check_finite
from backend.training.progress import ProgressEvent
from backend.training.scoring import macro_f1, predict_logits
from backend.training.settings import SELECTIONS, Settings
from backend.training.snapshots import (
    Progress,
    Snapshots,
    generator_states,
    set_generator_states,
)
from backend.training.token_cache import lengths_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backend.models.base import FoundationModel, RecipeDefaults
    from backend.training.token_cache import AnyTokens

__all__ = ["Loop"]

STEPS_PER_REPORT: Final = 20
WORKERS_ON_GPU: Final = 2
_LOG = logging.getLogger(__name__)


class Loop:
    """The epochs of one fit.

    Parameters
    ----------
    stop_after
        End after so many epochs; learning rates stay those of a fit of all `recipe.epochs`.
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
        workspace: FitWorkspace | None = None,
        stop_after: int | None = None,
    ) -> None:
        self.model, self.network, self.recipe = model, network, recipe
        self.settings = settings or Settings()
        self.workspace = workspace or FitWorkspace()
        self._stepper = Stepper(model, network, recipe, n_classes, device, self.settings)
        self.device, is_gpu = self._stepper.device, self._stepper.is_gpu
        self.device_name = torch.cuda.get_device_name(self.device) if is_gpu else "cpu"
        workers = self.workspace.workers
        self._workers = (WORKERS_ON_GPU if is_gpu else 0) if workers is None else workers
        self._n_epochs = min(recipe.epochs, stop_after or recipe.epochs)
        self._at = Progress()
        self._best: dict[str, Tensor] | None = None

    @property
    def history(self) -> list[dict[str, float]]:
        """One row an epoch, see `Classifier`."""
        return self._at.history

    @property
    def notes(self) -> list[str]:
        """What a reader must know beside the settings."""
        return self._stepper.notes

    def run(
        self,
        tokens: AnyTokens,
        codes: np.ndarray,
        valid: AnyTokens | None,
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
            If the loss is not finite, one cell does not fit into memory, or the disk is full.
        """
        self._seed, self._max_steps = seed, max_steps
        rows = oversampled(codes, seed) if self.settings.oversample else np.arange(len(codes))
        self._cells = TrainingCells(
            tokens,
            rows,
            lengths_of(tokens)[rows],
            torch.from_numpy(codes[rows]),
            None if groups is None else torch.from_numpy(groups[rows]),
        )
        n_batches = -(-len(rows) // self.recipe.batch_size)
        self._steps_per_epoch = -(-n_batches // self.recipe.accumulate)
        self._stepper.set_up(self._cells, steps_per_epoch=self._steps_per_epoch)
        self._read_snapshot()
        while not self._is_over():
            row = self._train_epoch()
            if valid is not None:
                row |= self._validate(valid, valid_codes)
            self._at.history.append(row)
            self._tell(row)
            self._at.next_epoch()
            self._write_snapshot()
        if self._best is not None:
            self.network.load_state_dict(self._best)

    def _is_over(self) -> bool:
        patience = self.recipe.schedule_values.get("patience")
        return (
            self._at.epoch >= self._n_epochs
            or (self._max_steps is not None and self._at.step >= self._max_steps)
            or (patience is not None and self._at.since_best >= patience)
        )

    def _train_epoch(self) -> dict[str, float]:
        """Train the rest of the present epoch, and return its row of the history."""
        at, recipe, stepper = self._at, self.recipe, self._stepper
        stepper.wrapped.train()
        start_peak_memory(self.device)
        self._total = torch.tensor(at.loss, dtype=torch.float64, device=stepper.fabric.device)
        self._started = time.perf_counter() - at.seconds
        batches = training_batches(
            self._cells.lengths,
            recipe.batch_size,
            seed=self._seed * 100_003 + at.epoch,
            batches_per_bucket=self.batches_per_bucket,
        )
        left = itertools.islice(in_groups(batches, recipe.accumulate), at.group, None)
        for group, pieces in prefetched(left, stepper.collate, self._workers):
            share = self._share_done()
            self._total += stepper.step(group, pieces, number=at.step, share_done=share)
            at.add(self._cells.lengths, group)
            if at.step % STEPS_PER_REPORT == 0:
                check_finite(self._total, at.step)
                self._report()
            if self._max_steps is not None and at.step >= self._max_steps:
                break
            minutes = (time.monotonic() - self._last_snapshot) / 60
            if minutes >= self.workspace.checkpoint_minutes:
                self._write_snapshot()
        check_finite(self._total, at.step)
        self._report()
        return {
            "step": at.step,
            "epoch": at.epoch + 1,
            "train_loss": self._total.item() / at.cells,
            "valid_loss": np.nan,
            "valid_accuracy": np.nan,
            "macro_f1": np.nan,
            "lr": stepper.learning_rate,
            "cells_per_second": at.cells / at.seconds,
            "memory_mib": at.memory_mib,
            "padding_share": 1 - at.tokens / max(1, at.places),
        }

    def _share_done(self) -> float:
        """Return which share of the steps of the fit is done."""
        n_steps = self._steps_per_epoch * self._n_epochs
        return self._at.step / min(n_steps, self._max_steps or n_steps)

    def _report(self) -> None:
        at = self._at
        at.seconds = time.perf_counter() - self._started
        at.memory_mib = max(at.memory_mib, peak_memory_mib(self.device))
        self._tell()

    def _tell(self, row: dict[str, float] | None = None) -> None:
        """Tell how far the fit is, and at the end of an epoch what came of it."""
        at = self._at
        if self.workspace.progress is not None:
            self.workspace.progress(
                ProgressEvent(
                    "fitting",
                    f"epoch {at.epoch + 1} of {self._n_epochs}, {at.cells / at.seconds:,.0f} cells/s",
                    self._share_done(),
                    epoch=at.epoch + 1,
                    step=at.step,
                    row=row,
                )
            )

    def _validate(self, valid: AnyTokens, codes: np.ndarray) -> dict[str, float]:
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
            "valid_loss": float(self._stepper.objective(logits, torch.from_numpy(codes))),
            "valid_accuracy": float((predicted == codes).mean()),
            "macro_f1": macro_f1(codes, predicted),
        }
        score = scores[self.recipe.select_by] * SELECTIONS[self.recipe.select_by]
        if self._at.best_score is None or score > self._at.best_score:
            self._at.best_score, self._best = score, _copy(self.network)
            self._at.since_best = 0
        else:
            self._at.since_best += 1
        return scores

    def _identity(self) -> str:
        """Return what a snapshot must have been made of to be gone on with."""
        limits = (self._n_epochs, self._max_steps)
        words = (self.workspace.run_id, self.recipe, self.settings, self._seed, limits)
        digest = sha256(repr(words).encode("utf-8"))
        digest.update(self._cells.codes.numpy().tobytes() + self._cells.lengths.tobytes())
        return digest.hexdigest()

    def _write_snapshot(self) -> None:
        self._last_snapshot = time.monotonic()
        if self._snapshots is None:
            return
        at = self._at
        if at.group:
            check_finite(self._total, at.step)
            at.loss, at.seconds = self._total.item(), time.perf_counter() - self._started
        self._snapshots.write(
            {
                "progress": asdict(at),
                "stepper": self._stepper.state_dict(),
                "best": self._best,
                "random": generator_states(),
            }
        )

    def _read_snapshot(self) -> None:
        """Go on where a killed process stopped, if it left a snapshot of this fit."""
        folder = self.workspace.snapshots
        self._snapshots = None if folder is None else Snapshots(folder, self._identity())
        self._last_snapshot = time.monotonic()
        found = None if self._snapshots is None else self._snapshots.read()
        if found is None:
            return
        self._at, self._best = Progress(**found["progress"]), found["best"]
        self._stepper.load_state_dict(found["stepper"])
        set_generator_states(found["random"])
        _LOG.info("resumed after %d steps", self._at.step)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
