"""What a dataset is: its id from its content, its facts, and the table of its cells."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.data.labels import not_labelled
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd
    from anndata import AnnData

__all__ = [
    "CELLS_COLUMNS",
    "DatasetInfo",
    "cells_and_neighbours",
    "cells_table",
    "describe",
    "describe_chunks",
]

CELLS_COLUMNS: Final = (
    "cell_id",
    "cell_type_fine",
    "cell_type_lineage",
    "timepoint",
    "donor",
    "study",
    "sample",
    "day",
    "label_source",
    "genotype",
    "is_malignant",
    "n_counts",
    "n_genes",
    "umap_x",
    "umap_y",
)
"""Columns of `cells.parquet`, in order."""

_HASHED_COLUMNS: Final = (
    "cell_type_fine",
    "timepoint",
    "donor",
    "study",
    "sample",
    "day",
    "label_source",
    "genotype",
    "is_malignant",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """Facts about a dataset, as in `dataset.json`.

    `dataset_id` is the first 16 hex digits of a sha256 over cell ids, genes, counts and role
    columns: it does not depend on how the file was written.
    """

    dataset_id: str
    name: str
    simulated: bool
    source: str | None
    citation: str | None
    licence_note: str | None
    hashes: Mapping[str, str] = field(repr=False)
    parent: str | None
    n_cells: int
    n_donors: int
    n_genes: int
    timepoints: tuple[str, ...]
    not_labelled: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        return values | {
            "hashes": dict(self.hashes),
            "timepoints": list(self.timepoints),
            "not_labelled": list(self.not_labelled),
        }


def describe(adata: AnnData) -> DatasetInfo:
    """Return the facts about a dataset in the layout that `load` returns."""
    return describe_chunks([adata])


def describe_chunks(chunks: Iterable[AnnData]) -> DatasetInfo:
    """Return the facts about a dataset that is read in pieces.

    The result does not depend on the size of the pieces.
    """
    parts = ("cells", "lengths", "indices", "values", *_HASHED_COLUMNS)
    hashers = {name: hashlib.sha256() for name in parts}
    genes_hash, about, n_genes, n_cells = hashlib.sha256(b""), {}, 0, 0
    donors: set[str] = set()
    timepoints: set[str] = set()
    labels: set[str] = set()
    for number, chunk in enumerate(chunks):
        if number == 0:
            genes_hash.update(_joined(chunk.var_names))
            about, n_genes = dict(chunk.uns.get("faultline", {})), chunk.n_vars
        n_cells += chunk.n_obs
        hashers["cells"].update(_joined(chunk.obs_names))
        for name, array in _counts_parts(chunk):
            hashers[name].update(array)
        for name in _HASHED_COLUMNS:
            hashers[name].update(_column_bytes(chunk.obs[name]))
        donors.update(chunk.obs["donor"].dropna().unique())
        timepoints.update(chunk.obs["timepoint"].dropna().unique())
        labels.update(chunk.obs["cell_type_fine"].dropna().unique())
    digests = {name: hasher.hexdigest() for name, hasher in hashers.items()}
    hashes = {
        "genes": genes_hash.hexdigest(),
        "cells": digests["cells"],
        "counts": _combined(digests[name] for name in ("lengths", "indices", "values")),
        "roles": _combined(digests[name] for name in _HASHED_COLUMNS),
    }
    return DatasetInfo(
        dataset_id=_combined(hashes[name] for name in sorted(hashes))[:16],
        name=about.get("name") or "unnamed",
        simulated=bool(about.get("simulated", False)),
        source=about.get("source") or None,
        citation=about.get("citation") or None,
        licence_note=about.get("licence_note") or None,
        hashes=hashes,
        parent=about.get("parent") or None,
        n_cells=n_cells,
        n_donors=len(donors),
        n_genes=n_genes,
        timepoints=tuple(name for name in TIMEPOINTS if name in timepoints),
        not_labelled=not_labelled(labels),
    )


def cells_table(adata: AnnData) -> pd.DataFrame:
    """Return the table of cells as it is kept in `cells.parquet`, without their coordinates.

    Parameters
    ----------
    adata
        In the layout that `load` returns.

    Returns
    -------
    The columns of `CELLS_COLUMNS`, one row per cell in the order of `adata`. Text is plain str or
    None, `umap_x` and `umap_y` are NaN.
    """
    import pandas as pd

    obs = adata.obs
    table = pd.DataFrame({"cell_id": adata.obs_names.to_numpy(dtype=object)})
    for name in CELLS_COLUMNS[1:-2]:
        values = obs[name].array
        if isinstance(values, pd.Categorical):
            values = pd.Categorical(values).astype(object)
            values = np.where(pd.isna(values), None, values)
        table[name] = values
    for name in CELLS_COLUMNS[-2:]:
        table[name] = np.full(len(table), np.nan, dtype=np.float32)
    return table


def cells_and_neighbours(
    adata: AnnData,
    seed: int = 0,
    *,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the table of cells with their map, and the nearest cells of each cell.

    Parameters
    ----------
    progress
        Called with the share done and what is done now: many cells take minutes.

    Returns
    -------
    cells
        As `cells_table` returns them, with coordinates for display only.
    neighbours
        (n_cells, 15) int32 row numbers, see `backend.data.cell_map.nearest_cells`.
    """
    from backend.data.cell_map import components_of, map_components, part_of

    cells = cells_table(adata)
    components = components_of(adata, seed=seed, progress=part_of(progress, 0.0, 0.2))
    found = map_components(
        components, cells["donor"].to_numpy(), seed=seed, progress=part_of(progress, 0.2, 1.0)
    )
    cells["umap_x"], cells["umap_y"] = found.coordinates.T
    return cells, found.neighbours


def _counts_parts(chunk: AnnData) -> list[tuple[str, bytes]]:
    from scipy.sparse import csr_matrix

    counts = csr_matrix(chunk.X, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return [
        ("lengths", np.diff(counts.indptr).astype("<i8").tobytes()),
        ("indices", counts.indices.astype("<i4").tobytes()),
        ("values", counts.data.astype("<f4").tobytes()),
    ]


def _joined(names: Iterable[str]) -> bytes:
    return "".join(f"{len(str(name))}:{name}\n" for name in names).encode()


def _column_bytes(values: pd.Series) -> bytes:
    """Write each value as text and missing ones apart, however the column is stored."""
    plain = values.astype(object)
    return "".join(
        "-\n" if missing else f"={value}\n"
        for value, missing in zip(plain, values.isna(), strict=True)
    ).encode()


def _combined(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
