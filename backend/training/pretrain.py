"""Pre-train a foundation model on cells of a dataset by hiding expression; labels are never read.

What is hidden and how it is scored stands in each model's `pretraining.py`; what a checkpoint
folder holds in `backend.models.inhouse`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric

from backend import __version__
from backend.data.fingerprint import cell_fingerprints
from backend.errors import InputError, JobFailed, SplitError
from backend.files import published
from backend.models import catalogue
from backend.models.base import RecipeDefaults
from backend.models.baselines.expression import check_counts
from backend.models.inhouse import (
    Pretraining,
    is_inhouse,
    is_series,
    read_pretraining,
    write_checkpoint,
)
from backend.models.registry import model_class
from backend.splits import TRAIN
from backend.training.batches import training_batches
from backend.training.device import find_device
from backend.training.progress import Fold, ProgressEvent
from backend.training.recipe import make_optimizer, make_schedule
from backend.training.settings import find_preset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from backend.data import DatasetInfo
    from backend.models.base import TokenStore
    from backend.models.pretraining import Objective
    from backend.splits import Split

__all__ = ["PretrainSettings", "pretrain", "pretrain_series"]

CHUNK: Final = 4096
WARMUP_SHARE: Final = 0.1
_PACKAGES: Final = ("anndata", "lightning-fabric", "numpy", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """How long and how fast; beside these a model's own `options` may be given.

    epochs        : passes over the cells
    learning_rate : at its peak; it rises over the first tenth of the steps, then falls to 0
    batch_size    : cells a step
    max_steps     : stop after so many steps
    """

    epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int = 32
    max_steps: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PretrainSettings:
        """Check settings, before anything is computed.

        Raises
        ------
        InputError
            If one is unknown or out of range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            msg = f"Pre-training has no setting {', '.join(unknown[:5])}."
            raise InputError(msg, f"It has: {', '.join(known)}.")
        for name, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_whole = name == "learning_rate" or isinstance(value, int)
            if not (is_number and is_whole and value > 0):
                msg = f"The setting {name} is {value!r}."
                raise InputError(msg, "Give a number above 0.")
        return cls(**values)

    def recipe(self, n_cells: int) -> RecipeDefaults:
        """Return these settings as a recipe for so many cells."""
        n_steps = self.epochs * -(-n_cells // self.batch_size)
        return RecipeDefaults(
            optimizer="adam",
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            epochs=self.epochs,
            schedule="linear",
            warmup_steps=max(1, int(WARMUP_SHARE * n_steps)),
            clip_norm=1.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One checkpoint to be made: where it goes, and what its cells are."""

    folder: Path
    fold: Fold | None = None
    split: Split | None = None
    cells: str | None = None


class _Maker:
    """What all checkpoints of one call share; refuses wrong arguments when made."""

    def __init__(
        self,
        info: DatasetInfo,
        *,
        model: str,
        preset: str,
        name: str,
        home: Path,
        settings: Mapping[str, Any] | None,
        seed: int,
        device: str,
        progress: Callable[[ProgressEvent], None] | None,
    ) -> None:
        found = catalogue.require_files(model)
        self.preset = find_preset(found, preset)
        self.config = {config.name: config for config in found.presets.values()}[self.preset]
        self.settings = dict(settings or {})
        self.options, training = found.split_settings(self.settings)
        self.steps = PretrainSettings.of(training)
        self.info, self.model, self.name, self.home = info, model, name, home
        self.seed, self.device = seed, device
        self.tell = progress or (lambda event: None)
        self.folder = catalogue.inhouse_folder(model, name, home)

    def make(self, train: AnnData, job: _Job) -> Path:
        """Pre-train on all cells of `train` and write the folder, unless it is there."""
        check_counts(train)
        if not train.n_obs:
            msg = "No cell was chosen to pre-train on."
            raise InputError(msg, "Widen the condition on cells, or choose another fold.")
        about = self._identity(train, job)
        if is_inhouse(job.folder):
            self._check_same(read_pretraining(job.folder), about, job)
            self.tell(ProgressEvent("skipped", "finished before", 1.0, fold=job.fold))
            return job.folder
        started = time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = model_class(self.model).scratch_on(self.config, train, seed=self.seed)
            model = model.with_options(self.options)
            model.check_input(train)
            chunks = (train[start : start + CHUNK] for start in range(0, train.n_obs, CHUNK))
            tokens = model.tokenise(chunks, seed=self.seed)
            objective = model.pretraining_objective()
            device = find_device(self.device)
            history = _train(
                objective,
                tokens,
                self.steps,
                seed=self.seed,
                device=device,
                tell=lambda text, share: self.tell(
                    ProgressEvent("training", text, share, fold=job.fold)
                ),
            )
        last = history.iloc[-1]
        about |= {
            "objective": objective.text,
            "epochs": int(last["epoch"]),
            "steps": int(last["step"]),
            "final_loss": float(last["loss"]),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "wall_seconds": round(time.perf_counter() - started, 3),
            "versions": _versions(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

        def fill(folder: Path) -> None:
            write_checkpoint(
                folder,
                model,
                objective.cpu().tensors(),
                unused=objective.unused,
                fingerprints=cell_fingerprints(train),
                history=history,
                about=about,
            )

        with published(job.folder, keep=is_inhouse, what="the checkpoint") as folder:
            fill(folder)
        text = f"{train.n_obs:,} cells, loss {last['loss']:.3f}"
        self.tell(ProgressEvent("done", text, 1.0, fold=job.fold))
        return job.folder

    def _identity(self, train: AnnData, job: _Job) -> dict[str, Any]:
        split = job.split
        ids = "\n".join(sorted(map(str, train.obs_names)))
        return {
            "model": self.model,
            "preset": self.preset,
            "dataset_id": self.info.dataset_id,
            "dataset_name": self.info.name,
            "simulated": self.info.simulated,
            "donors": tuple(sorted(map(str, train.obs["donor"].unique()))),
            "n_cells": train.n_obs,
            "cells_sha256": sha256(ids.encode()).hexdigest(),
            "cells": job.cells,
            "protocol": split.protocol if split else None,
            "budget": split.budget if split else None,
            "split_sha256": split.sha256 if split else None,
            "fold": job.fold,
            "settings": asdict(self.steps) | self.options,
            "seed": self.seed,
        }

    def _check_same(self, found: Pretraining, about: dict[str, Any], job: _Job) -> None:
        identity = found.identity()
        if other := sorted(name for name, value in identity.items() if value != about[name]):
            what = "" if job.fold is None else f" for fold {job.fold}"
            msg = f'There is a checkpoint "{self.name}"{what} with other {", ".join(other)}.'
            raise InputError(msg, "Choose another name, or delete its folder.")


def pretrain(
    adata: AnnData,
    mask: np.ndarray,
    *,
    info: DatasetInfo,
    model: str,
    preset: str,
    name: str,
    home: Path,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    cells: str | None = None,
    device: str = "auto",
    progress: Callable[[ProgressEvent], None] | None = None,
) -> Path:
    """Pre-train one checkpoint on the cells of a mask, and register it as `name`.

    Parameters
    ----------
    adata
        In the layout that `backend.data.load` returns.
    mask
        (n_cells,) bool.
    info
        `backend.data.describe(adata)`.
    home
        Folder whose `checkpoints/` takes the checkpoint.
    settings
        See `PretrainSettings`.
    cells
        What the mask stands for, in words or as a condition.

    Returns
    -------
    The checkpoint's folder. The same one made before is kept.

    Raises
    ------
    InputError
        If model, preset, name or settings are wrong, or `name` is another checkpoint.
    JobFailed
        If the loss is not finite.
    """
    maker = _Maker(
        info,
        model=model,
        preset=preset,
        name=name,
        home=home,
        settings=settings,
        seed=seed,
        device=device,
        progress=progress,
    )
    if is_series(maker.folder):
        msg = f'"{name}" holds one checkpoint for each fold already.'
        raise InputError(msg, "Choose another name.")
    folder = maker.make(adata[mask].copy(), _Job(folder=maker.folder, cells=cells))
    catalogue.register_inhouse(model, name, maker.preset, maker.folder, home)
    return folder


def pretrain_series(
    adata: AnnData,
    info: DatasetInfo,
    split: Split,
    *,
    model: str,
    preset: str,
    name: str,
    home: Path,
    folds: Literal["all"] | Sequence[Fold] = "all",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Callable[[ProgressEvent], None] | None = None,
    mask: np.ndarray | None = None,
    cells: str | None = None,
    device: str = "auto",
) -> list[Path]:
    """Pre-train one checkpoint for each fold, on the training cells of that fold alone.

    All are registered under one name: a run of fold k that starts from it finds fold k's own.

    Parameters
    ----------
    folds
        `all`, or fold numbers and `final` (all cells of the split, for a final fit).
    mask, cells
        Narrow the cells further: (n_cells,) bool over `adata`, and what it stands for.

    Returns
    -------
    The folder of each fold, in order. A finished fold is kept; a half one starts again.

    Raises
    ------
    InputError, SplitError, JobFailed
        As `pretrain`, or if split and data do not belong together.
    """
    if split.dataset_id != info.dataset_id:
        msg = f"The split was made from dataset {split.dataset_id}; this one is {info.dataset_id}."
        raise SplitError(msg, "Use the dataset that the split was made from.")
    rows = adata.obs_names.get_indexer(pd.Index(split.cell_ids))
    if (rows < 0).any():
        msg = f"{int((rows < 0).sum()):,} of {len(rows):,} cells of the split are not in the data."
        raise SplitError(msg, "Use the dataset that the split was made from.")
    wanted: list[Fold] = list(range(split.folds)) if folds == "all" else list(folds)
    for fold in wanted:
        if fold != "final" and not 0 <= fold < split.folds:
            msg = f"There is no fold {fold}: the split has the folds 0 to {split.folds - 1}."
            raise InputError(msg, "Choose all, final, or some of them.")
    maker = _Maker(
        info,
        model=model,
        preset=preset,
        name=name,
        home=home,
        settings=settings,
        seed=seed,
        device=device,
        progress=progress,
    )
    if is_inhouse(maker.folder):
        msg = f'"{name}" is one checkpoint already, not one for each fold.'
        raise InputError(msg, "Choose another name.")
    made = []
    for fold in wanted:
        chosen = rows if fold == "final" else rows[split.cells(fold, TRAIN)]
        if mask is not None:
            chosen = chosen[mask[chosen]]
        train = adata[np.sort(chosen)].copy()
        if fold != "final":
            split.check_fit_cells(fold, train.obs_names.to_numpy())
        folder = maker.folder / f"{split.protocol}-{fold}-{split.sha256[:8]}"
        made.append(maker.make(train, _Job(folder=folder, fold=fold, split=split, cells=cells)))
        catalogue.register_inhouse(model, name, maker.preset, maker.folder, home)
    return made


def _train(
    objective: Objective,
    tokens: TokenStore,
    settings: PretrainSettings,
    *,
    seed: int,
    device: torch.device,
    tell: Callable[[str, float], None],
) -> pd.DataFrame:
    """Train the objective's network in place; one row of history an epoch."""
    is_gpu = device.type == "cuda"
    fabric = Fabric(
        accelerator="cuda" if is_gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if is_gpu else "32-true",
    )
    recipe = settings.recipe(len(tokens))
    steps_per_epoch = -(-len(tokens) // recipe.batch_size)
    objective.to(fabric.device)
    optimizer = make_optimizer(objective, recipe)
    schedule = make_schedule(optimizer, recipe, steps_per_epoch=steps_per_epoch)
    wrapped, optimizer = fabric.setup(objective, optimizer)
    generator = torch.Generator().manual_seed(seed)
    lengths = np.diff(tokens.indptr)
    history: list[dict[str, float]] = []
    step, last_step = 0, settings.max_steps or settings.epochs * steps_per_epoch
    wrapped.train()
    for epoch in range(settings.epochs):
        tell(f"epoch {epoch + 1} of {settings.epochs}", epoch / settings.epochs)
        started, seen, total = time.perf_counter(), 0, 0.0
        for rows in training_batches(lengths, recipe.batch_size, seed=seed * 100_003 + epoch):
            loss = wrapped(**fabric.to_device(objective.mask(tokens.take(rows), generator)))
            total += loss.item() * len(rows)
            seen += len(rows)
            if not np.isfinite(total):
                msg = f"The pre-training loss is not finite after {step:,} steps."
                raise JobFailed(msg, "Lower learning_rate, or look at the cells.")
            fabric.backward(loss)
            fabric.clip_gradients(wrapped, optimizer, max_norm=recipe.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step >= last_step:
                break
        history.append(
            {
                "step": step,
                "epoch": epoch + 1,
                "loss": total / seen,
                "lr": float(schedule.get_last_lr()[0]),
                "cells_per_second": seen / (time.perf_counter() - started),
            }
        )
        if step >= last_step:
            break
    return pd.DataFrame(history)


def _versions() -> dict[str, str]:
    own = {"faultline": __version__, "python": python_version()}
    return own | {package: version(package) for package in _PACKAGES}
