"""Which checkpoints this installation knows: folders that a user obtained and registered."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.config import home
from backend.errors import InputError, ModelUnavailable
from backend.files import write_text
from backend.models.checkpoints import (
    CheckpointFile,
    FileCheck,
    check_files,
    file_sha256,
    read_json,
)
from backend.models.inhouse import is_inhouse, is_series, members, open_checkpoint, read_pretraining
from backend.models.registry import list_models, model_class
from backend.types import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.models.base import LoadReport

__all__ = [
    "Registered",
    "add",
    "check_name",
    "find_checkpoint",
    "inhouse_folder",
    "is_inhouse_name",
    "models_with_files",
    "register_inhouse",
    "registered",
    "require_files",
    "verify",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Registered:
    """A checkpoint folder under a name.

    sha256 : one hash of all its files; part of the identity of a run
    files  : name to sha256
    is_published : whether every file agrees with the published one, as far as that is known
    is_inhouse : whether `pretrain` made it
    is_series : whether the folder holds one in-house checkpoint for each fold; `sha256` and `files`
        are then empty, and those of each fold's count
    """

    model: str
    name: str
    preset: str
    folder: str
    sha256: str
    files: dict[str, str]
    is_published: bool
    added_at: str
    is_inhouse: bool = False
    is_series: bool = False


def models_with_files() -> dict[str, Any]:
    """Return the classes of models that have checkpoints, by key."""
    classes = {key: model_class(key) for key in list_models()}
    return {key: found for key, found in classes.items() if found.checkpoint_files}


def require_files(key: str) -> Any:
    """Return the class of a model that has checkpoints, or raise `InputError`."""
    model = model_class(key)
    if not model.checkpoint_files:
        known = ", ".join(models_with_files())
        msg = f"{model.display_name} has no checkpoints."
        raise InputError(msg, f"Models with checkpoints: {known}.")
    return model


def _finder(model: Any, folder: Path) -> Callable[[str], Path | None]:
    places = model.checkpoint_places(folder)

    def find(name: str) -> Path | None:
        return next((place / name for place in places if (place / name).is_file()), None)

    return find


def verify(key: str, folder: Path, preset: str | None = None) -> list[FileCheck]:
    """Compare a folder with the published files of a model.

    Parameters
    ----------
    preset
        Full name of a preset, or its tag. By default the one whose files fit best.

    Raises
    ------
    InputError
        If the model has no checkpoints, or the preset none.
    ModelUnavailable
        If there is no such folder.
    """
    model = require_files(key)
    by_preset: dict[str, list[CheckpointFile]] = {}
    for file in model.checkpoint_files:
        by_preset.setdefault(file.preset, []).append(file)
    if preset is not None:
        by_preset = {
            name: files
            for name, files in by_preset.items()
            if preset in (name, name.split(".")[-1])
        }
        if not by_preset:
            msg = f'{model.display_name} has no published checkpoint "{preset}".'
            names = sorted({file.preset for file in model.checkpoint_files})
            raise InputError(msg, f"Choose one of: {', '.join(names)}.")
    if not folder.is_dir():
        msg = f"There is no folder `{folder}`."
        raise ModelUnavailable(msg, model.checkpoint_files[0].source)
    if is_inhouse(folder) or is_series(folder):
        msg = f"`{folder.name}` holds in-house checkpoints: nothing published is like them."
        raise InputError(msg, "Their own hashes are checked whenever they are read.")
    find = _finder(model, folder)
    checks = [check_files(files, find) for files in by_preset.values()]

    def fit(found: list[FileCheck]) -> tuple[int, int]:
        return (
            sum(check.status == "same" for check in found),
            sum(check.status != "missing" for check in found),
        )

    return max(checks, key=fit)


def add(
    key: str, folder: Path, *, name: str | None = None, preset: str | None = None
) -> tuple[Registered, LoadReport]:
    """Check a folder and remember it under a name; nothing is copied.

    Files that differ from the published ones are accepted, and said to differ: a checkpoint that
    the user trained further is one too.

    Raises
    ------
    ModelUnavailable
        If a file is missing; the hint says where to get it.
    InputError
        If the name is not usable, or the model cannot be read from the files.
    """
    model = require_files(key)
    if not folder.is_dir():
        msg = f"There is no folder `{folder}`."
        raise ModelUnavailable(msg, model.checkpoint_files[0].source)
    if is_inhouse(folder) or is_series(folder):
        first = folder if is_inhouse(folder) else members(folder)[0]
        _, report = open_checkpoint(key, first)
        found = read_pretraining(first).preset
        _check_preset(found, preset)
        return register_inhouse(key, name or folder.resolve().name, found, folder, home()), report
    built, report = open_checkpoint(key, folder)
    of_preset = built.config.name
    _check_preset(of_preset, preset)
    name = name or of_preset.rpartition(".")[2]
    check_name(name)
    checks = verify(key, folder, of_preset)
    files = {check.file.name: check.sha256 for check in checks if check.sha256 is not None}
    # A model may have read files under other names than the published ones.
    files |= {path.name: file_sha256(path) for path in built.files}
    entry = Registered(
        model=key,
        name=name,
        preset=of_preset,
        folder=str(folder.resolve()),
        sha256=sha256_of(files),
        files=files,
        is_published=all(
            check.status in ("same", "unknown") or not check.file.is_required for check in checks
        ),
        added_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _write_record(entry, home())
    return entry, report


def _check_preset(found: str, wanted: str | None) -> None:
    if wanted is not None and wanted not in (found, found.rpartition(".")[2]):
        msg = f"The folder holds {found}, not {wanted}."
        raise InputError(msg, "Leave out --preset, or name the folder of that checkpoint.")


def check_name(name: Any) -> None:
    """Raise `InputError` for what cannot name a checkpoint."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        msg = f'"{name}" cannot name a checkpoint.'
        raise InputError(msg, "Use small letters, digits, dots, hyphens and underscores.")


def _write_record(entry: Registered, root: Path) -> None:
    path = _record(entry.model, entry.name, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(entry), indent=1) + "\n")


def _record(key: str, name: str, root: Path) -> Path:
    return root / "checkpoints" / key / f"{name}.json"


def is_inhouse_name(key: str, name: str) -> bool:
    """Say whether the checkpoint registered as `name` was made by `pretrain`."""
    return any(entry.name == name and entry.is_inhouse for entry in registered(key))


def inhouse_folder(key: str, name: str, root: Path) -> Path:
    """Return where an in-house checkpoint of that name belongs below `root`.

    Raises
    ------
    InputError
        If the name is not usable, or is that of another checkpoint.
    """
    check_name(name)
    folder = root / "checkpoints" / key / name
    record = _record(key, name, root)
    if record.is_file() and Path(read_json(record).get("folder", "")) != folder.resolve():
        msg = f'"{name}" is another checkpoint of {key} already.'
        raise InputError(msg, "Choose another name.")
    return folder


def register_inhouse(key: str, name: str, preset: str, folder: Path, root: Path) -> Registered:
    """Remember an in-house checkpoint, or a folder of one for each fold, under a name."""
    check_name(name)
    about = read_pretraining(folder) if is_inhouse(folder) else None
    entry = Registered(
        model=key,
        name=name,
        preset=preset,
        folder=str(folder.resolve()),
        sha256=about.sha256 if about else "",
        files=about.files if about else {},
        is_published=False,
        added_at=datetime.now(UTC).isoformat(timespec="seconds"),
        is_inhouse=True,
        is_series=about is None,
    )
    _write_record(entry, root)
    return entry


def registered(key: str | None = None) -> list[Registered]:
    """Return the registered checkpoints, of one model or of all, by model and name."""
    paths = sorted((home() / "checkpoints").glob(f"{key or '*'}/*.json"))
    return [Registered(**read_json(path)) for path in paths]


def find_checkpoint(
    key: str, name: str, *, split_sha256: str | None = None, fold: int | str | None = None
) -> Registered:
    """Return the checkpoint registered as `name`.

    Parameters
    ----------
    split_sha256, fold
        Which of its checkpoints, where the name stands for one for each fold.

    Raises
    ------
    ModelUnavailable
        If there is none; the hint says how to register one.
    """
    model = require_files(key)
    known = registered(key)
    for entry in known:
        if entry.name == name:
            if not Path(entry.folder).is_dir():
                msg = f'The folder of checkpoint "{name}" is gone.'
                raise ModelUnavailable(msg, f"Register it again: checkpoints add {key} DIR.")
            return _of_fold(entry, split_sha256, fold) if entry.is_series else entry
    found = ", ".join(entry.name for entry in known) or "none"
    msg = f'{model.display_name} has no checkpoint "{name}" here. Registered: {found}.'
    hint = f"Run `python -m backend checkpoints add {key} DIR`. {model.checkpoint_files[0].source}"
    raise ModelUnavailable(msg, hint)


def _of_fold(entry: Registered, split_sha256: str | None, fold: int | str | None) -> Registered:
    """Return the checkpoint of one fold of a series."""
    splits = set()
    for folder in members(Path(entry.folder)):
        about = read_pretraining(folder)
        if (about.split_sha256, about.fold) == (split_sha256, fold):
            return replace(
                entry,
                folder=str(folder),
                sha256=about.sha256,
                files=about.files,
                is_series=False,
            )
        splits.add(f"{about.protocol} {about.fold}")
    found = ", ".join(sorted(splits)) or "none"
    what = "no fold" if fold is None else f"fold {fold} of this split"
    msg = f'The checkpoint "{entry.name}" has one part for each fold, none for {what}. Found: {found}.'
    hint = (
        f"Run `python -m backend pretrain --model {entry.model} --name {entry.name}` with the "
        f"dataset and split of the run, and --fold {'all' if fold is None else fold}."
    )
    raise ModelUnavailable(msg, hint)
