"""Rows of different lengths as one long array: what tokenisation works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import scipy.sparse as sp

from backend.errors import InputError
from backend.models.base import TokenStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from anndata import AnnData

__all__ = ["Block", "Ragged", "blocks", "join", "known_entries", "pad"]

BLOCK_CELLS: Final = 512
"""Cells that are sorted together: few enough for the processor's cache and for 12-bit row keys."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Entries of many cells; cell i owns `indptr[i]:indptr[i + 1]`.

    indptr  : (n_cells + 1,) int64
    columns : (n_entries,) int32, column of the matrix that an entry comes from
    values  : (n_entries,) any number type, never zero
    """

    indptr: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Entries of each cell."""
        return np.diff(self.indptr)

    def rows(self) -> np.ndarray:
        """Return the cell of each entry."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.lengths)


@dataclass(frozen=True, slots=True)
class Block:
    """Some cells of a chunk. `genes` is what a model derived from the chunk's genes, once."""

    cells: AnnData
    rows: slice
    counts: sp.csr_matrix
    genes: Any

    def cell_ids(self) -> Sequence[str]:
        """Return the ids of the cells."""
        return self.cells.obs_names[self.rows]


def blocks(
    chunks: Iterable[AnnData], read_genes: Callable[[AnnData], Any], size: int = BLOCK_CELLS
) -> Iterator[Block]:
    """Cut chunks into blocks of at most `size` cells, in order.

    `read_genes` is called once a chunk, or once for chunks in a row with the same table of genes.
    """
    var, genes = None, None
    for chunk in chunks:
        if var is None or not var.equals(chunk.var):
            var, genes = chunk.var, read_genes(chunk)
        counts = sp.csr_matrix(chunk.X)
        for start in range(0, chunk.n_obs, size):
            rows = slice(start, min(start + size, chunk.n_obs))
            yield Block(chunk, rows, counts[rows], genes)


def known_entries(counts: sp.csr_matrix, is_known: np.ndarray) -> Ragged:
    """Return the non-zero entries of known genes, in the order of the matrix.

    Raises
    ------
    InputError
        If an entry is negative or not finite.
    """
    counts = sp.csr_matrix(counts)
    counts.sum_duplicates()
    is_kept = is_known[counts.indices] & (counts.data != 0)
    kept_before = np.concatenate([[0], np.cumsum(is_kept, dtype=np.int64)])
    values = counts.data[is_kept]
    if values.size and not (np.isfinite(values).all() and values.min() > 0):
        msg = "`X` holds negative values or values that are not finite."
        raise InputError(msg, "Use raw counts.")
    return Ragged(kept_before[counts.indptr], counts.indices[is_kept].astype(np.int32), values)


def join(stores: Iterable[TokenStore]) -> TokenStore:
    """Put the cells of several stores into one, in order."""
    stores = list(stores)
    lengths = [np.diff(store.indptr) for store in stores]
    indptr = np.concatenate([[0], *lengths]).astype(np.int64).cumsum()
    names = stores[0].extra if stores else {}
    return TokenStore(
        indptr=indptr,
        ids=np.concatenate([np.empty(0, np.int32), *(store.ids for store in stores)]),
        values=np.concatenate([np.empty(0, np.float32), *(store.values for store in stores)]),
        extra={name: np.concatenate([store.extra[name] for store in stores]) for name in names},
    )


def pad(rows: Sequence[np.ndarray], fill: float, dtype: type) -> np.ndarray:
    """Return rows as one (n_rows, longest) array, filled up to the right."""
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    padded: np.ndarray = np.full((len(rows), int(lengths.max(initial=0))), fill, dtype=dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(rows) if len(rows) else 0
    return padded
