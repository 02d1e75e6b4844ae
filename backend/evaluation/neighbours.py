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

    n_own     : (n,) int16, labelled neighbours that carry the cell's label; -1 where it has none
    n_called  : (n,) int16, those that carry its prediction; -1 where it has none
    n_labelled: (n,) int16, labelled neighbours
    """

    n_own: np.ndarray
    n_called: np.ndarray
    n_labelled: np.ndarray

    def of(self, cells: np.ndarray) -> Sides:
        """Return the sides of some rows."""
        return Sides(self.n_own[cells], self.n_called[cells], self.n_labelled[cells])

    def _share(self, hits: np.ndarray) -> np.ndarray:
        is_known = (hits >= 0) & (self.n_labelled > 0)
        unknown = np.full(len(hits), np.nan)
        return np.divide(hits, self.n_labelled, out=unknown, where=is_known)

    @property
    def label(self) -> np.ndarray:
        """Share of the labelled neighbours that carry the cell's label: (n,) float.

        NaN where the cell has none, or none of its neighbours is labelled.
        """
        return self._share(self.n_own)

    @property
    def predicted(self) -> np.ndarray:
        """The same for the cell's prediction: (n,) float."""
        return self._share(self.n_called)

    @property
    def prediction_leads(self) -> np.ndarray:
        """Cells with more neighbours of the predicted type than of the label."""
        return self.predicted > self.label

    @property
    def label_leads(self) -> np.ndarray:
        """Cells with more neighbours of the label than of the predicted type."""
        return self.label > self.predicted


def sides_of(neighbours: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> Sides:
    """Count on whose side the neighbours of each cell are.

    Parameters
    ----------
    neighbours
        (n_cells, k) row numbers, -1 for none.
    labels, predicted
        (n_cells,) codes of the types; 0 for none.
    """
    # A row more than there are cells: -1 then reads a cell without a type.
    types = np.append(labels, np.zeros(1, dtype=labels.dtype))
    n_labelled, n_own, n_called = np.zeros((3, len(labels)), dtype=np.int16)
    # One neighbour after the other: all of them at once would be copied several times.
    for near in neighbours.T:
        found = types[near]
        n_labelled += found != 0
        n_own += (found == labels) & (found != 0)
        n_called += (found == predicted) & (found != 0)
    n_own[labels == 0] = -1
    n_called[predicted == 0] = -1
    return Sides(n_own, n_called, n_labelled)
