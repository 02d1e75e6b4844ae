"""Check whether a file can be used: quickly by samples, or fully by reading every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.data.columns import column_names, index_slices, read_column, read_index, table_length
from backend.data.genes import GeneMap, gene_table, map_genes, strip_version
from backend.data.h5ad import OpenDataset
from backend.data.matrix import COUNTS_PLACES, Matrix, ValueSummary, find_matrix
from backend.data.problems import Refusal, some
from backend.data.roles import PURPOSES, Roles, guess_roles
from backend.data.writer import ABOUT_FIELDS
from backend.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import h5py

__all__ = ["examine"]

_SYMBOL_COLUMNS: Final = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name")
_ENSEMBL_COLUMNS: Final = ("ensembl", "ensembl_id", "gene_ids", "gene_id", "feature_id")


def examine(
    path: Path, file: h5py.File, roles: Roles | None, *, purpose: str, seed: int
) -> OpenDataset:
    """Check all but the bulk of the values of an opened file."""
    notes: list[str] = []
    n_cells, n_genes = table_length(file, "obs"), table_length(file, "var")
    roles = _roles(file, roles, purpose)
    counts = _find_counts(file, roles, n_cells, n_genes, seed)
    table = "raw/var" if counts.name == "raw/X" else "var"
    genes = _map_file_genes(file, table, notes)
    return OpenDataset(
        path, file, n_cells, counts.shape[1], counts, genes, roles, _about(path, file), notes
    )


def _roles(file, roles, purpose):
    columns = column_names(file, "obs")
    return roles or guess_roles(columns)


def _find_counts(file, roles, n_cells, n_genes, seed):
    for name in COUNTS_PLACES:
        shape = (
            (n_cells, table_length(file, "raw/var"))
            if name == "raw/X" and name in file
            else (n_cells, n_genes)
        )
        matrix = find_matrix(file, name, shape)
        if matrix is None:
            continue
        seen = ValueSummary()
        for block in matrix.sample(seed):
            seen.add(block)
        if seen.are_counts:
            return matrix
    raise Refusal("not_counts", "no counts", "")


def _map_file_genes(file, table, notes):
    names = read_index(file, table)
    columns = column_names(file, table)
    ens = next((c for c in _ENSEMBL_COLUMNS if c in columns), None)
    ids = None if ens is None else [str(x) for x in read_column(file, table, ens)]
    return map_genes([str(n) for n in names], ids)


def _about(path: Path, file: h5py.File) -> dict[str, Any]:
    about = {
        "name": path.stem,
        "simulated": False,
        "source": "file",
        "citation": None,
        "licence_note": None,
        "parent": None,
    }
    group = file.get("uns/faultline")
    if group is not None:
        for name in ABOUT_FIELDS:
            if name in group:
                v = group[name][()]
                v = (
                    v.decode()
                    if isinstance(v, bytes)
                    else bool(v)
                    if isinstance(v, np.bool_)
                    else v
                )
                about[name] = None if v == "" else v
    return about
