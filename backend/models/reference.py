"""How far a cell lies from the training cells of a model, and whether it belongs to them.

A foundation model is asked in the states that its last layer reads; every other model in the
expression space of its training cells. The distance is Mahalanobis' to the nearest class
centroid with one covariance for all classes (Lee et al. 2018, arXiv:1807.03888). A novel cell
can look ordinary in the components of the training cells, so the length of what the components
leave out is a dimension of its own (the Q statistic: Jackson and Mudholkar 1979,
doi:10.1080/00401706.1979.10489779).

A distance means little by itself, because donors differ. It is read against cells of donors that
the reference was made without: see `Reference.percentiles`.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from backend.data.matrix import log_cp10k
from backend.errors import ModelUnavailable
from backend.models.baselines.expression import (
    MIN_SHARE_OF_GENES,
    align_genes,
    labels_of,
    variable_genes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from backend.models.base import CellTyper, Predictions

__all__ = ["FILE", "OUTSIDE", "Reference", "fit_reference"]

FILE: Final = "reference.npz"
"""In the folder of a saved model."""

OUTSIDE: Final = 0.95
"""Cells beyond this percentile are called outside; 5 % of the cells of a new donor are expected."""

_N_GENES: Final = 2000
_N_COMPONENTS: Final = 30
_N_SAMPLED: Final = 3000
_N_GROUPS: Final = 5
_FEWEST: Final = 20
_QUANTILES: Final = np.linspace(0, 1, 101)
# Keeps the covariance of few cells invertible; relative to its mean diagonal.
_RIDGE: Final = 1e-2
_MIN_DEVIATION: Final = 1e-2
_LARGEST_SCALED: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Components:
    """Principal components of standardised expression, and the length of what they leave out."""

    genes: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(cls, cells: AnnData, seed: int) -> Self:
        from sklearn.decomposition import PCA

        expression = log_cp10k(align_genes(cells, cells.var_names)[0])
        columns = variable_genes(expression, _N_GENES)
        chosen = expression[:, columns].toarray()
        mean, deviation = chosen.mean(axis=0), chosen.std(axis=0)
        scaled = _scaled(chosen, mean, np.maximum(deviation, _MIN_DEVIATION))
        n = min(_N_COMPONENTS, scaled.shape[0] - 1, scaled.shape[1] // 2)
        pca = PCA(n_components=max(1, n), svd_solver="randomized", random_state=seed).fit(scaled)
        return cls(
            genes=tuple(map(str, cells.var_names[columns])),
            # Standardised values have mean zero up to the cut; folding PCA's mean in keeps it exact.
            mean=np.vstack([mean, pca.mean_]).astype(np.float32),
            scale=np.maximum(deviation, _MIN_DEVIATION).astype(np.float32),
            axes=pca.components_.astype(np.float32),
        )

    def transform(self, cells: AnnData) -> np.ndarray:
        """Return (n_cells, n_components + 1): scores, and the length of the residual."""
        counts, is_present = align_genes(cells, self.genes)
        # Depth is of all genes of the cell, as it was in training.
        totals = np.asarray(cells.X.sum(axis=1, dtype=np.float64)).ravel()
        scale = np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)
        dense = np.log1p(counts.toarray() * scale[:, None]).astype(np.float32)
        scaled = _scaled(dense, self.mean[0], self.scale) - self.mean[1]
        # A gene that the file lacks is no evidence.
        scaled[:, ~is_present] = 0.0
        scores = scaled @ self.axes.T
        rest = np.sqrt(np.maximum((scaled**2).sum(axis=1) - (scores**2).sum(axis=1), 0.0))
        return np.column_stack([scores, rest])


def _scaled(values: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.minimum((values - mean) / deviation, _LARGEST_SCALED)


@dataclass(frozen=True, slots=True)
class _Classes:
    """Class centroids under one covariance."""

    centroids: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, codes: np.ndarray) -> Self:
        """Fit on (n_cells, d) points and class numbers."""
        centroids = np.vstack([points[codes == code].mean(axis=0) for code in np.unique(codes)])
        within = points - centroids[np.unique(codes, return_inverse=True)[1]]
        covariance = np.atleast_2d(np.cov(within, rowvar=False, bias=True))
        size = np.trace(covariance) / len(covariance)
        covariance += np.eye(len(covariance)) * max(_RIDGE * size, 1e-12)
        values, vectors = np.linalg.eigh(covariance)
        return cls(centroids, (vectors / np.sqrt(values)).astype(np.float64))

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Return (n_cells,) distances to the nearest centroid; NaN where a point is not finite."""
        white = points.astype(np.float64) @ self.whitening
        centroids = self.centroids @ self.whitening
        squares = (
            (white**2).sum(axis=1)[:, None]
            - 2 * white @ centroids.T
            + (centroids**2).sum(axis=1)[None, :]
        )
        return np.sqrt(np.maximum(squares, 0.0)).min(axis=1)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the training cells of a model lie, as small arrays.

    space : "states" (of a foundation model) or "expression"
    held_out : (n_donors, 101) quantiles of the distances of each donor's cells to a reference
        made without that donor; no row with fewer than 2 donors
    """

    space: str
    classes: _Classes
    components: _Components | None
    held_out: np.ndarray

    def distances(self, cells: AnnData, predictions: Predictions) -> np.ndarray:
        """Return (n_cells,) float32 distances; NaN where nothing is known of a cell.

        Cells that bring less than `MIN_SHARE_OF_GENES` of the reference's genes have none.
        """
        if self.components is not None:
            known = cells.var_names.isin(self.components.genes).sum()
            if known < MIN_SHARE_OF_GENES * len(self.components.genes):
                return np.full(cells.n_obs, np.nan, dtype=np.float32)
            points = self.components.transform(cells)
        else:
            assert predictions.embedding is not None
            points = predictions.embedding
        return self.classes.distances(points).astype(np.float32)

    def percentiles(self, distances: np.ndarray) -> np.ndarray:
        """Read distances against those of donors that the reference was made without.

        For each such donor: the share of its cells that lie nearer. The percentile is the mean
        over donors, each counting the same however many cells it has. A cell of a new donor from
        the same tissue is beyond 0.95 once in twenty times.

        Returns
        -------
        (n_cells,) float32 from 0 to 1; NaN where the distance is, or without held-out donors.
        """
        if not len(self.held_out):
            return np.full(len(distances), np.nan, dtype=np.float32)
        shares = [np.interp(distances, row, _QUANTILES) for row in self.held_out]
        return np.mean(shares, axis=0).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write `reference.npz` into the folder of a model."""
        arrays: dict[str, Any] = {
            "space": np.array(self.space),
            "centroids": self.classes.centroids.astype(np.float32),
            "whitening": self.classes.whitening.astype(np.float32),
            "held_out": self.held_out.astype(np.float32),
        }
        if self.components is not None:
            arrays |= {
                "genes": np.array(self.components.genes),
                "mean": self.components.mean,
                "scale": self.components.scale,
                # Half precision halves the file and moves a distance by less than a per mille.
                "axes": self.components.axes.astype(np.float16),
            }
        np.savez_compressed(folder / FILE, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what `save` wrote, or None where the model was saved without a reference.

        Raises
        ------
        ModelUnavailable
            If the file is damaged.
        """
        if not (folder / FILE).is_file():
            return None
        try:
            with (folder / FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            classes = _Classes(arrays["centroids"], arrays["whitening"])
            components = None
            if "genes" in arrays:
                values = {item.name: arrays[item.name] for item in fields(_Components)}
                values["genes"] = tuple(map(str, values["genes"]))
                values["axes"] = values["axes"].astype(np.float32)
                components = _Components(**values)
            return cls(str(arrays["space"]), classes, components, arrays["held_out"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            msg = f"`{FILE}` of the model cannot be read ({type(error).__name__})."
            raise ModelUnavailable(msg, "Fit and save the model again.") from error


def fit_reference(
    typer: CellTyper, train: AnnData, *, label_key: str, seed: int = 0
) -> Reference | None:
    """Describe where the training cells lie, with at most 3,000 of them.

    Parameters
    ----------
    typer
        The fitted model.
    train
        The cells that it was fitted on, all labelled; `obs["donor"]` names their donors.
    label_key
        Column of the labels.
    seed
        Chooses the cells, each donor by its share.

    Returns
    -------
    None for fewer than 20 training cells: they are no reference.

    Notes
    -----
    Donors are left out in five groups. In the expression space genes, components, centroids and
    covariance are all made without them. The states of a foundation model come from the fitted
    network, which has seen those donors: there the percentiles are on the high side.
    """
    if train.n_obs < _FEWEST:
        return None
    rng = np.random.default_rng(seed)
    donors = train.obs["donor"].astype(str).to_numpy()
    rows = _sample(donors, rng)
    cells, donors = train[rows], donors[rows]
    codes, _ = labels_of(cells, label_key)
    states = typer.predict(cells).embedding if typer.kind == "foundation" else None
    if states is not None:
        is_known = np.isfinite(states).all(axis=1)
        cells, donors, codes, states = (
            cells[is_known], donors[is_known], codes[is_known], states[is_known]
        )  # fmt: skip

    def fit(kept: np.ndarray) -> tuple[_Components | None, _Classes]:
        if states is not None:
            return None, _Classes.fit(states[kept], codes[kept])
        components = _Components.fit(cells[kept], seed)
        return components, _Classes.fit(components.transform(cells[kept]), codes[kept])

    names = rng.permutation(np.unique(donors))
    held_out = []
    for group in np.array_split(names, min(_N_GROUPS, len(names))) if len(names) > 1 else ():
        is_out = np.isin(donors, group)
        components, classes = fit(~is_out)
        points = components.transform(cells[is_out]) if components else states[is_out]  # type: ignore[index]
        distances = classes.distances(points)
        held_out += [np.quantile(distances[donors[is_out] == name], _QUANTILES) for name in group]
    components, classes = fit(np.ones(len(donors), dtype=bool))
    return Reference(
        space="expression" if states is None else "states",
        classes=classes,
        components=components,
        held_out=np.reshape(held_out, (len(held_out), len(_QUANTILES))),
    )


def _sample(donors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose rows so that every donor has its share, and at least one cell."""
    if len(donors) <= _N_SAMPLED:
        return np.arange(len(donors))
    chosen = []
    for name in np.unique(donors):
        rows = np.flatnonzero(donors == name)
        n = max(1, _N_SAMPLED * len(rows) // len(donors))
        chosen.append(rng.choice(rows, size=n, replace=False))
    return np.sort(np.concatenate(chosen))
