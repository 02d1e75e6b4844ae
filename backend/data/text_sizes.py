"""Measure text in an HDF5 file before it is read.

A column of text holds one small reference per row to a heap. Many rows can share one huge text, so
that neither the file nor the column looks large and reading it still fills the memory. The length
stands in each reference; it is read here without touching the texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h5py
import numpy as np

from backend.data.problems import Refusal

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["LONGEST_TEXT", "check_attributes", "check_text"]

LONGEST_TEXT: Final = 4_096
_MEAN_LENGTH: Final = 512
_SPARE: Final = 1 << 20
_MOST_ATTRIBUTES: Final = 1_000
_LARGEST_ATTRIBUTE: Final = 1 << 20
"""Bytes of one attribute as it is stored; anndata lists the columns of a table in one."""
_ATTRIBUTES_READ: Final = (
    b"_index", b"shape", b"h5sparse_shape", b"encoding-type", b"encoding-version", b"h5sparse_format",
)  # fmt: skip

_SHORTEN: Final = "Shorten the texts or delete the column, and save again."
_REWRITE: Final = "Open the file with anndata and save it again."

# A reference of the HDF5 file format: length, then address and index in the global heap.
_REFERENCE: Final = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])


def check_text(dataset: h5py.h5d.DatasetID, place: str, path: str | os.PathLike[str]) -> None:
    """Refuse a column of text with rows above 4 KiB, or above 512 bytes on average.

    Texts of a fixed length take that length in every row.
    """
    kind = dataset.get_type()
    if not kind.is_variable_str():
        if kind.get_size() > LONGEST_TEXT:
            msg = f'"{place}" holds texts of {kind.get_size():,} bytes; at most {LONGEST_TEXT:,} are read.'
            raise Refusal(msg, _SHORTEN, code="text")
        return
    n = longest = total = 0
    for lengths in _lengths(dataset, path):
        n += len(lengths)
        if len(lengths):
            longest = max(longest, int(lengths.max()))
            total += int(lengths.sum(dtype=np.int64))
    if longest > LONGEST_TEXT or total > _MEAN_LENGTH * n + _SPARE:
        msg = (
            f'"{place}" holds texts of up to {longest:,} bytes, {total / 2**20:,.0f} MiB in all; '
            f"at most {LONGEST_TEXT:,} bytes a text and {_MEAN_LENGTH} on average are read."
        )
        raise Refusal(msg, _SHORTEN, code="text")


def check_attributes(node: h5py.h5g.GroupID | h5py.h5d.DatasetID, place: str) -> None:
    """Refuse attributes that are many or large; those that are read must be short."""
    n = h5py.h5a.get_num_attrs(node)
    if n > _MOST_ATTRIBUTES:
        msg = f'"{place or "/"}" has {n:,} attributes; at most {_MOST_ATTRIBUTES:,} are read.'
        raise Refusal(msg, _REWRITE, code="text")
    for number in range(n):
        attribute = h5py.h5a.open(node, index=number)
        name, kind = attribute.name, attribute.get_type()
        n_values = attribute.get_space().get_simple_extent_npoints()
        size = n_values * kind.get_size()
        if size > _LARGEST_ATTRIBUTE or len(name) > LONGEST_TEXT:
            msg = f'An attribute of "{place or "/"}" has {max(size, len(name)):,} bytes.'
            raise Refusal(msg, _REWRITE, code="text")
        if name in _ATTRIBUTES_READ and isinstance(kind, h5py.h5t.TypeStringID):
            longest = kind.get_size()
            if kind.is_variable_str() and n_values == 1:
                value = np.empty(attribute.shape, dtype=object)
                attribute.read(value)
                longest = len(value.item())
            if n_values != 1 or longest > LONGEST_TEXT:
                shown = name.decode("utf-8", "replace")
                msg = f'The attribute {shown} of "{place or "/"}" is a text of {longest:,} bytes.'
                raise Refusal(msg, _REWRITE, code="text")


def _lengths(dataset: h5py.h5d.DatasetID, path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    layout = dataset.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        yield from _chunked(dataset)
    elif layout == h5py.h5d.CONTIGUOUS:
        start = dataset.get_offset()
        if start is not None:
            size = dataset.get_storage_size() // _REFERENCE.itemsize
            yield np.fromfile(path, dtype=_REFERENCE, count=size, offset=start)["length"]
    else:
        # It lies in its header, where the lengths cannot be looked up before all is read.
        msg = "A text is stored in a compact way that is not read."
        raise Refusal(msg, _REWRITE, code="text")


def _chunked(dataset: h5py.h5d.DatasetID) -> Iterator[np.ndarray]:
    """Let HDF5 itself undo the filters, in a file in memory that holds one raw chunk at a time."""
    plist = dataset.get_create_plist()
    (per_chunk,) = plist.get_chunk()
    offsets: list[tuple[int, ...]] = []
    dataset.chunk_iter(lambda stored: offsets.append(stored.chunk_offset))
    # As bytes: HDF5 gives references an element size of 1, so that shuffling leaves them in place.
    plain = np.empty(_REFERENCE.itemsize * per_chunk, dtype=np.uint8)
    bare = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    bare.set_chunk(plain.shape)
    for number in range(plist.get_nfilters()):
        code, flags, values, _ = plist.get_filter(number)
        bare.set_filter(code, flags, values)
    with h5py.File.in_memory() as scratch:
        space = h5py.h5s.create_simple(plain.shape)
        twin = h5py.h5d.create(scratch.id, b"twin", h5py.h5t.NATIVE_UINT8, space, bare)
        for offset in offsets:
            mask, raw = dataset.read_direct_chunk(offset)
            twin.write_direct_chunk((0,), raw, mask)
            twin.read(h5py.h5s.ALL, h5py.h5s.ALL, plain)
            lengths = plain.view(_REFERENCE)["length"]
            rows = max(0, min(per_chunk, dataset.shape[0] - offset[0]))
            yield lengths[:rows].copy()
