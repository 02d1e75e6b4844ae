"""64-bit fingerprints of cells: equal for cells with the same genes and counts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["cell_fingerprints"]

# Multipliers of the splitmix64 finaliser (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def cell_fingerprints(adata: AnnData) -> np.ndarray:
    """Hash the set of (gene, count) pairs of every cell.

    Parameters
    ----------
    adata
        `X` holds raw counts, `var_names` the genes.

    Returns
    -------
    (n_cells,) uint64. The order of genes does not matter and genes without counts do not either,
    so the same cell in two files has one fingerprint.
    """
    counts = sparse.csr_matrix(adata.X)
    genes = _gene_hashes(adata.var_names)
    with np.errstate(over="ignore"):
        pairs = _mix(genes[counts.indices] ^ _mix(counts.data.astype(np.uint64)))
    pairs[counts.data == 0] = 0
    # Sums modulo 2^64 do not depend on the order of the pairs.
    totals = np.concatenate([[np.uint64(0)], np.cumsum(pairs, dtype=np.uint64)])
    with np.errstate(over="ignore"):
        return totals[counts.indptr[1:]] - totals[counts.indptr[:-1]]


def _gene_hashes(genes: Sequence[str]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(str(g).encode(), digest_size=8).digest() for g in genes)
    return np.frombuffer(digests, dtype="<u8")


def _mix(values: np.ndarray) -> np.ndarray:
    """Scatter 64-bit values (finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
