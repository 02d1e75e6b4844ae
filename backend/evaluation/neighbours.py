"""Whether the nearest neighbours of a cell side with its label or with its prediction.

Neighbours are the nearest cells among the principal components of all cells of the dataset, for
display only. A wrong cell among neighbours that carry its prediction may have a wrong label; one
among neighbours that carry its label is the model's mistake. It is a hint: neighbours are near by
the same expression that labels and predictions were made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Sides", "sides_of"]


@dataclass(frozen=True, eq=False)
class Sides:
    """How many neighbours side with whom, cell by cell.

    label     : (n,) float, share of the labelled neighbours that carry the cell's label; NaN where
                the cell has none, or none of its neighbours is labelled
    predicted : (n,) float, the same for the cell's prediction
    n_labelled: (n,) int, labelled neighbours
    """

    label: np.ndarray
    predicted: np.ndarray
    n_labelled: np.ndarray

    @property
    def prediction_leads(self) -> np.ndarray:
        """Cells with more neighbours of the predicted type than of the label."""
        return self.predicted > self.label

    @property
    def label_leads(self) -> np.ndarray:
        """Cells with more neighbours of the label than of the predicted type."""
        return self.label > self.predicted


def sides_of(
    neighbours: np.ndarray, labels: np.ndarray, predicted: np.ndarray, cells: np.ndarray
) -> Sides:
    """Count on whose side the neighbours of some cells are.

    Parameters
    ----------
    neighbours
        (n_cells, k) row numbers, -1 for none.
    labels, predicted
        (n_cells,) codes of the types; 0 for none.
    cells
        Rows to look at.
    """
    near = neighbours[cells]
    codes = np.where(near >= 0, labels[near], 0)
    n_labelled = (codes != 0).sum(axis=1)

    def share(own: np.ndarray) -> np.ndarray:
        hits = ((codes == own[:, None]) & (codes != 0)).sum(axis=1)
        known = (own != 0) & (n_labelled > 0)
        return np.divide(hits, n_labelled, out=np.full(len(own), np.nan), where=known)

    return Sides(share(labels[cells]), share(predicted[cells]), n_labelled)
