"""Matrices of an `.h5ad`: their layout, their values in pieces, what these are, and their logs."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from backend.data.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py
    from scipy.sparse import csr_matrix

__all__ = ["COUNTS_PLACES", "Matrix", "ValueSummary", "find_matrix", "log_cp10k"]

COUNTS_PLACES: Final = ("X", "layers/counts", "raw/X")
"""Where counts are looked for, in this order."""

SLAB_VALUES: Final = 2 << 20
_N_SAMPLES: Final = 64
_SAMPLE_ROWS: Final = 64
_LARGEST_COUNT: Final = 1 << 24  # float32 holds whole numbers exactly up to here


@dataclass(slots=True)
class ValueSummary:
    """What was seen among the values of a matrix.

    furthest : how far a value is from a whole number, at most 0.5
    is_rounded : values that are not whole will be rounded, if they are not on another scale
    scale : that of normalised values, where it was found out
    """

    n: int = 0
    n_nan: int = 0
    n_infinite: int = 0
    n_negative: int = 0
    n_fractional: int = 0
    largest: float = 0.0
    smallest: float = 0.0
    furthest: float = 0.0
    is_rounded: bool = False
    scale: str = ""

    def add(self, values: np.ndarray) -> None:
        """Take some more values into account."""
        if not values.size:
            return
        self.n += values.size
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                n_nan = int(np.isnan(values).sum())
                self.n_nan += n_nan
                self.n_infinite += int((~finite).sum()) - n_nan
                values = values[finite]
                if not values.size:
                    return
            distance = np.abs(values - np.rint(values))
            self.n_fractional += int(np.count_nonzero(distance))
            self.furthest = max(self.furthest, float(distance.max()))
        smallest, largest = float(values.min()), float(values.max())
        if smallest < 0:
            self.n_negative += int(np.count_nonzero(values < 0))
        self.smallest, self.largest = min(self.smallest, smallest), max(self.largest, largest)

    @property
    def problem(self) -> tuple[str, str] | None:
        """Code and description of the first reason why the values are no counts."""
        if self.n_nan or self.n_infinite:
            return "not_finite", f"{self.n_nan:,} NaN and {self.n_infinite:,} infinite values"
        if self.n_negative:
            return "negative", f"{self.n_negative:,} negative values (lowest {self.smallest:.4g})"
        if self.n_fractional and (self.scale or not self.is_rounded):
            return "not_counts", f"values that are not whole ({self.how_far()})"
        if self.largest == 0:
            return "no_counts", "zeros only"
        if self.largest > _LARGEST_COUNT:
            return "not_counts", f"values up to {self.largest:.4g}, too high for counts"
        return None

    def how_far(self) -> str:
        """Say how many values are not whole, how far at most, and how high they go."""
        share = self.n_fractional / max(1, self.n)
        return (
            f"{share:.1%} of those looked at, by up to {self.furthest:.2g}; "
            f"highest {self.largest:.4g}"
        )


@dataclass(slots=True)
class Matrix:
    """A cells × genes matrix that stays in its file.

    name : where it is ("X", "layers/counts", "raw/X")
    kind : how it is stored
    indptr : row or column starts of a sparse matrix; empty for a dense one
    is_rounded : rows are rounded to whole numbers as they are read
    """

    name: str
    kind: Literal["csr", "csc", "dense"]
    node: h5py.Group | h5py.Dataset
    shape: tuple[int, int]
    indptr: np.ndarray = field(repr=False)
    is_rounded: bool = False
    _by_row: Matrix | None = field(default=None, repr=False)
    _has_counts: np.ndarray | None = field(default=None, repr=False)

    @property
    def n_stored(self) -> int:
        """Number of stored values."""
        return int(self.indptr[-1]) if len(self.indptr) else self.shape[0] * self.shape[1]

    def sample(self, seed: int = 0) -> Iterator[np.ndarray]:
        """Yield the values of 64 seeded blocks of rows (columns of a column-wise matrix)."""
        rng = np.random.default_rng(seed)
        if self.kind == "dense":
            yield from self._sample_dense(rng)
            return
        data = self.node["data"]
        n = len(self.indptr) - 1
        starts = np.unique(rng.integers(0, max(1, n - _SAMPLE_ROWS + 1), _N_SAMPLES))
        for start in starts:
            low, high = self.indptr[start], self.indptr[min(n, start + _SAMPLE_ROWS)]
            yield data[low : min(high, low + SLAB_VALUES)]

    def _sample_dense(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Read whole rows where that is cheap, otherwise one tile of chunks a time."""
        n_cells, n_genes = self.shape
        rows, width = self.node.chunks or (1, n_genes)
        chunks_across = -(-n_genes // width)
        if rows * width * chunks_across > SLAB_VALUES:
            chunks_across = 1
        n_rows = min(_SAMPLE_ROWS, max(1, SLAB_VALUES // (width * chunks_across)))
        for row in np.unique(rng.integers(0, max(1, n_cells - n_rows + 1), _N_SAMPLES)):
            column = 0 if chunks_across > 1 else width * int(rng.integers(0, -(-n_genes // width)))
            yield self.node[row : row + n_rows, column : column + width * chunks_across].ravel()

    def slabs(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield all values in bounded pieces, with their gene (row-wise) or cell (column-wise)."""
        has_counts = np.zeros(self.shape[0], dtype=bool)
        if self.kind == "dense":
            for row, tile in self._tiles():
                has_counts[row : row + len(tile)] |= (tile != 0).any(axis=1)
                yield tile.ravel(), None
        else:
            data, indices = self.node["data"], self.node["indices"]
            for low in range(0, self.n_stored, SLAB_VALUES):
                values, positions = data[low : low + SLAB_VALUES], indices[low : low + SLAB_VALUES]
                yield values, positions
                # After the caller has checked the positions.
                if self.kind == "csc":
                    has_counts[positions[values != 0]] = True
            if self.kind == "csr":
                has_counts = np.diff(self.indptr) > 0
        self._has_counts = has_counts

    @property
    def n_empty_cells(self) -> int:
        """Cells without a stored value; known of all kinds once every value was read."""
        if self._has_counts is not None:
            return int((~self._has_counts).sum())
        return int((np.diff(self.indptr) == 0).sum()) if self.kind == "csr" else 0

    def _tiles(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield a dense matrix in tiles of whole chunks, each with its first row."""
        n_cells, n_genes = self.shape
        high, wide = self.node.chunks or (1, n_genes)
        across = wide * max(1, SLAB_VALUES // (high * wide))
        down = high * max(1, SLAB_VALUES // (high * min(across, n_genes)))
        for row in range(0, n_cells, down):
            for column in range(0, n_genes, across):
                yield row, self.node[row : row + down, column : column + across]

    def check_indices(self, indices: np.ndarray) -> None:
        """Refuse positions outside the matrix."""
        limit = self.shape[1] if self.kind == "csr" else self.shape[0]
        if len(indices) and (indices.min() < 0 or indices.max() >= limit):
            msg = f'"{self.name}" points to positions outside its {limit:,} {self._other_axis}.'
            raise Refusal(msg, "The file is damaged; write it again with anndata.", code="shape")

    @property
    def _other_axis(self) -> str:
        return "genes" if self.kind == "csr" else "cells"

    def rows(self, start: int, stop: int, *, as_stored: bool = False) -> csr_matrix:
        """Read some cells as float32 CSR with sorted genes, rounded where that was asked for."""
        counts = self._rows(start, stop)
        if self.is_rounded and not as_stored:
            np.rint(counts.data, out=counts.data)
        counts.eliminate_zeros()
        return counts

    def _rows(self, start: int, stop: int) -> csr_matrix:
        from scipy.sparse import csr_matrix, vstack

        stop = min(stop, self.shape[0])
        if self.kind == "dense":
            step = max(1, SLAB_VALUES // self.shape[1])
            parts = [
                csr_matrix(self.node[row : min(stop, row + step)].astype(np.float32))
                for row in range(start, stop, step)
            ]
            return vstack(parts, format="csr")
        if self.kind == "csc":
            if self._by_row is None:
                self._by_row = _transposed_on_disk(self)
            return self._by_row._rows(start, stop)
        low, high = int(self.indptr[start]), int(self.indptr[stop])
        indices = self.node["indices"][low:high]
        self.check_indices(indices)
        counts = csr_matrix(
            (
                self.node["data"][low:high].astype(np.float32),
                indices.astype(np.int32),
                self.indptr[start : stop + 1] - low,
            ),
            shape=(stop - start, self.shape[1]),
        )
        counts.sum_duplicates()
        return counts


def find_matrix(file: h5py.File, name: str, shape: tuple[int, int]) -> Matrix | None:
    """Return a matrix of the file, or None when it has none of this name.

    Raises
    ------
    Refusal
        If it is not laid out as a numeric matrix of `shape` (cells, genes).
    """
    import h5py

    if name not in file:
        return None
    node = file[name]
    if isinstance(node, h5py.Dataset):
        if node.shape is None or node.ndim != 2 or node.dtype.kind not in "iuf":
            msg = f'"{name}" is not a matrix of numbers (shape {node.shape}, type {node.dtype}).'
            raise Refusal(msg, "Write the file again with anndata.", code="shape")
        _check_shape(name, node.shape, shape)
        return Matrix(name, "dense", node, shape, np.empty(0, dtype=np.int64))
    kind = _sparse_kind(node)
    parts = {part: node.get(part) for part in ("data", "indices", "indptr")}
    if kind is None or not all(isinstance(part, h5py.Dataset) for part in parts.values()):
        msg = f'"{name}" is neither a dense nor a sparse matrix as anndata writes it.'
        raise Refusal(msg, "Write the file again with anndata.", code="shape")
    stated = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    stated = tuple(int(n) for n in np.atleast_1d(stated)) if stated is not None else ()
    _check_shape(name, stated, shape)
    for part, kinds in (("data", "iuf"), ("indices", "iu"), ("indptr", "iu")):
        if parts[part].ndim != 1 or parts[part].dtype.kind not in kinds:
            msg = f'"{name}/{part}" is not a list of numbers of the right type.'
            raise Refusal(msg, "The file is damaged; write it again with anndata.", code="shape")
    n_major, n_minor = shape if kind == "csr" else shape[::-1]
    if len(parts["indptr"]) != n_major + 1:
        msg = f'"{name}/indptr" has {len(parts["indptr"]):,} entries for {n_major:,} rows.'
        raise Refusal(msg, "The file is damaged; write it again with anndata.", code="shape")
    indptr = parts["indptr"][:].astype(np.int64)
    lengths = np.diff(indptr)
    n_values = len(parts["data"])
    if (
        indptr[0] != 0
        or indptr[-1] != n_values
        or len(parts["indices"]) != n_values
        or (len(lengths) and (lengths.min() < 0 or lengths.max() > n_minor))
    ):
        msg = (
            f'The parts of "{name}" do not fit: {n_values:,} values, '
            f"{len(parts['indices']):,} positions, row ends up to {int(indptr[-1]):,}."
        )
        raise Refusal(msg, "The file is damaged; write it again with anndata.", code="shape")
    return Matrix(name, kind, node, shape, indptr)


def log_cp10k(counts: csr_matrix) -> csr_matrix:
    """Return log(1 + counts per 10,000) of each cell; a cell without counts stays zero."""
    from scipy.sparse import csr_matrix

    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)
    expression = csr_matrix(
        (
            np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr))),
            counts.indices,
            counts.indptr,
        ),
        shape=counts.shape,
    )
    return expression.astype(np.float32)


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, int]) -> None:
    if tuple(found) == expected:
        return
    if tuple(found) == expected[::-1]:
        msg = (
            f'"{name}" is {found[0]:,} × {found[1]:,}, but there are {expected[0]:,} cells and '
            f"{expected[1]:,} genes: it is the wrong way round."
        )
        raise Refusal(msg, "Transpose it: cells are rows, genes are columns.", code="orientation")
    sizes = " × ".join(f"{n:,}" for n in found) or "of no stated shape"
    msg = f'"{name}" is {sizes}, but there are {expected[0]:,} cells and {expected[1]:,} genes.'
    raise Refusal(msg, "Write the file again with anndata.", code="shape")


def _sparse_kind(node: h5py.Group) -> Literal["csr", "csc"] | None:
    """Read the kind from today's attribute or the one that anndata wrote before 0.7."""
    stated = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    stated = stated.decode("utf-8", "replace") if isinstance(stated, bytes) else str(stated)
    if stated in ("csr_matrix", "csr"):
        return "csr"
    return "csc" if stated in ("csc_matrix", "csc") else None


class _Arrays(dict[str, np.ndarray]):
    """Stands for the group of a sparse matrix; its folder goes with it."""


def _transposed_on_disk(matrix: Matrix) -> Matrix:
    """Turn a column-wise matrix into a row-wise one on disk, with bounded memory."""
    n_cells = matrix.shape[0]
    per_cell = np.zeros(n_cells, dtype=np.int64)
    for _, cells in matrix.slabs():
        assert cells is not None
        matrix.check_indices(cells)
        per_cell += np.bincount(cells, minlength=n_cells)
    indptr = np.concatenate(([0], np.cumsum(per_cell)))
    arrays = _Arrays()
    folder = tempfile.mkdtemp(prefix="faultline-")
    weakref.finalize(arrays, shutil.rmtree, folder, ignore_errors=True)
    for name, kind in (("data", np.float32), ("indices", np.int32)):
        where = f"{folder}/{name}"
        arrays[name] = np.memmap(where, dtype=kind, mode="w+", shape=(max(1, matrix.n_stored),))
    free = indptr[:-1].copy()
    for number, (values, cells) in enumerate(matrix.slabs()):
        assert cells is not None
        first = number * SLAB_VALUES
        genes = (
            np.searchsorted(matrix.indptr, np.arange(first, first + len(values)), side="right") - 1
        )
        order = np.argsort(cells, kind="stable")
        sorted_cells = cells[order].astype(np.int64)
        starts = np.flatnonzero(np.diff(sorted_cells, prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        place = free[sorted_cells] + rank
        arrays["data"][place] = values[order]
        arrays["indices"][place] = genes[order]
        free[sorted_cells[starts]] += np.diff(starts, append=len(order))
    return Matrix(matrix.name, "csr", arrays, matrix.shape, indptr)
