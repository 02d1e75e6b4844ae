"""Look at the structure of an HDF5 file before anything reads its values.

Files come from strangers. A link or a virtual dataset can pull in other files of the machine, an
object column can hold a pickle, and a small chunk can inflate to gigabytes. All of it shows in the
structure, which is read here with plain h5py and without following any link.
"""

from __future__ import annotations

import logging
import math
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.data.problems import Refusal
from backend.data.text_sizes import check_attributes, check_text
from backend.errors import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

_log = logging.getLogger(__name__)

__all__ = ["damage_refused", "open_safely"]

_ALLOWED_FILTERS: Final = {1: "gzip", 2: "shuffle", 32000: "lzf"}
_FILTER_NAMES: Final = {
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}
_LARGEST_CHUNK: Final = 64 << 20
_LARGEST_INFLATION: Final = 200
# A constant column shrinks more than 200-fold by itself. It is harmless while it is small: a chunk
# up to h5py's own largest guess of 1 MiB, a column of obs or var up to the largest chunk.
_HARMLESS_CHUNK: Final = 1 << 20
_HARMLESS_COLUMN: Final = 64 << 20
# Matrices are read in bounded pieces whatever they inflate to: only the time grows. Dense counts of
# eight bytes shrink 300-fold by themselves; gzip can do 1,032.
_MATRICES: Final = ("/X", "/layers/", "/raw/X")
_LARGEST_MATRIX: Final = 32 << 30
_READ_AS_TEXT: Final = ("/obs/", "/var/", "/raw/var/", "/uns/faultline/", "/matrix/")
_MODALITY: Final = re.compile(r"^/mod/[^/]+(?=/)")
_MOST_OBJECTS: Final = 50_000
_MOST_CATEGORIES: Final = 1_000_000
_LONGEST_NAME: Final = 1_000
_DEEPEST: Final = 16

# What h5py and numpy raise on bytes that make no sense.
_DAMAGE: Final = (
    OSError,
    RuntimeError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
)

_REWRITE: Final = (
    'Open the file with anndata and save it again: adata.write_h5ad(path, compression="gzip").'
)


def open_safely(path: str | Path) -> h5py.File:
    """Open an HDF5 file for reading after its whole structure was found harmless.

    Raises
    ------
    Refusal
        With a code of its own for each reason.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        msg = f'There is no file "{path}".' if not path.exists() else f'"{path}" is not a file.'
        raise Refusal(msg, "Give the path of an .h5ad file.", code="no_file")
    if not h5py.is_hdf5(path):
        msg = f'"{path.name}" is not an HDF5 file; {_looks_like(path)}.'
        raise Refusal(msg, "Give an .h5ad file as written by anndata or scanpy.", code="not_hdf5")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        if "truncated" in str(error):
            msg = f'"{path.name}" is truncated: it ends before its own header says.'
        else:
            msg = f'"{path.name}" is damaged: its HDF5 structure cannot be read.'
        raise Refusal(msg, "Copy or download the file again.", code="truncated") from error
    try:
        _Walk(path).file(file.id)
    except Refusal:
        file.close()
        raise
    except _DAMAGE as error:
        file.close()
        raise _unreadable(path.name, "its HDF5 structure", error, "truncated") from error
    return file


@contextmanager
def damage_refused(name: str) -> Iterator[None]:
    """Turn what HDF5 raises on damaged bytes into a refusal; for reading from an open file."""
    try:
        yield
    except _DAMAGE as error:
        _log.info("reading %s failed", name, exc_info=True)
        raise _unreadable(name, "a part of it", error, "damaged") from error


def _unreadable(name: str, what: str, error: Exception, code: str) -> Refusal:
    # So HDF5 names the functions that ask for memory.
    if isinstance(error, MemoryError) or "H5MM_" in str(error):
        msg = f'"{name}" was not read: {what} needs more memory than reading it may use.'
        return Refusal(msg, _REWRITE, code="memory")
    msg = f'"{name}" is damaged: {what} cannot be read ({shortened(str(error), 300)}).'
    return Refusal(msg, "Copy or download the file again.", code=code)


def _looks_like(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        return "it is empty"
    for magic, name in (
        (b"\x1f\x8b", "it looks like a gzip file"),
        (b"PK", "it looks like a zip file"),
        (b"\x80", "it looks like a Python pickle"),
        (b"%%Matrix", "it looks like a Matrix Market file"),
    ):
        if start.startswith(magic):
            return name
    return "it looks like text" if start.isascii() else "its format is unknown"


class _Walk:
    """Visit every object of a file once, by hard links only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.size = path.stat().st_size
        self.seen: set[tuple[int, int]] = set()
        self.soft_links: list[tuple[h5py.h5g.GroupID, bytes, str]] = []
        self.other_texts: list[tuple[h5py.h5d.DatasetID, str]] = []
        self.has_aliases = False

    def file(self, root: h5py.h5f.FileID) -> None:
        """Walk all hard links, and only then see where the soft ones lead.

        Any external link is refused before a soft link that could cross it is followed.
        """
        import h5py

        self.group(h5py.h5g.open(root, b"/"), "", 0)
        for group, raw, place in self.soft_links:
            self._soft_link(group, raw, place)
        # By another name a text of `uns` may be a column: then all texts keep to the rule.
        if self.soft_links or self.has_aliases:
            for dataset, place in self.other_texts:
                check_text(dataset, place, self.path)

    def group(self, group: h5py.h5g.GroupID, place: str, depth: int) -> None:
        """Check a group's links and what they lead to."""
        import h5py

        if depth > _DEEPEST:
            msg = f'Groups are nested deeper than {_DEEPEST} levels in "{place}".'
            raise Refusal(msg, _REWRITE, code="structure")
        if not self._is_new(group):
            return
        check_attributes(group, place)
        for raw in group:
            if len(raw) > _LONGEST_NAME:
                msg = f'A name in "{place or "/"}" has {len(raw):,} bytes; at most {_LONGEST_NAME:,} are read.'
                raise Refusal(msg, _REWRITE, code="structure")
            child_place = f"{place}/{raw.decode('utf-8', 'replace')}"
            if child_place.encode("utf-8") != place.encode("utf-8") + b"/" + raw:
                msg = f'The name "{child_place}" is not valid UTF-8.'
                raise Refusal(msg, _REWRITE, code="structure")
            kind = group.links.get_info(raw).type
            if kind == h5py.h5l.TYPE_SOFT:
                self.soft_links.append((group, raw, child_place))
                continue
            if kind != h5py.h5l.TYPE_HARD:
                target = ""
                if kind == h5py.h5l.TYPE_EXTERNAL:
                    file_name, _ = group.links.get_val(raw)
                    target = f' to another file ("{file_name.decode("utf-8", "replace")}")'
                msg = f'"{child_place}" is an external link{target}.'
                hint = (
                    "Save a file that holds its own data: read it with anndata and write it again."
                )
                raise Refusal(msg, hint, code="external_link")
            child = h5py.h5o.open(group, raw)
            if isinstance(child, h5py.h5g.GroupID):
                self.group(child, child_place, depth + 1)
            elif isinstance(child, h5py.h5d.DatasetID):
                if self._is_new(child):
                    self.dataset(child, child_place)
            elif not child_place.startswith("/uns/"):
                msg = f'"{child_place}" is a bare data type, where values or a table belong.'
                raise Refusal(msg, _REWRITE, code="structure")

    def _is_new(self, node: h5py.h5g.GroupID | h5py.h5d.DatasetID) -> bool:
        import h5py

        info = h5py.h5o.get_info(node)
        key = (info.fileno, info.addr)
        self.has_aliases |= info.rc > 1
        if key in self.seen:
            return False
        self.seen.add(key)
        if len(self.seen) > _MOST_OBJECTS:
            msg = f'"{self.name}" holds more than {_MOST_OBJECTS:,} groups and datasets.'
            raise Refusal(msg, _REWRITE, code="structure")
        return True

    def _soft_link(self, group: h5py.h5g.GroupID, raw: bytes, place: str) -> None:
        """Accept a soft link to an object that was visited; anything else is refused."""
        target = group.links.get_val(raw).decode("utf-8", "replace")
        if not self._leads_to_visited(group, raw):
            msg = f'"{place}" is a soft link that leads to nothing in this file ("{target}").'
            hint = "Save a file that holds its own data: read it with anndata and write it again."
            raise Refusal(msg, hint, code="soft_link")

    def _leads_to_visited(self, group: h5py.h5g.GroupID, raw: bytes) -> bool:
        import h5py

        try:
            info = h5py.h5o.get_info(h5py.h5o.open(group, raw))
        except (KeyError, OSError, RuntimeError):
            return False
        return (info.fileno, info.addr) in self.seen

    def dataset(self, dataset: h5py.h5d.DatasetID, place: str) -> None:
        """Check attributes, type, layout, filters and chunks of a dataset."""
        import h5py

        # A modality of MuData is an AnnData of its own.
        place = _MODALITY.sub("", place)
        check_attributes(dataset, place)
        plist = dataset.get_create_plist()
        layout = plist.get_layout()
        if layout == h5py.h5d.VIRTUAL:
            msg = f'"{place}" is a virtual dataset: its values lie in other files or datasets.'
            raise Refusal(msg, _REWRITE, code="virtual_dataset")
        if plist.get_external_count():
            outside = plist.get_external(0)[0].decode("utf-8", "replace")
            msg = f'The values of "{place}" lie outside this file (in "{outside}").'
            raise Refusal(msg, _REWRITE, code="external_storage")
        why = _refused_type(dataset.get_type())
        if why:
            msg = f'"{place}" holds {why}, which can hide a pickle or lead anywhere.'
            hint = (
                "Turn it into text, numbers or categories, or delete it, and save the file again."
            )
            raise Refusal(msg, hint, code="object_column")
        for index in range(plist.get_nfilters()):
            code = plist.get_filter(index)[0]
            if code not in _ALLOWED_FILTERS:
                name = _FILTER_NAMES.get(code, f"number {code}")
                msg = f'"{place}" is compressed with the HDF5 filter {name}.'
                raise Refusal(
                    msg, f"Only gzip, lzf and shuffle are read. {_REWRITE}", code="filter"
                )
        if place.endswith("/categories") and math.prod(dataset.shape or (1,)) > _MOST_CATEGORIES:
            msg = f'"{place}" lists {math.prod(dataset.shape):,} values; at most {_MOST_CATEGORIES:,} are read.'
            hint = "Drop those that no cell has: column.cat.remove_unused_categories(), then save again."
            raise Refusal(msg, hint, code="text")
        self._inflation(dataset, place, is_chunked=layout == h5py.h5d.CHUNKED)
        kind = dataset.get_type()
        if isinstance(kind, h5py.h5t.TypeStringID):
            if place.startswith(_READ_AS_TEXT):
                check_text(dataset, place, self.path)
            else:
                self.other_texts.append((dataset, place))

    def _inflation(self, dataset: h5py.h5d.DatasetID, place: str, *, is_chunked: bool) -> None:
        item = dataset.get_type().get_size()
        logical = math.prod(dataset.shape or (1,)) * item
        stored = dataset.get_storage_size()
        if stored > self.size:
            msg = f'"{place}" claims {stored:,} bytes, more than the whole file has.'
            raise Refusal(msg, "Copy or download the file again.", code="damaged")
        in_table = place.startswith(("/obs/", "/var/", "/raw/var/"))
        is_matrix = place.startswith(_MATRICES) and not place.endswith("/indptr")
        harmless = _HARMLESS_COLUMN if in_table else _HARMLESS_CHUNK
        harmless = _LARGEST_MATRIX if is_matrix else harmless
        if logical > harmless and logical > _LARGEST_INFLATION * stored:
            self._refuse_inflation(place, logical, stored)
        if not is_chunked:
            return
        chunk = math.prod(dataset.get_create_plist().get_chunk()) * item
        if chunk > _LARGEST_CHUNK:
            msg = f'"{place}" has chunks of {chunk / 2**20:,.0f} MiB; at most 64 MiB are read.'
            raise Refusal(msg, _REWRITE, code="chunk_size")
        if chunk > _HARMLESS_CHUNK and not is_matrix and dataset.get_num_chunks():
            sizes = _ChunkSizes(dataset)
            dataset.chunk_iter(sizes)
            if chunk > _LARGEST_INFLATION * sizes.smallest:
                self._refuse_inflation(place, chunk, sizes.smallest)

    def _refuse_inflation(self, place: str, inflated: int, stored: float) -> None:
        msg = (
            f'"{place}" would inflate from {stored:,} to {inflated:,} bytes, '
            f"more than {_LARGEST_INFLATION} times."
        )
        hint = f"No real values shrink that much. Delete it, or: {_REWRITE}"
        if place.startswith(_MATRICES):
            hint = (
                "Save the matrix as a sparse one: adata.X = scipy.sparse.csr_matrix(adata.X), then "
                "adata.write_h5ad(path)."
            )
        raise Refusal(msg, hint, code="inflation")


class _ChunkSizes:
    """Find the smallest stored chunk, leaving out those at the edge that are mostly padding."""

    def __init__(self, dataset: h5py.h5d.DatasetID) -> None:
        self.shape = dataset.shape
        self.chunk = dataset.get_create_plist().get_chunk()
        self.smallest: float = math.inf

    def __call__(self, stored: h5py.h5d.StoreInfo) -> None:
        ends = zip(stored.chunk_offset, self.chunk, self.shape, strict=True)
        if all(start + step <= stop for start, step, stop in ends):
            self.smallest = min(self.smallest, stored.size)


def _refused_type(kind: h5py.h5t.TypeID) -> str | None:
    """Name what makes an HDF5 type unsafe, or None."""
    from h5py import h5t

    code = kind.get_class()
    if code in (h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM):
        return None
    if code == h5t.COMPOUND:
        members = (_refused_type(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
        return next((why for why in members if why), None)
    if code == h5t.ARRAY:
        return _refused_type(kind.get_super())
    return {
        h5t.OPAQUE: "opaque bytes",
        h5t.VLEN: "objects of varying length",
        h5t.REFERENCE: "object references",
    }.get(code, "values of an unknown type")
