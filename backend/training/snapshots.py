"""Snapshots of a fit: enough to go on after the process was killed, to the same end."""

from __future__ import annotations

import pickle
import random
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from backend.files import full_disk_explained, replaced

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Progress", "Snapshots", "generator_states", "set_generator_states"]

FORMAT: Final = 1
_FILE: Final = "state.pt"
_DAMAGED: Final = (RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError)


@dataclass(slots=True)
class Progress:
    """How far a fit came: the place in its batches, sums over the epoch, and the best epoch.

    `group` counts the optimiser steps of this epoch, `step` those of the fit. `loss`, `cells`,
    `tokens`, `places` and `seconds` are sums over this epoch so far, `memory_mib` its peak.
    """

    epoch: int = 0
    group: int = 0
    step: int = 0
    loss: float = 0.0
    cells: int = 0
    tokens: int = 0
    places: int = 0
    seconds: float = 0.0
    memory_mib: float = 0.0
    since_best: int = 0
    best_score: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    def add(self, lengths: np.ndarray, batches: Sequence[np.ndarray]) -> None:
        """Count one optimiser step over batches of cells of these lengths."""
        self.group, self.step = self.group + 1, self.step + 1
        for cells in batches:
            self.cells += len(cells)
            self.tokens += int(lengths[cells].sum())
            self.places += len(cells) * int(lengths[cells].max())

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch, self.group = self.epoch + 1, 0
        self.loss, self.seconds, self.memory_mib = 0.0, 0.0, 0.0
        self.cells = self.tokens = self.places = 0


def generator_states() -> dict[str, Any]:
    """Return the states of all random generators as tensors, numbers and lists."""
    name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(place),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(words), next_gauss],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Put all random generators into states from `generator_states`."""
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, place, has_gauss, gauss = states["numpy"]
    keys = keys.numpy().astype(np.uint32)
    np.random.set_state((name, keys, place, has_gauss, gauss))  # noqa: NPY002
    version, words, next_gauss = states["python"]
    random.setstate((version, tuple(words), next_gauss))


class Snapshots:
    """The snapshot of one fit in a folder: written at once or not at all, read without code.

    Parameters
    ----------
    folder
        Holds one file; made when it is needed.
    of
        Names the fit: a snapshot of another one is not read.
    """

    def __init__(self, folder: Path, of: str) -> None:
        self._path = folder / _FILE
        self._of = of

    def write(self, values: dict[str, Any]) -> None:
        """Replace the snapshot.

        Raises
        ------
        JobFailed
            If the disk is full; the snapshot before stays.
        """
        what = "the snapshot of a fit"
        with full_disk_explained(what):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self._path, what=what, is_durable=True) as draft:
            torch.save({"format": FORMAT, "of": self._of, **values}, draft)

    def read(self) -> dict[str, Any] | None:
        """Return the last snapshot, on the CPU; None when there is none of this fit."""
        try:
            values = torch.load(self._path, map_location="cpu", weights_only=True)
            is_ours = values["format"] == FORMAT and values["of"] == self._of
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            text = f"The snapshot of a fit is damaged ({type(error).__name__}): it starts again."
            warnings.warn(text, stacklevel=2)
            return None
        return values if is_ours else None
