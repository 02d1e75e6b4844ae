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

__all__ = ["LONGEST_TEXT", "check_text"]

LONGEST_TEXT: Final = 4_096
_MEAN_LENGTH: Final = 512
_SPARE: Final = 1 << 20

# A reference of the HDF5 file format: length, then address and index in the global heap.
_REFERENCE: Final = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])


def check_text(dataset: h5py.h5d.DatasetID, place: str, path: str | os.PathLike[str]) -> None:
    """Refuse a column of text with rows above 4 KiB, or above 512 bytes on average."""
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
        raise Refusal(msg, "Shorten the texts or delete the column, and save again.", code="text")


def _lengths(dataset: h5py.h5d.DatasetID, path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    layout = dataset.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        yield from _chunked(dataset)
    elif layout == h5py.h5d.CONTIGUOUS:
        start = dataset.get_offset()
        if start is not None:
            size = dataset.get_storage_size() // _REFERENCE.itemsize
            yield np.fromfile(path, dtype=_REFERENCE, count=size, offset=start)["length"]
    # A compact dataset lies in its header and has at most 64 KiB, or 4,096 references.


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
