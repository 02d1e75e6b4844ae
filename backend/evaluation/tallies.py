"""Per-donor counts from which every F1 is made: true positives, labels and predictions by type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from backend.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Tallies"]


@dataclass(frozen=True, eq=False)
class Tallies:
    """Counts of one slice by donor and cell type.

    The last two axes are donors and types; axes before them, if any, are seeds of the same
    configuration (or repetitions of a simulation).

    Parameters
    ----------
    donors, types
        Names along the last two axes.
    tp
        Cells with this label that are predicted as this type.
    n_label
        Cells with this label.
    n_predicted
        Labelled cells of the slice that are predicted as this type, whatever their label.
    """

    donors: tuple[str, ...]
    types: tuple[str, ...]
    tp: np.ndarray
    n_label: np.ndarray
    n_predicted: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.donors), len(self.types))
        shapes = {self.tp.shape, self.n_label.shape, self.n_predicted.shape}
        if len(shapes) != 1 or self.tp.shape[-2:] != expected:
            msg = f"Counts of shape {sorted(shapes)} do not fit {expected[0]} donors and {expected[1]} types."
            raise LabelError(msg, "Give three arrays of one shape, (…, donors, types).")

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        donors: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
    ) -> Self:
        """Build tallies from rows of `donor`, `cell_type`, `tp`, `n_label`, `n_predicted`.

        Rows of the same donor and type are summed, so a slice may be handed over in parts.

        Parameters
        ----------
        frame
            One row per donor and type, or more.
        donors, types
            Names and order of the axes; by default those found, sorted. Rows with another donor
            are left out; rows with another type raise, because dropping them would lose wrong
            predictions.
        """
        axis_donors = tuple(sorted(frame["donor"].unique()) if donors is None else donors)
        axis_types = tuple(sorted(frame["cell_type"].unique()) if types is None else types)
        rows = pd.Index(axis_donors).get_indexer(frame["donor"])
        columns = pd.Index(axis_types).get_indexer(frame["cell_type"])
        if (columns < 0).any():
            unknown = sorted({str(name) for name in frame["cell_type"][columns < 0]})[:5]
            msg = f"Counts hold cell types outside the label set: {', '.join(unknown)}."
            raise LabelError(msg, "Score with the label set that the series was trained on.")
        keep = rows >= 0
        shape = (len(axis_donors), len(axis_types))
        flat = rows[keep] * shape[1] + columns[keep]

        def table(column: str) -> np.ndarray:
            weights = frame[column].to_numpy(dtype=np.float64)[keep]
            counts = np.bincount(flat, weights=weights, minlength=shape[0] * shape[1])
            return counts.astype(np.int64).reshape(shape)

        return cls(axis_donors, axis_types, table("tp"), table("n_label"), table("n_predicted"))

    @classmethod
    def from_labels(
        cls,
        donor: Sequence[str] | np.ndarray | pd.Series,
        label: Sequence[str] | np.ndarray | pd.Series,
        predicted: Sequence[str] | np.ndarray | pd.Series,
        *,
        types: Sequence[str] | None = None,
    ) -> Self:
        """Count single cells; cells without a label are not scored."""
        cells = pd.DataFrame(
            {"donor": np.asarray(donor), "label": np.asarray(label), "pred": np.asarray(predicted)}
        ).dropna(subset=["label"])
        hits = cells[cells["label"] == cells["pred"]]
        parts = [
            pd.DataFrame({"donor": part["donor"], "cell_type": part[column]}).assign(
                **{name: int(name == counted) for name in ("tp", "n_label", "n_predicted")}
            )
            for part, column, counted in (
                (hits, "label", "tp"),
                (cells, "label", "n_label"),
                (cells, "pred", "n_predicted"),
            )
        ]
        return cls.from_frame(pd.concat(parts), types=types)

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Put several seeds of one configuration on a leading axis; donors and types must agree."""
        first = parts[0]
        if any(part.donors != first.donors or part.types != first.types for part in parts):
            msg = "Seeds of one configuration do not share donors and types."
            raise LabelError(msg, "Build every part with the same `donors` and `types`.")
        return cls(
            first.donors,
            first.types,
            np.stack([part.tp for part in parts]),
            np.stack([part.n_label for part in parts]),
            np.stack([part.n_predicted for part in parts]),
        )

    def with_donors(self, keep: np.ndarray) -> Tallies:
        """Return the counts of some donors, chosen by a boolean mask."""
        donors = tuple(name for name, kept in zip(self.donors, keep, strict=True) if kept)
        return Tallies(
            donors,
            self.types,
            self.tp[..., keep, :],
            self.n_label[..., keep, :],
            self.n_predicted[..., keep, :],
        )

    def of_scored_donors(self) -> Tallies:
        """Return the counts of donors with at least one labelled cell."""
        leading = tuple(range(self.n_label.ndim - 2))
        return self.with_donors(self.n_label.sum(axis=(*leading, -1)) > 0)

    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `tp`, `n_label` and `n_predicted` summed over donors."""
        return self.tp.sum(axis=-2), self.n_label.sum(axis=-2), self.n_predicted.sum(axis=-2)

    def mask(self, types: Sequence[str]) -> np.ndarray:
        """Return a boolean mask over the type axis."""
        chosen = set(types)
        return np.array([name in chosen for name in self.types], dtype=bool)
