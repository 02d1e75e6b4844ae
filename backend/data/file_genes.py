"""Read the genes of a file: by the index of `var`, or by a column of it where that knows more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.columns import column_names, read_column, read_index
from backend.data.features import KIND_COLUMNS, kinds_of, undecorated
from backend.data.genes import is_known_gene, map_genes, strip_version
from backend.data.problems import Refusal, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import h5py

    from backend.data.genes import GeneMap
    from backend.data.matrix import Matrix

__all__ = ["map_file_genes", "n_known_genes", "share_known"]

_SYMBOL_COLUMNS: Final = (
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "feature_name",
    "symbol",
    "hgnc_symbol",
)
_ENSEMBL_COLUMNS: Final = (
    "ensembl",
    "ensembl_id",
    "ensembl_ids",
    "gene_ids",
    "gene_id",
    "feature_id",
)
_FEW_KNOWN: Final = 0.1
"""Below this share of known names any other column of text may hold the names."""


def share_known(names: Sequence[str] | np.ndarray) -> float:
    """Return the share (0–1) of names that are a human gene's."""
    return sum(map(is_known_gene, names)) / max(1, len(names))


def n_known_genes(file: h5py.File, table: str) -> int:
    """Return how many genes of `var` or `raw/var` are known."""
    try:
        return _mapped(file, table, [], any_genes=True).n_matched
    except Refusal:
        return 0


def map_file_genes(
    file: h5py.File, counts: Matrix, notes: list[str], *, any_genes: bool
) -> GeneMap:
    """Map the genes that a matrix has; `notes` gets what became of them."""
    table = "raw/var" if counts.name == "raw/X" else "var"
    genes = _mapped(file, table, notes, any_genes=any_genes)
    notes += _gene_notes(genes)
    return genes


def _mapped(file: h5py.File, table: str, notes: list[str], *, any_genes: bool) -> GeneMap:
    names = read_index(file, table)
    columns = column_names(file, table)
    ids = _text_column(file, table, _ENSEMBL_COLUMNS, columns)
    symbols = _text_column(file, table, _SYMBOL_COLUMNS, columns)
    if ids is not None and not any(strip_version(name) for name in ids[:200]):
        ids = None
    if symbols is not None:
        index_is_ids = bool(len(names)) and strip_version(names[0]) is not None
        if index_is_ids:
            ids = names if ids is None else ids
        if index_is_ids or share_known(names) < share_known(symbols):
            names = np.where(symbols == "", names, symbols)
    if not any_genes:
        names = np.array(_plain(names, notes), dtype=object)
        if ids is None and share_known(names) < _FEW_KNOWN:
            names = _best_column(file, table, columns, names, notes)
    kind_column = _text_column(file, table, KIND_COLUMNS, columns)
    kinds = None if kind_column is None else kinds_of(list(kind_column))
    if kinds is not None and not any(kinds):
        kinds = None
    return map_genes(
        list(names),
        None if ids is None else list(ids),
        kinds=None if kinds is None else list(kinds),
        any_genes=any_genes,
    )


def _plain(names: np.ndarray, notes: list[str]) -> list[str]:
    plain, decorations = undecorated(list(names), is_known_gene)
    if decorations:
        notes.append(f"Taken off the names of genes: {', '.join(decorations)}.")
    return plain


def _best_column(
    file: h5py.File, table: str, columns: list[str], names: np.ndarray, notes: list[str]
) -> np.ndarray:
    """Return the column of text that knows most genes, where it knows more than the index."""
    best, found, share = None, names, share_known(names)
    for column in columns:
        values = _text_column(file, table, (column,), columns)
        if values is None:
            continue
        plain = np.array(undecorated(list(values), is_known_gene)[0], dtype=object)
        if share_known(plain) > max(share, _FEW_KNOWN):
            best, found, share = column, plain, share_known(plain)
    if best is not None:
        shown = ", ".join(str(name) for name in names[:3])
        notes.append(
            f'Genes are named by the column "{best}" of `{table}`, because its index ({shown} …) '
            "names none."
        )
    return found


def _text_column(
    file: h5py.File, table: str, wanted: tuple[str, ...], columns: list[str]
) -> np.ndarray | None:
    name = next((name for name in wanted if name in columns), None)
    if name is None:
        return None
    try:
        column = read_column(file, table, name)
    except Refusal:
        # A column stored in a way that is not read is as good as none: the index is still there.
        return None
    values = column.astype(object)
    return values.where(values.notna(), "").astype(str).to_numpy(dtype=object)


def _gene_notes(genes: GeneMap) -> list[str]:
    n = genes.n_genes_in
    notes = []
    for kind, names in genes.left_out.items():
        notes.append(
            f"{len(names):,} rows of `var` are no genes ({kind}: {some(names, 3)}) and were left "
            "out everywhere."
        )
    if unknown := n - genes.n_matched:
        share = unknown / n
        notes.append(
            f"{unknown:,} of {n:,} genes ({share:.0%}) are not in GENCODE v44 and keep their "
            f"names ({some(genes.unmatched)} …)."
        )
    if genes.n_renamed:
        notes.append(f"{genes.n_renamed:,} genes got their current symbol.")
    if genes.n_summed:
        verb = " was" if genes.n_summed == 1 else "s were"
        notes.append(f"{genes.n_summed:,} gene{verb} summed with another of the same symbol.")
    return notes
