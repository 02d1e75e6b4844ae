"""In-house checkpoints: folders that `pretrain` writes, and what they say of their origin.

A folder holds `weights.safetensors`, `config.json`, `genes.json`, `pretrain_cells.bin`,
`history.parquet` and, written last, `pretraining.json`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from backend.errors import InputError, ModelUnavailable
from backend.models.checkpoints import (
    check_sizes,
    file_sha256,
    fit_tensors,
    loaded_weights,
    read_json,
    read_tensors,
    understood,
)
from backend.models.registry import model_class
from backend.types import sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from torch import Tensor

    from backend.models.base import FoundationModel, LoadReport

__all__ = [
    "Pretraining",
    "is_inhouse",
    "is_series",
    "members",
    "open_checkpoint",
    "read_cells",
    "read_pretraining",
    "write_checkpoint",
]

FORMAT: Final = 1
HEAD: Final = "pretraining.json"
CELLS: Final = "pretrain_cells.bin"
HASHED: Final = ("weights.safetensors", "config.json", "genes.json", CELLS)
"""Files that make the identity of a checkpoint; the others say when and how long."""

_AGAIN: Final = "Copy the whole folder again, or pre-train again with `python -m backend pretrain`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """What `pretraining.json` says: which cells a checkpoint has seen, and how.

    cells        : the condition that chose cells, or None
    cells_sha256 : of the sorted cell ids, one a line
    fold         : the fold whose training cells were read, `final` for all cells of a split, or
                   None for cells outside any split
    files        : name to sha256
    """

    model: str
    preset: str
    dataset_id: str
    dataset_name: str
    simulated: bool
    donors: tuple[str, ...]
    n_cells: int
    cells_sha256: str
    cells: str | None = None
    protocol: str | None = None
    budget: str | None = None
    split_sha256: str | None = None
    fold: int | Literal["final"] | None = None
    objective: str
    settings: dict[str, Any]
    seed: int
    epochs: int
    steps: int
    final_loss: float
    device: str
    wall_seconds: float
    versions: dict[str, str]
    files: dict[str, str]
    created_at: str

    @property
    def sha256(self) -> str:
        """One hash of weights, sizes, genes and cells; part of the identity of a run."""
        return sha256_of(self.files)

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for two pre-trainings to be one."""
        names = ("model", "preset", "dataset_id", "cells_sha256", "split_sha256", "fold")
        return {name: getattr(self, name) for name in (*names, "settings", "seed")}


def is_inhouse(folder: Path) -> bool:
    """Say whether a folder holds a finished in-house checkpoint."""
    return (folder / HEAD).is_file()


def members(folder: Path) -> list[Path]:
    """Return the finished checkpoints of a folder that holds one for each fold, by name."""
    return sorted(path.parent for path in folder.glob(f"[!.]*/{HEAD}"))


def is_series(folder: Path) -> bool:
    """Say whether a folder holds one in-house checkpoint for each fold."""
    return not is_inhouse(folder) and bool(members(folder))


def read_pretraining(folder: Path) -> Pretraining:
    """Return what an in-house checkpoint says of its origin.

    Raises
    ------
    InputError
        If `pretraining.json` is damaged or of another version.
    """
    values = read_json(folder / HEAD)
    version = values.pop("format_version", None)
    if version != FORMAT:
        msg = f"`{HEAD}` has the format {version}; {FORMAT} is read."
        raise InputError(msg, "Pre-train again with this version.")
    known = {field.name for field in fields(Pretraining)}
    try:
        found = Pretraining(**{name: value for name, value in values.items() if name in known})
    except TypeError as error:
        msg = f"`{HEAD}` is damaged: {str(error).removeprefix('Pretraining.__init__() ')}."
        raise InputError(msg, _AGAIN) from None
    object.__setattr__(found, "donors", tuple(found.donors))
    return found


def read_cells(folder: Path) -> np.ndarray:
    """Return the sorted 64-bit fingerprints of the cells of a checkpoint, (n_cells,) uint64.

    Raises
    ------
    InputError
        If the file is missing or was changed.
    """
    about = read_pretraining(folder)
    _check_file(folder, CELLS, about)
    return np.fromfile(folder / CELLS, dtype="<u8")


def _check_file(folder: Path, name: str, about: Pretraining) -> None:
    path = folder / name
    if not path.is_file():
        msg = f"The in-house checkpoint has no `{name}`."
        raise InputError(msg, _AGAIN)
    if file_sha256(path) != about.files.get(name):
        msg = f"`{name}` of the in-house checkpoint was changed: its sha256 is another."
        raise InputError(msg, _AGAIN)


def write_checkpoint(
    folder: Path,
    model: FoundationModel,
    tensors: dict[str, Tensor],
    *,
    unused: Sequence[str],
    fingerprints: np.ndarray,
    history: pd.DataFrame,
    about: dict[str, Any],
) -> Pretraining:
    """Write a checkpoint into an empty folder; `pretraining.json` comes last.

    Parameters
    ----------
    tensors
        Of the pre-trained network, by the names of the model's own files.
    unused
        Patterns of the tensors that only pre-training needs.
    fingerprints
        Of the cells, in any order.
    about
        The fields of `Pretraining` but `files`.
    """
    from safetensors.torch import save_file

    config = {
        "format_version": FORMAT,
        "model": about["model"],
        "preset": about["preset"],
        "unused": list(unused),
    }
    save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, folder / HASHED[0])
    _write_json(folder / "config.json", config)
    _write_json(folder / "genes.json", model.state())
    np.sort(fingerprints).astype("<u8").tofile(folder / CELLS)
    history.to_parquet(folder / "history.parquet", index=False)
    files = {name: file_sha256(folder / name) for name in HASHED}
    written = Pretraining(**about, files=files)
    _write_json(folder / HEAD, {"format_version": FORMAT} | asdict(written))
    return written


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def open_checkpoint(
    key: str, folder: Path, *, accept_partial: bool = False
) -> tuple[Any, LoadReport]:
    """Read a checkpoint, in-house or the authors', as a model and what was loaded.

    Raises
    ------
    ModelUnavailable
        If a file is missing.
    InputError
        If a file was changed, its contents are not those of the model, or the weights do not fill
        the backbone.
    """
    with understood(model_class(key).display_name):
        return _open(key, folder, accept_partial=accept_partial)


def _open(key: str, folder: Path, *, accept_partial: bool) -> tuple[Any, LoadReport]:
    model = model_class(key)
    if not is_inhouse(folder):
        return model.from_checkpoint(folder, accept_partial=accept_partial)
    about = read_pretraining(folder)
    if about.model != key:
        msg = f"The folder holds an in-house checkpoint of {about.model}, not of {key}."
        raise ModelUnavailable(msg, f"Use it with --model {about.model}.")
    for name in HASHED:
        _check_file(folder, name, about)
    built = model.from_state(read_json(folder / "genes.json"))
    tensors = read_tensors(folder / HASHED[0])
    check_sizes(built.config.values, lambda: built.network(2), tensors, model.display_name)
    network = built.network(2)
    report = fit_tensors(
        network,
        tensors,
        display_name=model.display_name,
        head=model.head,
        unused=tuple(read_json(folder / "config.json")["unused"]),
        accept_partial=accept_partial,
    )
    built.weights = loaded_weights(network, report)
    return built, report
