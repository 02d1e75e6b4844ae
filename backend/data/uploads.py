"""Files that users bring: kept below their owner's folder under a random name, or on the server.

A name given by a user is shown as text and never becomes a path. Files on the server are found
only below the folders that its administrator lists, by their real path.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

from backend.config import data_dirs
from backend.data.containers import SUFFIXES
from backend.errors import InputError, is_utf8
from backend.files import complete_or_absent, published, remove_folder
from backend.types import ID, OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "Upload",
    "delete_upload",
    "find_own_file",
    "find_server_file",
    "find_upload",
    "keep_mapping",
    "kept_mapping",
    "list_uploads",
    "save_upload",
    "server_files",
    "shown_name",
    "user_folder",
]

Kind = Literal["cells", "table"]

_FILES: Final[dict[str, str]] = {"cells": "cells.h5ad", "table": "table"}
_MAPPING: Final = "mapping.json"
_PIECE: Final = 4 << 20
_LONGEST_NAME: Final = 80
_SPARE_SPACE: Final = 1 << 30
"""Bytes that must stay free on the disk."""
_DEEPEST: Final = 4
_MOST_SERVER_FILES: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file that a user brought.

    upload_id : 16 hex digits, the name of its folder
    name : what the user called it, for display
    kind : "cells" (an h5ad) or "table" (predictions)
    size : bytes
    created_at : ISO 8601, UTC
    path : where the file lies; None in `upload.json`
    """

    upload_id: str
    name: str
    kind: Kind
    size: int
    created_at: str
    path: Path


def shown_name(name: str) -> str:
    """Return a user's file name as one short line of text, without folders and control marks."""
    last = re.split(r"[\\/]", name)[-1]
    plain = "".join(mark for mark in last if mark.isprintable()).strip()
    return plain[:_LONGEST_NAME] or "unnamed file"


def user_folder(home: Path, owner: str) -> Path:
    """Return the folder of an owner.

    Raises
    ------
    InputError
        If `owner` cannot name a folder.
    """
    if not isinstance(owner, str) or not OWNER.fullmatch(owner):
        msg = "The owner of the upload is not known."
        raise InputError(msg, "Sign in again.")
    return Path(home) / "users" / owner


def _not_found() -> InputError:
    return InputError(
        "Upload not found.", "It may have expired or been deleted; upload the file again."
    )


def save_upload(home: Path, owner: str, stream: BinaryIO, *, name: str, kind: Kind) -> Upload:
    """Copy a stream to disk in pieces, complete or not at all.

    Raises
    ------
    InputError
        If the file is empty, or the disk has no room for it.
    """
    parent = user_folder(home, owner) / "uploads"
    parent.mkdir(parents=True, exist_ok=True)
    upload_id = secrets.token_hex(8)
    with published(parent / upload_id, what="the upload", mode=0o700) as folder:
        size = 0
        with (folder / _FILES[kind]).open("wb") as file:
            while piece := stream.read(_PIECE):
                if shutil.disk_usage(parent).free < len(piece) + _SPARE_SPACE:
                    msg = "The server's disk is full."
                    raise InputError(msg, "Tell its administrator, or delete earlier uploads.")
                file.write(piece)
                size += len(piece)
        if not size:
            msg = f'"{shown_name(name)}" is empty.'
            raise InputError(msg, "Choose the file again.")
        about = {
            "upload_id": upload_id,
            "name": shown_name(name),
            "kind": kind,
            "size": size,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (folder / "upload.json").write_text(json.dumps(about), encoding="utf-8")
    return find_upload(home, owner, upload_id)


def find_upload(home: Path, owner: str, upload_id: str) -> Upload:
    """Return an upload of an owner.

    Raises
    ------
    InputError
        If there is none, it is another owner's, or `upload_id` is no id: all read the same.
    """
    if not isinstance(upload_id, str) or not ID.fullmatch(upload_id):
        raise _not_found()
    folder = user_folder(home, owner) / "uploads" / upload_id
    try:
        about: dict[str, Any] = json.loads((folder / "upload.json").read_text(encoding="utf-8"))
        path = folder / _FILES[about["kind"]]
        return Upload(**about, path=path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_found() from error


def keep_mapping(home: Path, owner: str, upload_id: str, labels: Mapping[str, str | None]) -> None:
    """Keep a person's own choices of what labels mean beside the upload."""
    folder = find_upload(home, owner, upload_id).path.parent
    with complete_or_absent(folder / _MAPPING) as place:
        place.write_text(json.dumps(dict(labels), ensure_ascii=False), encoding="utf-8")


def kept_mapping(home: Path, owner: str, upload_id: str) -> dict[str, str | None]:
    """Return the choices that were kept with an upload; empty when none were."""
    path = find_upload(home, owner, upload_id).path.parent / _MAPPING
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {str(label): value for label, value in values.items()} if isinstance(values, dict) else {}
    )


def list_uploads(home: Path, owner: str) -> list[Upload]:
    """Return the uploads of an owner, newest first."""
    parent = user_folder(home, owner) / "uploads"
    names = sorted(path.name for path in parent.glob("*/upload.json")) if parent.is_dir() else []
    folders = [path.parent.name for path in parent.glob("*/upload.json")] if names else []
    found = [find_upload(home, owner, name) for name in folders if ID.fullmatch(name)]
    return sorted(found, key=lambda upload: (upload.created_at, upload.upload_id), reverse=True)


def delete_upload(home: Path, owner: str, upload_id: str) -> None:
    """Remove an upload; one that is gone already is no error."""
    if isinstance(upload_id, str) and ID.fullmatch(upload_id):
        remove_folder(user_folder(home, owner) / "uploads" / upload_id)


def server_files() -> list[str]:
    """Return the `.h5ad` files below the listed folders, as "folder/relative/name.h5ad".

    Only files whose real path lies in a listed folder count, so a link cannot lead out.
    """
    return [name for name, _ in _server_files()]


def find_server_file(name: str) -> Path:
    """Return the real path of one of `server_files`.

    Raises
    ------
    InputError
        If it is none of them; nothing else is looked up.
    """
    for known, path in _server_files():
        if known == name:
            return path
    msg = "The file is not among those that this server offers."
    raise InputError(msg, "Choose one of the list; the administrator sets FAULTLINE_DATA_DIRS.")


def find_own_file(text: str) -> Path:
    """Return the real path of a file that a person on this machine named.

    Only for visitors who sit at the machine itself: what they name, they can read anyway.

    Raises
    ------
    InputError
        If there is no such file of a kind that is read.
    """
    path = Path(text.strip().strip("'\"")).expanduser()
    if path.suffix.lower() not in SUFFIXES or not path.is_absolute() or not path.is_file():
        msg = f'There is no file of counts "{text.strip()[:200]}" (.h5ad, .h5 or .h5mu).'
        raise InputError(msg, "Give its whole path, from the root of the disk on.")
    return path.resolve()


def _root_names(roots: list[Path]) -> dict[Path, str]:
    """Return what each folder is called: its last name, and where it lies if others share that.

    The name of a file must lead to that file alone, whatever else is listed and in which order.
    """
    unique = list(dict.fromkeys(roots))
    names = {}
    for root in unique:
        alike = [other for other in unique if other != root and other.name == root.name]
        names[root] = root.name
        for depth in range(2, len(root.parts) + 1):
            if not any(other.parts[-depth:] == root.parts[-depth:] for other in alike):
                break
        if alike:
            names[root] += f" ({'/'.join(root.parts[-depth:-1])})"
    return names


def _server_files() -> Iterator[tuple[str, Path]]:
    n = 0
    for root, shown in _root_names(
        [Path(os.path.realpath(folder)) for folder in data_dirs()]
    ).items():
        if not root.is_dir():
            continue
        found = sorted(
            path
            for depth in range(_DEEPEST)
            for path in root.glob("/".join(["*"] * depth + ["*.h5ad"]))
        )
        for path in found:
            if not is_utf8(str(path)):
                # Nobody could ask for it: neither a page nor a job's file can hold the name.
                continue
            real = Path(os.path.realpath(path))
            if real.is_file() and real.is_relative_to(root) and not path.name.startswith("."):
                yield f"{shown}/{path.relative_to(root).as_posix()}", real
                n += 1
            if n >= _MOST_SERVER_FILES:
                return
