"""Whether the nearest neighbours of a cell side with its label or with its prediction.

Neighbours are the nearest cells among the principal components of all cells of the dataset, for
display only. A wrong cell among neighbours that carry its prediction may have a wrong label; one
among neighbours that carry its label is the model's mistake. It is a hint: neighbours are near by
the same expression that labels and predictions were made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from backend.evaluation.cells.columns import Role

__all__ = ["Neighbourhood", "Sides", "describe_neighbourhood", "sides_of", "sides_of_roles"]


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


def sides_of_roles(neighbours: np.ndarray, label: Role, predicted: Role) -> Sides:
    """Count on whose side the neighbours of each cell are, by the words of its roles."""
    names = list(dict.fromkeys((*label.names, *predicted.names)))
    return sides_of(neighbours, label.coded_as(names) + 1, predicted.coded_as(names) + 1)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """On whose side the neighbours of the selected cells are.

    Parameters
    ----------
    k
        Neighbours of each cell.
    sentences
        What they say, as Markdown.
    pairs
        `label`, `predicted`, `n_cells`, `label_share` and `predicted_share` (mean share of the
        labelled neighbours), `n_prediction_leads`, `n_label_leads`; wrong cells only, commonest
        first.
    """

    k: int
    sentences: tuple[str, ...]
    pairs: pd.DataFrame


def describe_neighbourhood(
    k: int, every: Sides, label: Role, predicted: Role, cells: np.ndarray
) -> Neighbourhood:
    """Say on whose side the neighbours of some cells are.

    Parameters
    ----------
    k
        Neighbours of each cell.
    every
        The sides of all cells.
    label, predicted
        The roles that they were counted by.
    cells
        Values of `cell_index`.
    """
    sides = every.of(cells)
    labels, called = label.codes[cells], predicted.coded_as(label.names)[cells]
    label_share, predicted_share = sides.label, sides.predicted
    is_known = ~np.isnan(label_share) & ~np.isnan(predicted_share)
    is_wrong, is_right = is_known & (labels != called), is_known & (labels == called)
    prediction_leads, label_leads = predicted_share > label_share, label_share > predicted_share
    sentences = []
    if is_right.any():
        sentences.append(
            f"Of the {k} nearest neighbours of the {int(is_right.sum()):,} cells that are called "
            f"rightly, {label_share[is_right].mean():.0%} carry their label, on average."
        )
    if is_wrong.any():
        n_wrong = int(is_wrong.sum())
        n_doubted = int((prediction_leads & is_wrong).sum())
        of_those = "Of those" if sentences else f"Of the {k} nearest neighbours"
        n_kept = int((label_leads & is_wrong).sum())
        sentences.append(
            f"{of_those} of the {n_wrong:,} cells that are called wrongly, "
            f"{label_share[is_wrong].mean():.0%} carry the label and "
            f"{predicted_share[is_wrong].mean():.0%} the prediction. For {n_kept:,} of these cells "
            f"({n_kept / n_wrong:.0%}) more neighbours carry the label: the model's mistake. For "
            f"{n_doubted:,} ({n_doubted / n_wrong:.0%}) more carry the prediction: look at the label."
        )
    if not sentences:
        sentences.append("No selected cell has a label, a prediction and labelled neighbours.")
    rows = pd.DataFrame(
        {
            "label": labels[is_wrong],
            "predicted": predicted.codes[cells][is_wrong],
            "label_share": label_share[is_wrong],
            "predicted_share": predicted_share[is_wrong],
            "prediction_leads": prediction_leads[is_wrong],
            "label_leads": label_leads[is_wrong],
        }
    )
    grouped = rows.groupby(["label", "predicted"])
    pairs = pd.DataFrame(
        {
            "n_cells": grouped.size(),
            "label_share": grouped["label_share"].mean(),
            "predicted_share": grouped["predicted_share"].mean(),
            "n_label_leads": grouped["label_leads"].sum(),
            "n_prediction_leads": grouped["prediction_leads"].sum(),
        }
    ).reset_index()
    for column, role in (("label", label), ("predicted", predicted)):
        pairs[column] = pd.Series([role.names[code] for code in pairs[column]], dtype=object)
    pairs = pairs.sort_values("n_cells", ascending=False, kind="stable", ignore_index=True)
    return Neighbourhood(k=k, sentences=tuple(sentences), pairs=pairs)
