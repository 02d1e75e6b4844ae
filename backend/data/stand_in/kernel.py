"""The inner loop: draw each transcript of a cell from one of two programmes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.data.compiled import compiled

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Programmes", "draw_counts"]

_STEPS: Final = 8_192
"""Places where a search may start; about one for every two genes, so that it ends at once."""


class Programmes:
    """Shares of expression of each kind, made ready for drawing genes from them.

    Parameters
    ----------
    profiles
        (n_kinds, n_genes) positive; rows need not sum to 1.
    """

    def __init__(self, profiles: np.ndarray) -> None:
        self.reached = np.cumsum(profiles, axis=1, dtype=np.float64)
        self.reached /= self.reached[:, -1:]
        starts = np.arange(_STEPS) / _STEPS
        self.guide = np.stack(
            [np.searchsorted(row, starts, side="right") for row in self.reached]
        ).astype(np.int32)


def draw_counts(
    programmes: Programmes,
    kinds: np.ndarray,
    parents: np.ndarray,
    between: np.ndarray,
    totals: np.ndarray,
    rng: np.random.Generator,
) -> csr_matrix:
    """Draw counts (float32) of cells that lie between two kinds.

    The work grows with the transcripts, not with cells times genes: at 18,000 genes and 2,000
    transcripts most of a dense matrix would be drawn to be 0.

    Parameters
    ----------
    kinds, parents
        (n_cells,) rows of `programmes`: the own one and the other.
    between
        (n_cells,) share of transcripts that are drawn from the other, below 1.
    totals
        (n_cells,) transcripts of each cell.
    """
    from scipy.sparse import csr_matrix

    n_draws = int(totals.sum())
    genes = np.empty(n_draws, dtype=np.int32)
    counts = np.empty(n_draws, dtype=np.float32)
    row_ends = np.zeros(len(kinds) + 1, dtype=np.int64)
    luck = rng.random(n_draws)
    reached, guide = programmes.reached, programmes.guide
    arguments: tuple[Any, ...] = (reached, guide, kinds, parents, between, totals, luck)
    _draw(*arguments, genes, counts, row_ends)
    end = row_ends[-1]
    shape = (len(kinds), reached.shape[1])
    return csr_matrix((counts[:end], genes[:end], row_ends), shape=shape)


@compiled
def _draw(  # pragma: no cover - compiled
    reached: np.ndarray,
    guide: np.ndarray,
    kinds: np.ndarray,
    parents: np.ndarray,
    between: np.ndarray,
    totals: np.ndarray,
    luck: np.ndarray,
    genes: np.ndarray,
    counts: np.ndarray,
    row_ends: np.ndarray,
) -> None:
    n_genes, n_steps = reached.shape[1], guide.shape[1]
    seen = np.zeros(n_genes, dtype=np.int32)
    drawn, end = 0, 0
    for cell in range(len(kinds)):
        start, share = end, between[cell]
        for _ in range(totals[cell]):
            # One random number says whose programme it is and, by what is left of it, which gene.
            value = luck[drawn]
            drawn += 1
            if value < share:
                row, value = parents[cell], value / share
            else:
                row, value = kinds[cell], (value - share) / (1 - share)
            gene = guide[row, min(n_steps - 1, int(value * n_steps))]
            while gene < n_genes - 1 and reached[row, gene] <= value:
                gene += 1
            if seen[gene] == 0:
                genes[end] = gene
                end += 1
            seen[gene] += 1
        genes[start:end] = np.sort(genes[start:end])
        for place in range(start, end):
            counts[place] = seen[genes[place]]
            seen[genes[place]] = 0
        row_ends[cell + 1] = end
