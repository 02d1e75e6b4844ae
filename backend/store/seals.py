"""Bundles prove themselves: the head of each lists the sha256 of every other file.

`python -m backend store verify` compares; reading a bundle into the store compares what it reads.
Bundles of before have no list: `store seal` adds it, which changes no id and no number.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.data.expression import FOLDER as EXPRESSION
from backend.data.expression import open_expression
from backend.errors import StoreError
from backend.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["HEADS", "check_file", "file_hashes", "head_text", "seal", "verify"]

HEADS: Final = {"datasets": "dataset.json", "runs": "run.json"}
"""Folder of bundles to the file that makes one."""
_PIECE: Final = 1 << 20


def head_text(values: Mapping[str, Any]) -> str:
    """Return the content of a head file."""
    text = json.dumps(values, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return text + "\n"


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """Return relative name → hex sha256 of every file of a bundle but its head.

    Counts by gene, which can be added later, prove themselves; what begins with a dot is left of a
    writer that was killed.
    """
    names = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): _sha256(path)
        for name, path in sorted(names.items())
        if name.as_posix() not in HEADS.values()
        and name.parts[0] != EXPRESSION
        and not name.parts[0].startswith(".")
    }


def check_file(path: str | Path, files: Mapping[str, str]) -> None:
    """Refuse a file that differs from what its bundle's head says; a head may say nothing.

    Raises
    ------
    StoreError
        If the sha256 is another.
    """
    expected = files.get(Path(path).name)
    if expected is not None and _sha256(Path(path)) != expected:
        msg = f"`{Path(path).name}` differs from the sha256 that its bundle lists."
        raise StoreError(msg, "Restore it, or delete the bundle's folder and make it again.")


def _bundles(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give the head of every bundle below a folder with what it says."""
    for kind, name in HEADS.items():
        for head in sorted(root.glob(f"{kind}/*/{name}")):
            try:
                values = json.loads(head.read_bytes())
            except (ValueError, RecursionError):
                values = None
            yield head, values if isinstance(values, dict) else {}


def verify(root: Path) -> dict[str, list[str]]:
    """Compare every bundle below a folder with the list in its head.

    Returns
    -------
    Folder of each bundle → what is wrong with it: empty where nothing is.
    """
    report = {}
    for head, values in _bundles(root):
        listed = values.get("files")
        wrong = []
        if not values:
            wrong.append(f"`{head.name}` cannot be read")
        elif not isinstance(listed, dict) or not listed:
            wrong.append("lists no sha256: `store seal` adds them")
        else:
            found = file_hashes(head.parent)
            wrong += [f"`{name}` is missing" for name in sorted(listed.keys() - found.keys())]
            wrong += [f"`{name}` is not listed" for name in sorted(found.keys() - listed.keys())]
            both = sorted(found.keys() & listed.keys())
            wrong += [f"`{name}` has changed" for name in both if found[name] != listed[name]]
        try:
            counts = open_expression(head.parent)
            wrong += ["`expression` has changed"] * (counts is not None and not counts.is_whole())
        except StoreError as error:
            wrong.append(error.message)
        report[str(head.parent.relative_to(root))] = wrong
    return report


def seal(root: Path) -> int:
    """Add the list to the bundles below a folder that have none; return how many those are."""
    n = 0
    for head, values in _bundles(root):
        if values and not values.get("files"):
            write_text(
                head, head_text(values | {"files": file_hashes(head.parent)}), is_durable=True
            )
            n += 1
    return n
