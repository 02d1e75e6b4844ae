"""Open an `.h5ad` safely and read it: whole, or in chunks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.data.genes import GeneMap, map_genes, strip_version
from backend.data.matrix import COUNTS_PLACES, Matrix, ValueSummary, find_matrix
from backend.data.problems import Problem, Refusal, some
from backend.data.roles import PURPOSES, Roles, guess_roles
from backend.data.safety import open_safely
from backend.data.writer import ABOUT_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py
    import numpy as np
    import pandas as pd
    from anndata import AnnData

__all__ = ["OpenDataset", "load", "open_dataset", "read_chunks"]

_SYMBOL_COLUMNS: Final = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name")
_ENSEMBL_COLUMNS: Final = ("ensembl", "ensembl_id", "gene_ids", "gene_id", "feature_id")


@dataclass(slots=True)
class OpenDataset:
    """An `.h5ad` whose layout was found fit for use; its values are still in the file.

    counts : the matrix that holds counts
    genes : how its columns become genes
    roles : column of each role
    notes : what a user should know, though the file is usable
    """

    path: Path
    file: h5py.File = field(repr=False)
    n_cells: int
    n_genes_in_file: int
    counts: Matrix
    genes: GeneMap = field(repr=False)
    roles: Roles
    about: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def obs(self) -> pd.DataFrame:
        """Return the role columns of all cells in the layout of the data contract, unnamed rows."""
        from functools import partial

        from backend.data.columns import read_column
        from backend.data.layout import standard_obs

        read = partial(read_column, self.file, "obs")
        return standard_obs(read, self.roles, self.n_cells, self.notes)

    def anndata(self, start: int, stop: int, obs: pd.DataFrame) -> AnnData:
        """Read some cells; `obs` is what `obs()` returned."""
        import anndata as ad
        import pandas as pd

        from backend.data.columns import read_index
        from backend.data.layout import add_totals

        stop = min(stop, self.n_cells)
        counts = self.genes.apply(self.counts.rows(start, stop))
        seen = ValueSummary()
        seen.add(counts.data)
        if seen.problem is not None and seen.problem[0] != "no_counts":
            raise _values_refusal(self.counts.name, seen)
        obs = obs.iloc[start:stop].copy()
        obs.index = pd.Index(read_index(self.file, "obs", start, stop), name="cell_id")
        obs = add_totals(obs, counts)
        var = pd.DataFrame(
            {"ensembl": list(self.genes.ensembl)},
            index=pd.Index(self.genes.symbols, name="gene", dtype=object),
        )
        return ad.AnnData(counts, obs=obs, var=var, uns={"faultline": dict(self.about)})


@contextmanager
def open_dataset(
    path: str | Path, roles: Roles | None = None, *, purpose: str = "predict", seed: int = 0
) -> Iterator[OpenDataset]:
    """Open a file after all that can be checked without reading every value.

    Parameters
    ----------
    path
        The `.h5ad`.
    roles
        Column of each role; guessed from the names when None.
    purpose
        What the roles must suffice for: "train", "evaluate" or "predict".
    seed
        Chooses the blocks of values that are looked at.

    Raises
    ------
    Refusal
        With the first reason why the file cannot be used.
    """
    from backend.data.check import examine

    path = Path(path)
    with open_safely(path) as file:
        yield examine(path, file, roles, purpose=purpose, seed=seed)


def load(path: str | Path, roles: Roles | None = None) -> AnnData:
    """Read a dataset into memory in the layout of the data contract.

    Returns
    -------
    `X` raw counts (CSR, float32), unique symbols as `var_names` with `var["ensembl"]`, cell ids as
    `obs_names`, the obs columns of the contract and `uns["faultline"]`.

    Raises
    ------
    Refusal
        If the file is unsafe or not usable.
    """
    with open_dataset(path, roles) as dataset:
        return dataset.anndata(0, dataset.n_cells, dataset.obs())


def read_chunks(
    path: str | Path, size: int = 4096, roles: Roles | None = None
) -> Iterator[AnnData]:
    """Read a dataset in pieces of `size` cells, each in the layout that `load` returns.

    Memory is that of one piece, the role columns and the starts of the rows.
    """
    if size < 1:
        msg = f"A chunk of {size} cells was asked for."
        raise Refusal("argument", msg, "Ask for at least one cell a chunk.")
    with open_dataset(path, roles) as dataset:
        obs = dataset.obs()
        for start in range(0, dataset.n_cells, size):
            yield dataset.anndata(start, start + size, obs)


def _values_refusal(name: str, seen: ValueSummary) -> Refusal:
    assert seen.problem is not None
    code, found = seen.problem
    msg = f'"{name}" holds {found}.'
    return Refusal(code, msg, "Models need raw counts: whole numbers from 0 up.")
