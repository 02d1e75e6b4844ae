"""Gradient-boosted trees on principal components of the training fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import numpy as np

from backend.errors import ModelUnavailable
from backend.models.base import CellTyper, ModelCard, Predictions
from backend.models.baselines.expression import (
    MIN_CELLS,
    align_genes,
    cell_ids_of,
    check_fitted,
    detected_genes,
    labels_of,
    log_cp10k,
    variable_genes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from scipy import sparse

__all__ = ["GradientBoosting"]

_LEARNING_RATE: Final = 0.1
_MAX_LEAVES: Final = 15
# Threads wait for each other at every node: on 7,000 cells two of them burn six times the
# processor time of one. They change no tree.
_MIN_CELLS_FOR_THREADS: Final = 50_000


class GradientBoosting(CellTyper):
    """Fit histogram-based gradient boosting: the non-linear baseline.

    Parameters
    ----------
    n_components
        Number of principal components, fitted on the training cells.
    n_genes
        Number of highly variable genes (log1p CP10k, centred) that they are made from.
    n_iterations
        Rounds of boosting, each one tree a type. On van Galen 2019 a second fifty doubles the time
        and adds less than 0.01 to macro-F1.
    min_cells
        Genes detected in fewer training cells are left out before that.
    """

    key = "hgb"
    display_name = "Gradient boosting"
    card = ModelCard(
        summary="Histogram gradient boosting on 50 principal components of 3,000 variable genes.",
        citation="Ke et al. 2017, LightGBM; scikit-learn's HistGradientBoostingClassifier.",
        doi="10.5555/3294996.3295074",
        weights_licence="no weights; cannot be saved",
        expects="raw counts, gene symbols",
    )
    is_savable = False
    """Trees need pickle, which a saved model never holds."""

    def __init__(
        self,
        *,
        n_components: int = 50,
        n_genes: int = 3000,
        n_iterations: int = 50,
        min_cells: int = MIN_CELLS,
    ) -> None:
        self.n_components = n_components
        self.n_genes = n_genes
        self.n_iterations = n_iterations
        self.min_cells = min_cells

    def fit(self, train: AnnData, *, label_key: str, valid: AnnData, seed: int) -> Self:
        """Fit genes, components and trees on the training cells; `valid` is not read."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits

        self.check_input(train)
        codes, self.classes_ = labels_of(train, label_key)
        self.genes_ = detected_genes(train, min_cells=self.min_cells)
        expression = log_cp10k(align_genes(train, self.genes_)[0])
        self.columns_ = variable_genes(expression, self.n_genes)
        chosen = expression[:, self.columns_]
        self.mean_ = np.asarray(chosen.mean(axis=0, dtype=np.float64)).ravel()
        self.axes_ = _principal_axes(chosen, self.mean_, self.n_components)
        self.trees_ = None
        if len(self.classes_) == 1:
            self.notes_ = (
                f"All training cells are {self.classes_[0]}: nothing else is predicted.",
            )
            return self
        self.notes_ = ()
        trees = HistGradientBoostingClassifier(
            max_iter=self.n_iterations,
            learning_rate=_LEARNING_RATE,
            max_leaf_nodes=_MAX_LEAVES,
            # Early stopping would hold out training cells at random, across donors.
            early_stopping=False,
            random_state=seed,
        )
        n_threads = 1 if train.n_obs < _MIN_CELLS_FOR_THREADS else None
        with threadpool_limits(limits=n_threads, user_api="openmp"):
            self.trees_ = trees.fit(self._components(expression), codes)
        return self

    def predict(self, adata: AnnData, *, batch_size: int = 64) -> Predictions:
        """Return the softmax of the boosted trees."""
        check_fitted(bool(self.classes_), self.display_name)
        self.check_input(adata)
        expression = log_cp10k(align_genes(adata, self.genes_)[0])
        if self.trees_ is None or adata.n_obs == 0:
            proba = np.ones((adata.n_obs, len(self.classes_)))
        else:
            proba = self.trees_.predict_proba(self._components(expression))
        return Predictions(cell_ids_of(adata), proba.astype(np.float32), self.classes_)

    def save(self, folder: Path) -> None:
        """Refuse: trees are only written as pickles.

        Raises
        ------
        ModelUnavailable
            Always.
        """
        msg = f"{self.display_name} cannot be saved: its trees are only written as pickles."
        raise ModelUnavailable(msg, "Keep its predictions, or save logreg or celltypist.")

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Refuse: nothing was saved.

        Raises
        ------
        ModelUnavailable
            Always.
        """
        msg = f"{cls.display_name} cannot be loaded: it is never saved."
        raise ModelUnavailable(msg, "Fit it again, or load logreg or celltypist.")

    def _components(self, expression: sparse.csr_matrix) -> np.ndarray:
        """Project cells on the training fold's axes."""
        return np.asarray(expression[:, self.columns_] @ self.axes_) - self.mean_ @ self.axes_


def _principal_axes(
    expression: sparse.csr_matrix, mean: np.ndarray, n_components: int
) -> np.ndarray:
    """Return (n_genes, n_components) axes of largest variance, signs fixed.

    From the exact covariance, on one thread: equal on machines with more or fewer cores.
    """
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    n_cells, n_genes = expression.shape
    n = min(n_components, n_genes, max(1, n_cells - 1))
    with threadpool_limits(limits=1, user_api="blas"):
        second = (expression.astype(np.float64).T @ expression.astype(np.float64)).toarray()
        covariance = second / n_cells - np.outer(mean, mean)
        _, axes = eigh(covariance, subset_by_index=(n_genes - n, n_genes - 1))
    axes = axes[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    return axes * np.sign(axes[largest, np.arange(n)])
