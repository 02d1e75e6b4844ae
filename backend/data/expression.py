"""Counts of a dataset, gene by gene, on disk: one gene of many cells is read in a moment.

A folder `expression/` beside the table of cells holds them in chunks of `_BLOCK` cells × `_GROUP`
genes. A chunk is compressed by itself: the number of cells of each gene, these cells, their counts.
So one gene costs one chunk of each block, all genes cost one pass, and neither takes memory that
grows with the number of cells. Cells stand as in `cells.parquet`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import mmap
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse

from backend.errors import InputError, StoreError
from backend.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = [
    "FOLDER",
    "Expression",
    "ExpressionWriter",
    "GroupSums",
    "open_expression",
    "write_expression",
]

FOLDER: Final = "expression"
_HEAD: Final = "expression.json"
_COUNTS: Final = "counts.bin"
_STARTS: Final = "starts.npy"
_VERSION: Final = 1
# Small enough to be sorted in little memory; numbers of cells in a block fit two bytes.
_BLOCK: Final = 1 << 12
_GROUP: Final = 128
_LEVEL: Final = 3
_CHUNK_HEAD: Final = struct.Struct("<I?")
_SMALL, _ANY = "<u2", "<f4"
_AGAIN: Final = "Delete the folder and make it again: `python -m backend data attach`."
_NEAR: Final = 3
"""Names that are offered for one that is not there."""


class ExpressionWriter:
    """Takes counts cell by cell, and writes them gene by gene; see `write_expression`.

    Parameters
    ----------
    folder
        Empty; it is complete when `close` returns.
    genes
        Names of the columns, each once.
    """

    def __init__(self, folder: Path, genes: Sequence[str]) -> None:
        from pyarrow import Codec

        self.genes = tuple(map(str, genes))
        if len(set(self.genes)) != len(self.genes):
            msg = "Names of genes are not unique."
            raise InputError(msg, "Give each gene one name.")
        self._folder = folder
        self._codec = Codec("zstd", compression_level=_LEVEL)
        self._hash = hashlib.sha256()
        self._file = (folder / _COUNTS).open("wb")
        self._waiting: list[sparse.csr_matrix] = []
        self._n_waiting = 0
        self._n_cells = 0
        self._at = 0
        self._starts: list[list[int]] = []

    def add(self, counts: Any) -> None:
        """Take the next cells.

        Parameters
        ----------
        counts
            (n_cells, n_genes) numbers from 0 on, dense or sparse.
        """
        rows = sparse.csr_matrix(counts)
        for start in range(0, rows.shape[0], _BLOCK):
            part = rows[start : start + _BLOCK]
            while self._n_waiting + part.shape[0] >= _BLOCK:
                fits = _BLOCK - self._n_waiting
                self._keep(part[:fits])
                self._flush()
                part = part[fits:]
            if part.shape[0]:
                self._keep(part)

    def _keep(self, rows: sparse.csr_matrix) -> None:
        self._waiting.append(rows)
        self._n_waiting += rows.shape[0]

    def _flush(self) -> None:
        if not self._n_waiting:
            return
        n_cells, self._n_waiting = self._n_waiting, 0
        rows, self._waiting = sparse.vstack(self._waiting, format="csr"), []
        block = rows.tocsc()
        del rows
        block.sum_duplicates()
        block.eliminate_zeros()
        starts = []
        for first in range(0, len(self.genes), _GROUP):
            starts.append(self._at)
            piece = _packed(block[:, first : first + _GROUP], self._codec)
            self._file.write(piece)
            self._hash.update(piece)
            self._at += len(piece)
        self._starts.append([*starts, self._at])
        self._n_cells += n_cells

    def close(self) -> None:
        """Write what is left, and the head."""
        self._flush()
        self._file.close()
        n_groups = -(-len(self.genes) // _GROUP)
        np.save(
            self._folder / _STARTS, np.array(self._starts, dtype=np.int64).reshape(-1, n_groups + 1)
        )
        head = {
            "version": _VERSION,
            "n_cells": self._n_cells,
            "block": _BLOCK,
            "group": _GROUP,
            "sha256": self._hash.hexdigest(),
            "genes": list(self.genes),
        }
        write_text(self._folder / _HEAD, json.dumps(head, ensure_ascii=False) + "\n")


def write_expression(folder: Path, genes: Sequence[str], chunks: Iterable[Any]) -> None:
    """Fill an empty folder with the counts of cells in order.

    Parameters
    ----------
    chunks
        (n_cells, n_genes) counts each, dense or sparse.
    """
    writer = ExpressionWriter(folder, genes)
    for chunk in chunks:
        writer.add(chunk)
    writer.close()


@dataclass(frozen=True, slots=True)
class GroupSums:
    """What the cells of some groups hold of each gene.

    counts      : (n_groups, n_genes) float64 sums of counts
    n_expressing: (n_groups, n_genes) int64 cells with at least one count
    n_cells     : (n_groups,) int64
    """

    counts: np.ndarray = field(repr=False)
    n_expressing: np.ndarray = field(repr=False)
    n_cells: np.ndarray


class Expression:
    """Counts of a dataset, to be read by gene or summed by groups of cells.

    Parameters
    ----------
    folder
        What `write_expression` filled.

    Raises
    ------
    StoreError
        If the folder is damaged, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        from pyarrow import Codec

        self.folder = folder
        try:
            head = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
            if head["version"] != _VERSION:
                msg = f"The counts of genes are of version {head['version']}; {_VERSION} is read."
                raise StoreError(msg, _AGAIN)
            self.genes: tuple[str, ...] = tuple(head["genes"])
            self.n_cells = int(head["n_cells"])
            self.sha256 = str(head["sha256"])
            self._block, self._group = int(head["block"]), int(head["group"])
            self._starts = np.load(folder / _STARTS, mmap_mode="r", allow_pickle=False)
            with (folder / _COUNTS).open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"The counts of genes in `{folder.parent.name}` cannot be read."
            raise StoreError(msg, _AGAIN) from error
        expected = (-(-self.n_cells // self._block), -(-len(self.genes) // self._group) + 1)
        if self._starts.shape != expected or self._starts[-1, -1] != len(self._bytes):
            msg = f"The counts of genes in `{folder.parent.name}` are not whole."
            raise StoreError(msg, _AGAIN)
        self._codec = Codec("zstd")
        self._place = {gene: place for place, gene in enumerate(self.genes)}

    def place_of(self, gene: str) -> int:
        """Return the column of a gene; capitals do not matter where that is clear.

        Raises
        ------
        InputError
            If there is no such gene; the nearest names are offered.
        """
        wanted = gene.strip()
        if wanted in self._place:
            return self._place[wanted]
        if wanted.upper() in self._place:
            return self._place[wanted.upper()]
        near = difflib.get_close_matches(wanted.upper(), self.genes, n=_NEAR, cutoff=0.6)
        msg = f'There is no gene "{wanted[:40]}" among the {len(self.genes):,} of this dataset.'
        hint = f"Perhaps {' or '.join(near)}?" if near else "Give its symbol, such as CD34."
        raise InputError(msg, hint)

    def counts_of(self, gene: str) -> np.ndarray:
        """Return the counts of one gene: (n_cells,) float32, cells as in `cells.parquet`."""
        return next(self.genes_in_order([self.place_of(gene)]))

    def genes_in_order(self, places: Iterable[int]) -> Iterator[np.ndarray]:
        """Give the counts of one gene after another, (n_cells,) float32 each.

        Genes that lie together are read together.

        Parameters
        ----------
        places
            Columns, ascending.
        """
        read, chunks = -1, []
        for column in places:
            group, within = divmod(int(column), self._group)
            if group != read:
                read = group
                chunks = [self._chunk(block, group) for block in range(len(self._starts))]
            found = np.zeros(self.n_cells, dtype=np.float32)
            for block, (lengths, cells, counts) in enumerate(chunks):
                start = int(lengths[:within].sum())
                own = slice(start, start + int(lengths[within]))
                found[block * self._block + cells[own]] = counts[own]
            yield found

    def sums(self, groups: np.ndarray, n_groups: int) -> GroupSums:
        """Sum counts over groups of cells, as a pseudobulk needs them.

        Parameters
        ----------
        groups
            (n_cells,) number of each cell's group, below `n_groups`; -1 for none.
        """
        if len(groups) != self.n_cells:
            msg = f"{len(groups):,} cells are grouped, {self.n_cells:,} have counts."
            raise StoreError(msg, _AGAIN)
        n_genes = len(self.genes)
        counts = np.zeros((n_groups, n_genes))
        expressing = np.zeros((n_groups, n_genes), dtype=np.int64)
        for block in range(len(self._starts)):
            here = groups[block * self._block : (block + 1) * self._block]
            if not (here >= 0).any():
                continue
            for group in range(self._starts.shape[1] - 1):
                lengths, cells, values = self._chunk(block, group)
                first, n = group * self._group, len(lengths)
                of = here[cells]
                is_in = of >= 0
                bins = of[is_in] * n + np.repeat(np.arange(n), lengths)[is_in]
                shape, size = (n_groups, n), n_groups * n
                counts[:, first : first + n] += np.bincount(bins, values[is_in], size).reshape(
                    shape
                )
                expressing[:, first : first + n] += np.bincount(bins, minlength=size).reshape(shape)
        n_cells = np.bincount(groups[groups >= 0], minlength=n_groups)
        return GroupSums(counts, expressing, n_cells)

    def is_whole(self) -> bool:
        """Say whether the counts are those that were written."""
        return hashlib.sha256(self._bytes).hexdigest() == self.sha256

    def _chunk(self, block: int, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start, stop = int(self._starts[block, group]), int(self._starts[block, group + 1])
        piece = memoryview(self._bytes)[start:stop]
        n_genes = min(self._group, len(self.genes) - group * self._group)
        return _unpacked(piece, n_genes, self._codec)


def open_expression(dataset: Path) -> Expression | None:
    """Return the counts beside a table of cells, or None where there are none."""
    folder = dataset / FOLDER
    return Expression(folder) if (folder / _HEAD).is_file() else None


def _packed(part: sparse.csc_matrix, codec: Any) -> bytes:
    """Return a chunk: number and kind of its counts, then, compressed, genes, cells and counts.

    Cells are given as distances from the one before of the same gene, which are small.
    """
    lengths = np.diff(part.indptr)
    cells = part.indices.astype(np.int64)
    steps = np.diff(cells, prepend=0)
    first = part.indptr[:-1][lengths > 0]
    steps[first] = cells[first]
    values = part.data
    is_small = not values.size or bool((values == values.astype(np.uint16)).all())
    body = b"".join(
        array.tobytes()
        for array in (
            lengths.astype("<u4"), steps.astype("<u2"), values.astype(_SMALL if is_small else _ANY)
        )
    )  # fmt: skip
    return _CHUNK_HEAD.pack(len(values), is_small) + codec.compress(body, asbytes=True)


def _unpacked(
    piece: memoryview, n_genes: int, codec: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cells of each gene, their numbers within the block, and their counts."""
    n, is_small = _CHUNK_HEAD.unpack_from(piece)
    kind = np.dtype(_SMALL if is_small else _ANY)
    size = 4 * n_genes + n * (2 + kind.itemsize)
    body = codec.decompress(piece[_CHUNK_HEAD.size :], decompressed_size=size)
    lengths = np.frombuffer(body, "<u4", n_genes)
    steps = np.frombuffer(body, "<u2", n, 4 * n_genes)
    values = np.frombuffer(body, kind, n, 4 * n_genes + 2 * n)
    sums = np.concatenate([[0], np.cumsum(steps, dtype=np.int64)])
    starts = np.cumsum(lengths) - lengths
    return lengths, sums[1:] - np.repeat(sums[starts], lengths), values
