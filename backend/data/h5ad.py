"""Open an `.h5ad` safely and read it: whole, or in chunks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backend.data.check import CheckReport, Examined, check, examine
from backend.data.columns import read_column, read_index
from backend.data.containers import opened
from backend.data.matrix import ValueSummary
from backend.data.problems import Refusal
from backend.data.safety import damage_refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py
    import pandas as pd
    from anndata import AnnData

    from backend.data.roles import Roles

__all__ = ["CheckReport", "OpenDataset", "check", "load", "open_dataset", "read_chunks"]


@dataclass(slots=True)
class OpenDataset:
    """An `.h5ad` that was found fit for use; its values are still in the file."""

    path: Path
    file: h5py.File = field(repr=False)
    found: Examined

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.found.n_cells

    @property
    def notes(self) -> list[str]:
        """What a user should know, though the file is usable."""
        return self.found.notes

    def obs(self) -> pd.DataFrame:
        """Return the role columns of all cells in the order of the contract, without row names."""
        from backend.data.layout import standard_obs

        with damage_refused(self.path.name):
            read = partial(read_column, self.file, "obs")
            return standard_obs(read, self.found.roles, self.n_cells, self.notes)

    def cells(self, start: int, stop: int, obs: pd.DataFrame) -> AnnData:
        """Read the cells of some rows; `obs` is what `obs()` returned."""
        import anndata as ad
        import pandas as pd

        from backend.data.layout import add_totals

        stop = min(stop, self.n_cells)
        genes = self.found.genes
        with damage_refused(self.path.name):
            counts = self.found.counts.rows(start, stop)
            names = read_index(self.file, "obs", start, stop)
        seen = ValueSummary()
        seen.add(counts.data)
        if seen.problem is not None and seen.problem[0] != "no_counts":
            code, what = seen.problem
            msg = f'"{self.found.counts.name}" holds {what}.'
            hint = "Raw counts are needed: whole numbers from 0 up."
            raise Refusal(msg, hint, code=code)
        counts = genes.apply(counts)
        obs = add_totals(obs.iloc[start:stop], counts)
        obs.index = pd.Index(names, name="cell_id", dtype=object)
        var = pd.DataFrame(
            {"ensembl": list(genes.ensembl)},
            index=pd.Index(genes.symbols, name="gene", dtype=object),
        )
        return ad.AnnData(counts, obs=obs, var=var, uns={"faultline": dict(self.found.about)})


@contextmanager
def open_dataset(
    path: str | Path,
    roles: Roles | None = None,
    *,
    purpose: str = "predict",
    seed: int = 0,
    any_genes: bool = False,
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
    any_genes
        Take genes of any species, under the names that they have.

    Raises
    ------
    Refusal
        With the first reason why the file cannot be used.
    """
    path = Path(path)
    with opened(path) as (file, told):
        with damage_refused(path.name):
            found = examine(path, file, roles, purpose=purpose, seed=seed, any_genes=any_genes)
        assert found is not None
        found.notes[:0] = told
        yield OpenDataset(path, file, found)


def load(
    path: str | Path,
    roles: Roles | None = None,
    *,
    any_genes: bool = False,
    notes: list[str] | None = None,
) -> AnnData:
    """Read a dataset into memory in the layout of the data contract.

    Parameters
    ----------
    path, roles, any_genes
        See `open_dataset`.
    notes
        Gets what a user should know of the file, in sentences.

    Returns
    -------
    `X` raw counts (CSR, float32), unique symbols as `var_names` with `var["ensembl"]`, cell ids as
    `obs_names`, the obs columns of the contract and `uns["faultline"]`.

    Raises
    ------
    Refusal
        If the file is unsafe or not usable; every value is looked at.
    """
    with open_dataset(path, roles, any_genes=any_genes) as dataset:
        adata = dataset.cells(0, dataset.n_cells, dataset.obs())
        if notes is not None:
            notes += dataset.notes
        return adata


def read_chunks(
    path: str | Path,
    size: int = 4096,
    roles: Roles | None = None,
    *,
    any_genes: bool = False,
) -> Iterator[AnnData]:
    """Read a dataset in pieces of `size` cells, each in the layout that `load` returns.

    Memory is that of one piece, the role columns and the starts of the rows.
    """
    if size < 1:
        msg = f"A chunk of {size} cells was asked for."
        raise Refusal(msg, "Ask for at least one cell a chunk.", code="argument")
    with open_dataset(path, roles, any_genes=any_genes) as dataset:
        obs = dataset.obs()
        for start in range(0, dataset.n_cells, size):
            yield dataset.cells(start, start + size, obs)
