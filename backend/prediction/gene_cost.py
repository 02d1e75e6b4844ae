"""What the genes that a file lacks cost a stored model, on cells of the donors that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import sparse

from backend.data.fingerprint import cell_fingerprints
from backend.data.h5ad import open_dataset
from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from backend.models.base import CellTyper
    from backend.prediction.saved_models import SavedModel

__all__ = ["GeneCost", "ReferenceCells"]

_MOST_CELLS: Final = 2_000
_CHUNK: Final = 4_096
_BATCH: Final = 64
_IS_REFERENCE: Final = 0.95
"""Share of a file's cells that must have been in training for it to be the model's reference."""


@dataclass(frozen=True, slots=True)
class GeneCost:
    """Accuracy of a model on cells of its reference, with all genes and without some.

    These are cells that it was fitted on, so both are too high; their difference is what counts.
    """

    n_cells: int
    n_donors: int
    n_missing: int
    whole: float
    without: float

    def sentence(self) -> str:
        """Say what the missing genes cost."""
        return (
            f"on {self.n_cells:,} cells of {self.n_donors} donors that it was fitted on, its accuracy "
            f"is {self.whole:.2f}, and {self.without:.2f} without the {self.n_missing:,} genes that "
            "this file lacks"
        )


class ReferenceCells:
    """Labelled cells of the file that a model was fitted on, as many of each donor as there are.

    Parameters
    ----------
    path
        The `.h5ad`; at most 2,000 cells of it are kept, evenly over donors.
    """

    def __init__(self, path: Path, *, label_level: str) -> None:
        self.name = path.name
        with open_dataset(path, purpose="train") as dataset:
            obs = dataset.obs()
            chosen = _evenly(obs, f"cell_type_{label_level}")
            pieces = []
            for start in range(0, dataset.n_cells, _CHUNK):
                rows = chosen[(chosen >= start) & (chosen < start + _CHUNK)] - start
                if len(rows):
                    pieces.append(dataset.cells(start, start + _CHUNK, obs)[rows].copy())
        if not pieces:
            msg = f'"{path.name}" has no labelled cell.'
            raise InputError(msg, "Give the file that the model was fitted on.")
        self.cells: AnnData = pieces[0]
        if len(pieces) > 1:
            import anndata as ad

            self.cells = ad.concat(pieces, merge="same")
        self.labels = self.cells.obs[f"cell_type_{label_level}"].astype(str).to_numpy()

    def cost(self, model: SavedModel, typer: CellTyper, genes: Collection[str]) -> GeneCost:
        """Return what it costs a model that only some genes are there.

        Raises
        ------
        InputError
            If the model was not fitted on these cells.
        """
        known = np.isin(cell_fingerprints(self.cells), model.train_cells())
        if known.mean() < _IS_REFERENCE:
            msg = (
                f"{model.run.display_name} was not fitted on {self.name}: {int(known.sum()):,} of "
                f"{len(known):,} cells looked at were in its training."
            )
            raise InputError(msg, f"It was fitted on {model.trained_on()}: give that file.")
        own = set(genes)
        is_there = np.array([name in own for name in self.cells.var_names])
        poorer = self.cells.copy()
        poorer.X = sparse.csr_matrix(poorer.X @ sparse.diags(is_there.astype(np.float32)))
        poorer.X.eliminate_zeros()
        return GeneCost(
            n_cells=self.cells.n_obs,
            n_donors=int(self.cells.obs["donor"].nunique()),
            n_missing=int((~is_there).sum()),
            whole=self._accuracy(typer, self.cells),
            without=self._accuracy(typer, poorer),
        )

    def _accuracy(self, typer: CellTyper, cells: AnnData) -> float:
        found = typer.predict(cells, batch_size=_BATCH)
        called = np.array(found.classes, dtype=object)[found.proba.argmax(axis=1)]
        return float((called == self.labels).mean())


def _evenly(obs: pd.DataFrame, column: str) -> np.ndarray:
    """Return ascending row numbers of labelled cells, every k-th in the order of donors."""
    labelled = np.flatnonzero(obs[column].notna().to_numpy())
    ordered = labelled[np.argsort(obs["donor"].astype(str).to_numpy()[labelled], kind="stable")]
    n = min(_MOST_CELLS, len(ordered))
    return np.sort(ordered[np.linspace(0, len(ordered) - 1, n).astype(np.int64)] if n else ordered)
