"""Genes that separate two sets of cells, with donors as replicates where these allow it.

Each donor gives a pseudobulk of its failures and one of the others (Squair et al. 2021), and a
negative binomial model ~ donor + group (DESeq2: Love et al. 2014, as pydeseq2) asks which genes
differ within donors. With fewer than three such donors cells are compared by Wilcoxon's rank sum,
which says so: cells of a donor are not replicates.

A gene that separates is not a reason: the failures were chosen by a model that read these genes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from backend.evaluation.wording import plural

if TYPE_CHECKING:
    from backend.data.expression import Expression, GroupSums
    from backend.evaluation.genes.contrast import Contrast

__all__ = ["MIN_CELLS", "MIN_DONORS", "Separation", "separate"]

MIN_CELLS: Final = 10
"""Cells that a donor needs on both sides."""
MIN_DONORS: Final = 3
_MIN_COUNT: Final = 10
"""Counts of a gene over all pseudobulks below which it is not tested."""
_MIN_SHARE: Final = 0.1
"""Share of cells that express a gene, on one side at least, below which it is not tested."""
_CELLS_COMPARED: Final = (
    "Cells are compared instead, which are not replicates: p-values say nothing of other patients, and "
    "no q-value is given."
)
_MOST_RANKED: Final = 2_000
"""Cells of a side whose ranks are compared; more are drawn from."""
_COLUMNS: Final = (
    "gene",
    "log2_fold_change",
    "p_value",
    "q_value",
    "share_failures",
    "share_others",
    "mean_failures",
    "mean_others",
    "n_donors_same_sign",
)


@dataclass(frozen=True, eq=False)
class Separation:
    """What separates failures from other cells.

    table : by p-value; shares of cells with a count, means as counts per 10,000; no q-value and no
        donors' signs where cells were compared
    n_donors : with enough cells on both sides
    is_paired : whether donors were the replicates
    depth : median counts of a cell: failures, others
    """

    table: pd.DataFrame
    n_donors: int
    is_paired: bool
    is_depth_adjusted: bool
    depth: tuple[float, float]
    notes: tuple[str, ...]


def separate(
    expression: Expression,
    contrast: Contrast,
    donors: np.ndarray,
    n_counts: np.ndarray,
    *,
    adjust_for_depth: bool = False,
    seed: int = 0,
) -> Separation:
    """Return the genes that separate the two sides of a contrast.

    Parameters
    ----------
    expression
        Counts of the dataset, by gene.
    donors
        (n_cells,) code of each cell's donor, -1 where it is not known.
    n_counts
        (n_cells,) counts of each cell.
    adjust_for_depth
        Let the model explain by the cells' depth what it can before the groups do.
    seed
        Of the draw of cells whose ranks are compared.
    """
    side = np.where(contrast.is_failure, 1, np.where(contrast.is_reference, 0, -1))
    depth = tuple(float(np.median(n_counts[side == which])) for which in (1, 0))
    n_known = int(donors.max(initial=-1)) + 1
    groups = np.where((side >= 0) & (donors >= 0), 2 * donors + side, -1)
    sizes = np.bincount(groups[groups >= 0], minlength=2 * n_known).reshape(-1, 2)
    paired = np.flatnonzero((sizes >= MIN_CELLS).all(axis=1))
    both = expression.sums(side, 2)
    if len(paired) < MIN_DONORS:
        tested = _by_ranks(expression, side, n_counts, both, seed)
        few = f"{plural(len(paired), 'donor')} with {MIN_CELLS} cells on both sides"
        notes = [f"{few}, and {MIN_DONORS} are needed to compare donors. {_CELLS_COMPARED}"]
        sums = None
    else:
        place = np.full(n_known, -1)
        place[paired] = np.arange(len(paired))
        of = np.where(groups >= 0, place[donors], -1)
        sums = expression.sums(np.where(of >= 0, 2 * of + side, -1), 2 * len(paired))
        weights = _mean_depth(side, of, n_counts, len(paired)) if adjust_for_depth else None
        tested, notes = _by_donors(expression, sums, both, weights)
    place_of = {gene: place for place, gene in enumerate(expression.genes)}
    columns = np.array([place_of[gene] for gene in tested["gene"]], dtype=np.int64)
    shares = both.n_expressing[:, columns] / np.maximum(both.n_cells, 1)[:, None]
    means = 1e4 * both.counts[:, columns] / np.maximum(both.counts.sum(axis=1), 1)[:, None]
    changes = tested["log2_fold_change"].to_numpy()
    same_sign = np.nan if sums is None else _same_sign(sums, changes, columns)
    table = tested.assign(
        share_failures=shares[1],
        share_others=shares[0],
        mean_failures=means[1],
        mean_others=means[0],
        n_donors_same_sign=same_sign,
    )[list(_COLUMNS)]
    order = np.lexsort((table["gene"], -table["log2_fold_change"].abs(), table["p_value"]))
    return Separation(
        table=table.iloc[order].reset_index(drop=True),
        n_donors=len(paired),
        is_paired=len(paired) >= MIN_DONORS,
        is_depth_adjusted=adjust_for_depth and len(paired) >= MIN_DONORS,
        depth=(depth[0], depth[1]),
        notes=tuple(notes),
    )


def _is_tested(both: GroupSums) -> np.ndarray:
    """Say which genes enough cells of either side express: (n_genes,)."""
    shares = both.n_expressing / np.maximum(both.n_cells, 1)[:, None]
    return np.asarray((shares.max(axis=0) >= _MIN_SHARE) & (both.counts.sum(axis=0) >= _MIN_COUNT))


def _by_donors(
    expression: Expression, sums: GroupSums, both: GroupSums, depth: np.ndarray | None
) -> tuple[pd.DataFrame, list[str]]:
    """Test pseudobulks; rows of `sums` are donor 0 others, donor 0 failures, and so on."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    kept = np.flatnonzero(_is_tested(both) & (sums.counts.sum(axis=0) >= _MIN_COUNT))
    genes = [expression.genes[place] for place in kept]
    n = len(sums.counts)
    names = [f"sample {number}" for number in range(n)]
    samples = pd.DataFrame(
        {
            "donor": [f"donor{number // 2}" for number in range(n)],
            "group": ["failures" if number % 2 else "others" for number in range(n)],
        },
        index=names,
    )
    design = "~donor + group"
    if depth is not None:
        samples["depth"] = depth
        design = "~donor + depth + group"
    counts = pd.DataFrame(np.rint(sums.counts[:, kept]).astype(int), index=names, columns=genes)
    inference = DefaultInference(n_cpus=1)
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = DeseqDataSet(
            counts=counts, metadata=samples, design=design, refit_cooks=False, quiet=True,
            inference=inference,
        )  # fmt: skip
        fitted.deseq2()
        stats = DeseqStats(
            fitted, contrast=["group", "failures", "others"], quiet=True, inference=inference
        )
        stats.summary()
    if any("dispersion trend" in str(one.message) for one in caught):
        notes.append("Dispersions are around their mean: they had no trend with expression.")
    found = stats.results_df
    return pd.DataFrame(
        {
            "gene": genes,
            "log2_fold_change": found["log2FoldChange"].to_numpy(),
            "p_value": found["pvalue"].to_numpy(),
            "q_value": found["padj"].to_numpy(),
        }
    ), notes


def _mean_depth(
    side: np.ndarray, of: np.ndarray, n_counts: np.ndarray, n_donors: int
) -> np.ndarray:
    """Return the standardised log depth of the mean cell of each pseudobulk: (2 n_donors,)."""
    is_in = of >= 0
    rows = (2 * of + side)[is_in]
    logs = np.log(np.maximum(n_counts[is_in], 1))
    means = np.bincount(rows, logs, 2 * n_donors) / np.bincount(rows, minlength=2 * n_donors)
    return np.asarray((means - means.mean()) / max(float(means.std()), 1e-9))


def _same_sign(sums: GroupSums, changes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return how many donors differ in the direction of the fold change: (n_tested,)."""
    totals = np.maximum(sums.counts.sum(axis=1), 1)[:, None]
    shares = sums.counts[:, columns] / totals
    return np.asarray((np.sign(shares[1::2] - shares[::2]) == np.sign(changes)).sum(axis=0))


def _by_ranks(
    expression: Expression, side: np.ndarray, n_counts: np.ndarray, both: GroupSums, seed: int
) -> pd.DataFrame:
    """Compare counts per 10,000 of cells by Wilcoxon's rank sum."""
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(side == which) for which in (0, 1)]
    rows = [np.sort(rng.permutation(own)[:_MOST_RANKED]) for own in rows]
    kept = np.flatnonzero(_is_tested(both))
    p_values = np.ones(len(kept))
    scale = [1e4 / np.maximum(n_counts[own], 1) for own in rows]
    for number, counts in enumerate(expression.genes_in_order(kept)):
        others, failures = (counts[own] * by for own, by in zip(rows, scale, strict=True))
        p_values[number] = mannwhitneyu(failures, others, method="asymptotic").pvalue
    shares = both.counts / np.maximum(both.counts.sum(axis=1), 1)[:, None]
    tiny = 0.5 / np.maximum(both.counts.sum(axis=1), 1)[:, None]
    logs = np.log2(shares + tiny)
    return pd.DataFrame(
        {
            "gene": [expression.genes[place] for place in kept],
            "log2_fold_change": logs[1, kept] - logs[0, kept],
            "p_value": p_values,
            "q_value": np.full(len(kept), np.nan),
        }
    )
