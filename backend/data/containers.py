"""Open files of counts in the layouts that people have: AnnData, MuData, 10x.

A MuData file (`.h5mu`) holds an AnnData for each modality: the one of genes is read. A file of
Cell Ranger (`.h5`) holds no labels: its matrix is laid out as AnnData in a temporary file.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.data.problems import Refusal, some
from backend.data.safety import damage_refused, open_safely

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

__all__ = ["SUFFIXES", "opened"]

SUFFIXES: Final = (".h5ad", ".h5", ".h5mu")
_MODALITIES: Final = ("rna", "gex", "gene expression", "gene", "expression")
_TENX: Final = ("barcodes", "data", "indices", "indptr", "shape", "features")


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[h5py.Group, tuple[str, ...]]]:
    """Open a file safely and give the group that is laid out as AnnData, with notes on it.

    Raises
    ------
    Refusal
        If the file is unsafe, or no modality of it holds genes.
    """
    path = Path(path)
    with open_safely(path) as file:
        if "mod" in file and "X" not in file:
            name = _modality(file)
            note = f'The file is MuData: its modality "{name}" was read, and its columns of cells.'
            yield file["mod"][name], (note,)
        elif "matrix" in file and all(part in file["matrix"] for part in _TENX):
            with tempfile.TemporaryDirectory(prefix="faultline-") as folder:
                plain = Path(folder) / "cells.h5ad"
                with damage_refused(path.name):
                    _lay_out(file["matrix"], plain)
                with open_safely(plain) as laid_out:
                    yield laid_out, ("The file is of Cell Ranger: it holds counts and no labels.",)
        else:
            yield file, ()


def _modality(file: h5py.File) -> str:
    names = list(file["mod"])
    for wanted in _MODALITIES:
        for name in names:
            if name.casefold() == wanted:
                return str(name)
    msg = f"No modality of the MuData file holds genes by its name. Found: {some(names)}."
    hint = 'Name it "rna", or save it alone: mdata["…"].write_h5ad(path).'
    raise Refusal(msg, hint, code="not_anndata")


def _lay_out(matrix: h5py.Group, path: Path) -> None:
    """Write the matrix of Cell Ranger as AnnData; its columns are cells, so they become rows."""
    import h5py

    n_genes, n_cells = (int(n) for n in matrix["shape"][:])
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        counts = file.create_group("X")
        counts.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        counts.attrs["shape"] = (n_cells, n_genes)
        for part in ("data", "indices", "indptr"):
            matrix.copy(part, counts)
        features = matrix["features"]
        tables = {"obs": {"_index": matrix["barcodes"]}, "var": {"_index": features["name"]}}
        tables["var"] |= {
            new: features[old]
            for new, old in (("gene_ids", "id"), ("feature_types", "feature_type"))
            if old in features
        }
        for table, columns in tables.items():
            group = file.create_group(table)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            group.attrs["_index"] = "_index"
            for name, column in columns.items():
                column.file.copy(column, group, name)
