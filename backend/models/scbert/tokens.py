"""What scBERT reads: the bin of every panel gene's logarithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from backend.models.gene_panel import row_totals

if TYPE_CHECKING:
    import scipy.sparse as sp

__all__ = ["MIN_GENES", "bin_counts", "counts_per_10k", "passes_gene_filter"]

MIN_GENES: Final = 200
"""The authors drop cells with fewer detected panel genes before training and prediction."""


def passes_gene_filter(aligned: sp.csr_matrix, min_genes: int = MIN_GENES) -> np.ndarray:
    """Return whether each cell has enough detected panel genes for the authors' filter."""
    return np.diff(aligned.indptr) >= min_genes


def counts_per_10k(aligned: sp.csr_matrix) -> sp.csr_matrix:
    """Scale each cell's panel counts to a sum of 10,000, in float64; empty cells stay empty."""
    scaled = aligned.astype(np.float64)
    totals = np.repeat(row_totals(aligned), np.diff(aligned.indptr))
    # One division of exact integers, so that a value on the edge of a bin stays on it.
    scaled.data = scaled.data * 1e4 / totals
    return scaled


def bin_counts(aligned: sp.csr_matrix, n_bins: int = 5) -> np.ndarray:
    """Return the bin (0 … n_bins) of each stored count, in the order of `aligned.data`.

    The bin is the whole part of log2(1 + counts per 10,000), cut at `n_bins`.
    """
    # The binary exponent is the whole part of log2, without the rounding of a logarithm.
    _, exponent = np.frexp(1 + counts_per_10k(aligned).data)
    return np.minimum(exponent - 1, n_bins)
