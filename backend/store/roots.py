"""Where bundles lie: a local folder or an fsspec URL, behind one small interface.

A local bundle becomes visible by one `rename`. Object stores have no rename of folders, so there
the file that makes a folder a bundle (its *head*: `run.json`, `dataset.json`) is uploaded last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import StoreError
from backend.files import published, replaced
from backend.types import ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Location", "Root", "check_id", "is_url", "open_root", "split_location"]

Location = Path | str
"""A local path, or a URL such as `s3://bucket/folder`."""


def check_id(value: object, what: str) -> str:
    """Return `value` when it is 16 lower-case hex digits; ids become folder names."""
    if isinstance(value, str) and ID.fullmatch(value):
        return value
    msg = f"{what} {str(value)[:60]!r} is not an id: it must be 16 lower-case hex digits."
    raise StoreError(msg, "Ids are made by `Series.run_id` and `describe`; never by hand.")


def is_url(location: Location) -> bool:
    """Say whether `location` needs fsspec."""
    return isinstance(location, str) and "://" in location


def split_location(folder: Location) -> tuple[Location, str]:
    """Return parent and name of a bundle folder."""
    if is_url(folder):
        parent, _, name = str(folder).rstrip("/").rpartition("/")
        return parent, name
    path = Path(folder)
    return path.parent, path.name


def open_root(location: Location) -> Root:
    """Return the root at `location`; it need not exist."""
    if is_url(location):
        return _RemoteRoot(str(location))
    return Root(Path(location))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


class Root:
    """A local folder of bundles; `kind` below is `runs` or `datasets`."""

    def __init__(self, location: Location) -> None:
        self.location = location

    def folder(self, kind: str, name: str) -> Location:
        """Return the folder of one bundle, whether or not it exists."""
        return Path(self.location) / kind / name

    def names(self, kind: str) -> list[str]:
        """Return the sorted names of the folders that look like bundles."""
        try:
            entries = list(os.scandir(Path(self.location) / kind))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entry.name for entry in entries if ID.fullmatch(entry.name))

    def read_bytes(self, kind: str, name: str, file: str) -> bytes | None:
        """Return the content of one file of a bundle, or None when there is none."""
        try:
            return (Path(self.location) / kind / name / file).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    @contextlib.contextmanager
    def local_file(self, kind: str, name: str, file: str) -> Iterator[Path]:
        """Give the path of one file for the time of the block."""
        yield Path(self.location) / kind / name / file

    def has_file(self, kind: str, name: str, file: str) -> bool:
        """Say whether a bundle has a file."""
        return (Path(self.location) / kind / name / file).is_file()

    def add_file(self, kind: str, name: str, file: str, write: Callable[[Path], None]) -> None:
        """Add an optional file to a bundle, or replace it; it is whole or absent.

        Parameters
        ----------
        write
            Writes the file at the path that it is given.
        """
        with replaced(Path(self.location) / kind / name / file, is_durable=True) as draft:
            write(draft)

    def list_file(self, kind: str, name: str, file: str, *, head: str) -> None:
        """Put the sha256 of a file that was added into the head of its bundle, if that has a list."""
        values = json.loads(self.read_bytes(kind, name, head) or b"{}")
        if values.get("files"):
            content = self.read_bytes(kind, name, file) or b""
            values["files"][file] = hashlib.sha256(content).hexdigest()
            text = json.dumps(values, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            self.add_file(kind, name, head, lambda path: _write(path, text))

    def publish(
        self,
        kind: str,
        name: str,
        fill: Callable[[Path], None],
        *,
        head: str,
        is_replaceable: Callable[[bytes], bool],
    ) -> Location:
        """Write a bundle so that it is complete or absent.

        Parameters
        ----------
        fill
            Writes all files into the empty folder that it is given.
        head
            The file whose presence makes the folder a bundle.
        is_replaceable
            Says, from the bytes of an existing head, whether that bundle may be replaced.

        Returns
        -------
        The bundle's folder: the new one, or the existing one when it may not be replaced.
        """
        target = Path(self.location) / kind / name

        def keep(_: Path) -> bool:
            existing = self.read_bytes(kind, name, head)
            return existing is not None and not is_replaceable(existing)

        with published(target, keep=keep, what="the results", is_durable=True) as folder:
            fill(folder)
        return target


class _RemoteRoot(Root):
    """Bundles behind an fsspec URL."""

    def __init__(self, location: str) -> None:
        import fsspec

        super().__init__(location.rstrip("/"))
        self._files: Any
        self._files, self._base = fsspec.core.url_to_fs(self.location)

    def _path(self, *parts: str) -> str:
        return "/".join((self._base.rstrip("/"), *parts))

    def folder(self, kind: str, name: str) -> Location:
        return f"{self.location}/{kind}/{name}"

    def names(self, kind: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            entries = self._files.ls(self._path(kind), detail=False)
        except FileNotFoundError:
            return []
        names = {str(entry).rstrip("/").rpartition("/")[2] for entry in entries}
        return sorted(name for name in names if ID.fullmatch(name))

    def read_bytes(self, kind: str, name: str, file: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(self._path(kind, name, file)))
        except (FileNotFoundError, IsADirectoryError):
            return None

    @contextlib.contextmanager
    def local_file(self, kind: str, name: str, file: str) -> Iterator[Path]:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="faultline-") as folder:
            path = Path(folder) / file
            self._files.get_file(self._path(kind, name, file), str(path))
            yield path

    def has_file(self, kind: str, name: str, file: str) -> bool:
        return bool(self._files.exists(self._path(kind, name, file)))

    def add_file(self, kind: str, name: str, file: str, write: Callable[[Path], None]) -> None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="faultline-") as folder:
            path = Path(folder) / file
            write(path)
            self._files.put_file(str(path), self._path(kind, name, file))

    def publish(
        self,
        kind: str,
        name: str,
        fill: Callable[[Path], None],
        *,
        head: str,
        is_replaceable: Callable[[bytes], bool],
    ) -> Location:
        import tempfile

        target = self.folder(kind, name)
        existing = self.read_bytes(kind, name, head)
        if existing is not None and not is_replaceable(existing):
            return target
        with tempfile.TemporaryDirectory(prefix="faultline-") as folder:
            fill(Path(folder))
            # Without its head the folder is no bundle: first that goes, last that comes.
            if self._files.exists(self._path(kind, name)):
                if existing is not None:
                    self._files.rm_file(self._path(kind, name, head))
                self._files.rm(self._path(kind, name), recursive=True)
            files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
            for path in sorted(files, key=lambda path: path == Path(folder) / head):
                remote = self._path(kind, name, *path.relative_to(folder).parts)
                self._files.makedirs(remote.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(path), remote)
        return target
