"""What scGPT reads: the expressed genes of a cell, each with the quantile bin of its value.

For one cell with values x, the n_bins - 1 edges are quantiles of x at equal steps. A value
between edges has one bin. A value that equals k edges may fall into any of k bins, and one is
drawn. Counts are small integers, so most values equal several edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.models.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CLS",
    "EOC",
    "PAD",
    "Bounds",
    "LogNormalise",
    "bin_bounds",
    "draw_bins",
    "log_normalise",
    "subsample",
    "with_zeros",
]

PAD, CLS, EOC = "<pad>", "<cls>", "<eoc>"

_TABLE: Final = 256
_HALF: Final = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where each value falls.

    below, upto : (n_entries,) int16, edges that are < and <= the value; the bin is in
                  below + 1 .. upto, or is `upto` when both are equal
    edges       : (n_cells, n_bins - 1) float64, zeros for a cell without values
    """

    below: np.ndarray
    upto: np.ndarray
    edges: np.ndarray

    @property
    def low(self) -> np.ndarray:
        """The lowest bin of each value."""
        return np.minimum(self.below + 1, self.upto)


@dataclass(frozen=True, slots=True)
class LogNormalise:
    """Counts to ln(1 + counts per target sum), float32; `per_target` is the scale of each cell."""

    per_target: np.ndarray

    def normed(self, cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the scaled counts of cells."""
        return counts / self.per_target[cells]

    def __call__(self, cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return ln(1 + scaled counts) of cells."""
        return np.log1p(self.normed(cells, counts))


def log_normalise(entries: Ragged, target_sum: float = 1e4) -> LogNormalise:
    """Return the transform that scales each cell to `target_sum` and takes ln(1 + x)."""
    counts = np.append(np.asarray(entries.values, dtype=np.float32), np.float32(0))
    totals = np.add.reduceat(counts, entries.indptr[:-1], dtype=np.float64)
    totals[entries.lengths == 0] = 0
    return LogNormalise((totals / target_sum).astype(np.float32))


def bin_bounds(
    entries: Ragged, n_bins: int, *, transform: Callable[..., np.ndarray] | None = None
) -> Bounds:
    """Find the bins that each entry may get, for all cells at once.

    A cell has few distinct counts, so that everything but the last look-up is done on its runs
    of equal counts. Edges are interpolated as `numpy.quantile` does, to the last bit.

    Parameters
    ----------
    transform
        Function of (cells, counts) that returns the float32 values to bin, rising with the counts
        of a cell; by default the counts themselves.
    """
    n_edges = n_bins - 1
    lengths, starts = entries.lengths, entries.indptr[:-1]
    edges = np.zeros((len(lengths), n_edges))
    if not len(entries.values):
        none = np.empty(0, np.int16)
        return Bounds(none, none, edges)
    cell, count, size, run_of_entry = _runs(entries)
    value = count if transform is None else transform(cell, count)

    ordered = np.repeat(value, size)
    has_values = lengths > 0
    position = np.linspace(0, 1, n_edges) * (lengths[has_values, None] - 1)
    before = np.floor(position)
    weight = position - before
    first = starts[has_values, None] + before.astype(np.int64)
    last = (starts + lengths - 1)[has_values, None]
    a, b = ordered[first], ordered[np.minimum(first + 1, last)]
    step = b - a
    edges[has_values] = np.where(weight < 0.5, a + step * weight, b - step * (1 - weight))

    # Counts that the transform rounds to one value are one run.
    is_new = np.append(True, (cell[1:] != cell[:-1]) | (value[1:] != value[:-1]))
    merged = np.cumsum(is_new) - 1
    ends = np.cumsum(size)
    run_end = ends[np.append(np.flatnonzero(is_new)[1:], len(size)) - 1] - 1
    run_start = (ends - size)[is_new]
    cell, value = cell[is_new], value[is_new]
    steps = np.maximum(lengths[cell] - 1, 1)
    guess_below = -((run_start - starts[cell]) * (1 - n_edges) // steps)
    guess_upto = (run_end - starts[cell]) * (n_edges - 1) // steps + 1
    guess_upto[lengths[cell] == 1] = n_edges
    # In exact arithmetic the guesses are right. Rounding can move the edge that meets a run's
    # end to either side of its value, so the edges next to the guesses are looked at.
    below = _correct(edges, cell, guess_below, value, np.less)
    upto = _correct(edges, cell, guess_upto, value, np.less_equal)
    of_entry = merged[run_of_entry]
    return Bounds(below[of_entry], upto[of_entry], edges)


def _runs(entries: Ragged) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return cell, count and size of each run of equal counts, and the run of each entry.

    Runs are ordered by cell, then count. Small whole counts are tallied in a table; the few
    others are sorted.
    """
    counts = np.ascontiguousarray(entries.values, dtype=np.float32)
    n_cells = len(entries.indptr) - 1
    rows = entries.rows()
    small = np.minimum(counts, _TABLE).astype(np.int64)
    slot = rows * _TABLE + small
    is_other = np.flatnonzero((small == _TABLE) | (small != counts))
    # The bits of positive floats sort as the floats do: one integer orders cells, then counts.
    key = (rows[is_other].astype(np.uint64) << _HALF) | counts[is_other].view(np.uint32)
    other_key, other_of = np.unique(key, return_inverse=True)
    slot[is_other] = n_cells * _TABLE + other_of
    tally = np.bincount(slot, minlength=n_cells * _TABLE + len(other_key))
    used = np.flatnonzero(tally)
    in_table = used[used < n_cells * _TABLE]
    table_counts = (in_table % _TABLE).astype(np.float32)
    table_key = ((in_table // _TABLE).astype(np.uint64) << _HALF) | table_counts.view(np.uint32)
    run_key = np.concatenate([table_key, other_key])
    order = np.argsort(run_key)
    run_of_slot = np.empty(len(tally), dtype=np.int64)
    run_of_slot[used[order]] = np.arange(len(used))
    run_key = run_key[order]
    return (
        (run_key >> _HALF).astype(np.int64),
        run_key.astype(np.uint32).view(np.float32),
        tally[used[order]],
        run_of_slot[slot],
    )


def _correct(
    edges: np.ndarray, cell: np.ndarray, guess: np.ndarray, value: np.ndarray, compare: np.ufunc
) -> np.ndarray:
    """Move each guessed number of edges that `compare` with the value by at most one."""
    n_edges = edges.shape[1]
    has_next = guess < n_edges
    more = has_next & compare(edges[cell, np.minimum(guess, n_edges - 1)], value)
    fewer = (guess > 0) & ~compare(edges[cell, np.maximum(guess - 1, 0)], value)
    return (guess + more - fewer).astype(np.int16)


def draw_bins(bounds: Bounds, uniform: np.ndarray) -> np.ndarray:
    """Turn numbers in [0, 1) into bins, (n_entries,) float32."""
    upto = bounds.upto.astype(np.float64)
    bins = np.ceil(uniform * (bounds.below - upto) + upto)
    # A number within rounding of 1 would fall one bin short.
    return np.maximum(bins, bounds.low).astype(np.float32)


def subsample(lengths: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Return which entries to keep: in each longer cell the `limit` with the lowest scores."""
    keep = np.ones(len(scores), dtype=bool)
    if not len(lengths) or lengths.max() <= limit:
        return keep
    is_long = np.repeat(lengths > limit, lengths)
    rows = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)[is_long]
    # 44 bits of the score order the entries of a cell; a block has fewer than 2**20 cells.
    key = (rows << np.uint64(44)) | (scores[is_long] * 2.0**44).astype(np.uint64)
    order = np.argsort(key)
    long_lengths = lengths[lengths > limit]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(long_lengths) - long_lengths, long_lengths)
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order] = rank < limit
    keep[is_long] = chosen
    return keep


def with_zeros(entries: Ragged, bins: np.ndarray, columns: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """Add an entry with bin 0 for each of `columns` (rising) that a cell does not express."""
    n_cells, n_genes = len(entries.indptr) - 1, len(columns)
    dense = np.zeros((n_cells, n_genes), dtype=np.float32)
    dense[entries.rows(), np.searchsorted(columns, entries.columns)] = bins
    indptr = np.arange(n_cells + 1, dtype=np.int64) * n_genes
    return Ragged(indptr, np.tile(columns, n_cells), dense.ravel()), dense.ravel()
