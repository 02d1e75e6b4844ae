"""What Geneformer reads: the genes of a cell, ranked by expression relative to their medians."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import scipy.sparse as sp

from backend.models.ragged import Ragged, known_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "CLS",
    "EOS",
    "MASK",
    "PAD",
    "SPECIAL",
    "Dictionaries",
    "Genes",
    "entries_of",
    "nonzero_medians",
    "rank",
    "rank_order",
    "rank_values",
]

PAD, MASK, CLS, EOS = "<pad>", "<mask>", "<cls>", "<eos>"
SPECIAL: Final = (PAD, MASK, CLS, EOS)

TARGET_SUM: Final = 10_000
MAX_MEDIAN_CELLS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Dictionaries:
    """What Geneformer knows of genes.

    tokens      : gene id or special token to token
    medians     : gene id to its median of counts per 10,000 where expressed, for each gene
    current_ids : id in upper case to current id; empty means that ids are taken as they are
    paths       : the files that they were read from
    """

    tokens: dict[str, int]
    medians: dict[str, float]
    current_ids: dict[str, str]
    paths: tuple[Path, ...] = ()

    @property
    def uses_ensembl(self) -> bool:
        """Whether genes are named by Ensembl ids."""
        return sum(gene.startswith("ENS") for gene in self.medians) > len(self.medians) / 2

    def tokens_of(self, ids: Iterable[str]) -> np.ndarray:
        """Return the token of each gene id, -1 for unknown ones."""
        if self.current_ids:
            ids = (self.current_ids.get(gene.upper(), "") for gene in ids)
        return np.array(
            [-1 if gene in SPECIAL else self.tokens.get(gene, -1) for gene in ids], dtype=np.int64
        )

    def medians_of(self, tokens: np.ndarray) -> np.ndarray:
        """Return the median of each token, 1 for special and unknown ones."""
        by_token = np.ones(len(self.tokens) + 1)
        for gene, median in self.medians.items():
            by_token[self.tokens[gene]] = median
        return by_token[tokens]

    def count_aliases(self, ids: Sequence[str]) -> int:
        """Count the ids that are known only under another, current id."""
        if not self.current_ids:
            return 0
        return sum(
            gene.upper() not in self.tokens and self.current_ids.get(gene.upper()) in self.tokens
            for gene in ids
        )


@dataclass(frozen=True, slots=True)
class Genes:
    """Token (-1 when unknown) and median of each column, after `summing` columns of one token."""

    tokens: np.ndarray
    medians: np.ndarray
    summing: sp.csr_matrix | None


def entries_of(counts: sp.csr_matrix, genes: Genes) -> Ragged:
    """Return the counts of known genes, those of one token summed."""
    if genes.summing is not None:
        counts = sp.csr_matrix(counts @ genes.summing)
    return known_entries(counts, genes.tokens >= 0)


def rank(counts: sp.csr_matrix, genes: Genes, n_counts: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """Return each cell's genes by falling value: (tokens and counts, values in float64)."""
    entries = entries_of(counts, genes)
    values = rank_values(entries, n_counts, genes.medians)
    tokens = genes.tokens[entries.columns]
    order = rank_order(entries, values, tokens)
    ranked = Ragged(entries.indptr, tokens[order].astype(np.int32), entries.values[order])
    return ranked, values[order]


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
