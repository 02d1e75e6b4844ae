"""Bring a count matrix to the fixed, ordered gene panel that a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp

from backend.errors import InputError
from backend.models.base import GeneReport
from backend.models.baselines.expression import MIN_CELLS, check_counts, log_cp10k, variable_genes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

__all__ = [
    "align_to_panel",
    "check_panel_input",
    "choose_panel",
    "find_file",
    "read_gene_list",
    "row_totals",
]

MIN_SHARE_MATCHED: Final = 0.05
"""Below this share of the genes that could match, the file is taken for another vocabulary."""


def align_to_panel(
    counts: sp.spmatrix, genes: Sequence[str], panel: Sequence[str]
) -> sp.csr_matrix:
    """Return the counts in panel order, (n_cells, n_panel) float32.

    Symbols match exactly. A panel gene that the data lack is zero, a gene outside the panel is
    dropped, and the first of several columns with one symbol counts. Indices come out sorted,
    without stored zeros.
    """
    counts = sp.csr_matrix(counts)
    names = pd.Index(genes)
    position = pd.Index(panel).get_indexer(names)
    position[names.duplicated()] = -1
    column = position[counts.indices]
    is_kept = (column >= 0) & (counts.data != 0)
    kept_before = np.concatenate([[0], np.cumsum(is_kept)])
    aligned = sp.csr_matrix(
        (
            counts.data[is_kept].astype(np.float32, copy=False),
            column[is_kept].astype(np.int32),
            kept_before[counts.indptr],
        ),
        shape=(counts.shape[0], len(panel)),
    )
    aligned.sort_indices()
    return aligned


def row_totals(counts: sp.csr_matrix) -> np.ndarray:
    """Return the sum of each row in float64, (n_cells,)."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def check_panel_input(adata: AnnData, panel: Sequence[str], *, display_name: str) -> GeneReport:
    """Refuse data that cannot be aligned, and count the genes that can.

    Raises
    ------
    InputError
        If values are not raw counts, symbols repeat, or (almost) no gene is in the panel.
    """
    check_counts(adata)
    genes = adata.var_names
    is_known = genes.isin(panel)
    n_matched = int(is_known.sum())
    possible = min(len(genes), len(panel))
    if n_matched == 0 or n_matched < MIN_SHARE_MATCHED * possible:
        msg = (
            f"Only {n_matched:,} of {len(genes):,} genes are in {display_name}'s panel of "
            f"{len(panel):,}. Found: {', '.join(map(str, genes[:5]))}."
        )
        hint = "Use human gene symbols (upper case) as gene names."
        if str(genes[0]).startswith("ENSG"):
            hint = "The file seems to use Ensembl ids; put gene symbols into `var_names`."
        raise InputError(msg, hint)
    absent = len(panel) - n_matched
    totals = row_totals(sp.csr_matrix(adata.X)[:, np.flatnonzero(is_known)])
    notes = []
    if absent:
        notes.append(f"{absent:,} of {len(panel):,} panel genes are not in the data: read as zero")
    if n_empty := int((totals == 0).sum()):
        notes.append(f"{n_empty:,} cells have no count in the panel")
    return GeneReport(
        n_genes=len(genes),
        n_matched=n_matched,
        n_vocabulary=len(panel),
        unmatched_examples=tuple(sorted(map(str, genes[~is_known]))[:5]),
        notes=tuple(notes),
    )


def choose_panel(train: AnnData, n_genes: int | None) -> tuple[str, ...]:
    """Return the genes that vary most over the training cells, in alphabetical order.

    Only genes detected in 10 training cells count, unless there are none; all when `n_genes` is
    None.
    """
    # By name, so that the order of the file's columns changes nothing.
    order = np.argsort(train.var_names.to_numpy().astype(str), kind="stable")
    counts = sp.csr_matrix(train.X)[:, order]
    n_cells = np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1])
    candidates = np.flatnonzero(n_cells >= MIN_CELLS)
    if len(candidates) == 0:
        candidates = np.arange(counts.shape[1])
    if n_genes is not None and n_genes < len(candidates):
        candidates = candidates[variable_genes(log_cp10k(counts)[:, candidates], n_genes)]
    return tuple(map(str, train.var_names[order[candidates]]))


def find_file(folder: Path, names: Sequence[str], pattern: str) -> Path | None:
    """Return the first of `names` in a folder, or the only file of another name like `pattern`."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob(pattern))
    if len(others) > 1:
        found = ", ".join(path.name for path in others[:5])
        msg = f"Several files could be `{names[0]}`. Found: {found}."
        raise InputError(msg, f"Keep one of them, or name the right one `{names[0]}`.")
    return others[0] if others else None


def read_gene_list(path: Path) -> tuple[str, ...]:
    """Return the symbols of a panel file, one a line (or the first of tab-separated columns).

    A header line `gene_name<tab>index` is skipped. Symbols keep trailing blanks: matching is exact.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        msg = f"`{path.name}` is not a text file ({error.reason})."
        raise InputError(msg, "Use the panel file of the model's authors.") from None
    rows = [line.rstrip("\r").split("\t")[0] for line in lines]
    if rows and rows[0] == "gene_name":
        rows = rows[1:]
    genes = tuple(row for row in rows if row)
    if not genes:
        msg = f"The gene panel `{path.name}` is empty."
        raise InputError(msg, "Use the panel file of the model's authors, one symbol a line.")
    if len(set(genes)) < len(genes):
        repeated = sorted(pd.Index(genes)[pd.Index(genes).duplicated()])
        msg = f"The gene panel `{path.name}` repeats symbols. Found: {', '.join(repeated[:5])}."
        raise InputError(msg, "Use the panel file of the model's authors; its symbols are unique.")
    return genes
