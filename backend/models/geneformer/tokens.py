"""Geneformer's rank-value encoding: the genes of a cell by expression relative to their medians."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from backend.models.ragged import Ragged

__all__ = ["nonzero_medians", "rank_order", "rank_values"]

TARGET_SUM: Final = 10_000
MAX_MEDIAN_CELLS: Final = 20_000


def rank_values(entries: Ragged, n_counts: np.ndarray, medians: np.ndarray) -> np.ndarray:
    """Return count / n_counts × 10,000 / median of each entry, in float64.

    `medians` has one value a column. The factors are applied in the order of the reference.
    """
    with np.errstate(divide="ignore"):
        per_cell = np.repeat(1 / np.asarray(n_counts, dtype=np.float64), entries.lengths)
    return entries.values * per_cell * TARGET_SUM * (1 / medians)[entries.columns]


def rank_order(entries: Ragged, values: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the entries' order: by cell, then falling value, then rising token.

    The reference leaves ties to an unstable sort. Here values within 5e-13 of each other are one
    tie, so that rounding cannot decide, and tied genes come in the order of their tokens.
    """
    # The bits of positive floats sort as the floats do. With the lowest 11 bits cut, 12 bits
    # are free for the row, and one integer orders all cells of a block.
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
    falling = (np.uint64(2**63 - 1) - bits) >> np.uint64(11)
    key = (entries.rows().astype(np.uint64) << np.uint64(52)) | falling
    order = np.argsort(key)
    ordered = key[order]
    is_repeat = np.append(False, ordered[1:] == ordered[:-1])
    tied = np.flatnonzero(is_repeat | np.append(is_repeat[1:], False))
    if len(tied):
        group = np.cumsum(~is_repeat)[tied]
        order[tied] = order[tied][np.lexsort((tokens[order[tied]], group))]
    return order


def nonzero_medians(counts: sp.csr_matrix) -> np.ndarray:
    """Return each gene's median of count / total × 10,000 over the cells that express it.

    Genes without counts get 1. Above 20,000 cells every k-th cell is used.
    """
    counts = sp.csr_matrix(counts)[:: math.ceil(counts.shape[0] / MAX_MEDIAN_CELLS) or 1]
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    is_used = counts.data > 0
    share = counts.data * (TARGET_SUM / np.maximum(np.repeat(totals, np.diff(counts.indptr)), 1))
    genes, share = counts.indices[is_used], share[is_used]
    order = np.lexsort((share, genes))
    genes, share = genes[order], share[order]
    found, first, number = np.unique(genes, return_index=True, return_counts=True)
    medians = np.ones(counts.shape[1])
    medians[found] = (share[first + (number - 1) // 2] + share[first + number // 2]) / 2
    return medians
