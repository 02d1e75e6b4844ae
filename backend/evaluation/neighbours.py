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
    # A row more than there are cells: -1 then reads a cell without a type.
    types = np.append(labels, 0)
    own, called = labels[cells], predicted[cells]
    n_labelled, n_own, n_called = np.zeros((3, len(cells)), dtype=np.int32)
    # One neighbour after the other: all of them at once would be copied several times.
    for near in neighbours[cells].T:
        found = types[near]
        n_labelled += found != 0
        n_own += (found == own) & (found != 0)
        n_called += (found == called) & (found != 0)

    def share(hits: np.ndarray, of: np.ndarray) -> np.ndarray:
        known = (of != 0) & (n_labelled > 0)
        return np.divide(hits, n_labelled, out=np.full(len(cells), np.nan), where=known)

    return Sides(share(n_own, own), share(n_called, called), n_labelled)
