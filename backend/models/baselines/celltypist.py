"""CellTypist: its own trainer, fitted on the training fold."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

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
    normalised_sigmoids,
    read_model,
    variable_genes,
    write_model,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

__all__ = ["CellTypist"]

_BATCH_SIZE: Final = 1000
# CellTypist cuts scaled expression here, in training and in prediction.
_MAX_SCALED: Final = 10.0
_PREDICTED_AT_ONCE: Final = 4096


class CellTypist(CellTyper):
    """Fit CellTypist's logistic classifier by stochastic gradient descent on mini-batches.

    Parameters
    ----------
    n_genes
        Number of highly variable genes, chosen on the training cells.
    min_cells
        Genes detected in fewer training cells are left out before that.

    Notes
    -----
    `celltypist.train` gets `use_SGD=True` and `mini_batch=True` with its defaults (batches of
    1,000 cells, 10 epochs). Up to 1,000 training cells there is no batch to draw and it fits on
    all of them at once. Prediction repeats CellTypist's: genes that are missing count as average;
    its independent sigmoids are scaled to sum to 1. No majority voting: a cell is judged alone.
    """

    key = "celltypist"
    display_name = "CellTypist"
    card = ModelCard(
        summary="CellTypist's logistic regression, trained here on 3,000 variable genes; none of "
        "its published models is used.",
        citation="Domínguez Conde et al. 2022, Cross-tissue immune cell analysis reveals "
        "tissue-specific features in humans, Science.",
        doi="10.1126/science.abl5197",
        weights_licence="no weights; code MIT",
        expects="raw counts, gene symbols",
    )

    def __init__(self, *, n_genes: int = 3000, min_cells: int = MIN_CELLS) -> None:
        self.n_genes = n_genes
        self.min_cells = min_cells

    def fit(self, train: AnnData, *, label_key: str, valid: AnnData, seed: int) -> Self:
        """Choose genes, scale and train on the training cells; `valid` is not read."""
        self.check_input(train)
        codes, self.classes_ = labels_of(train, label_key)
        self.genes_ = detected_genes(train, min_cells=self.min_cells)
        expression = log_cp10k(align_genes(train, self.genes_)[0])
        self.columns_ = variable_genes(expression, self.n_genes)
        chosen = expression[:, self.columns_].toarray()
        notes: list[str] = []
        n_classes = len(self.classes_)
        if n_classes == 1:
            notes.append(f"All training cells are {self.classes_[0]}: nothing else is predicted.")
            self.mean_ = chosen.mean(axis=0, dtype=np.float64)
            self.scale_ = np.ones(chosen.shape[1])
            self.coef_ = np.zeros((1, chosen.shape[1]))
            self.intercept_ = np.zeros(1)
            self.notes_ = tuple(notes)
            return self
        has_batches = train.n_obs > _BATCH_SIZE
        if not has_batches:
            notes.append(f"{train.n_obs:,} training cells: fitted without mini-batches.")
        with _quiet_celltypist(seed) as celltypist:
            model = celltypist.train(
                chosen,
                labels=codes,
                genes=np.asarray(self.genes_, dtype=object)[self.columns_],
                # The check wants rows of 10,000 counts, which the chosen genes alone do not have.
                check_expression=False,
                use_SGD=True,
                mini_batch=has_batches,
                batch_size=_BATCH_SIZE,
                date="not recorded",
                random_state=seed,
            )
        classifier, scaler = model.classifier, model.scaler
        if len(classifier.features) < len(self.columns_):
            kept = np.isin(
                np.asarray(self.genes_, dtype=object)[self.columns_], classifier.features
            )
            self.columns_ = self.columns_[kept]
        is_binary = n_classes == 2
        coef, intercept = classifier.coef_, classifier.intercept_
        self.coef_ = np.vstack([-coef, coef]) if is_binary else coef
        self.intercept_ = np.concatenate([-intercept, intercept]) if is_binary else intercept
        self.mean_, self.scale_ = scaler.mean_, scaler.scale_
        self.notes_ = tuple(notes)
        return self

    def predict(self, adata: AnnData, *, batch_size: int = 64) -> Predictions:
        """Return CellTypist's sigmoids, scaled to sum to 1."""
        check_fitted(bool(self.classes_), self.display_name)
        self.check_input(adata)
        counts, is_present = align_genes(adata, self.genes_)
        expression = log_cp10k(counts)[:, self.columns_]
        missing = ~is_present[self.columns_]
        proba = np.empty((adata.n_obs, len(self.classes_)), dtype=np.float32)
        for start in range(0, adata.n_obs, _PREDICTED_AT_ONCE):
            rows = slice(start, start + _PREDICTED_AT_ONCE)
            scaled = (expression[rows].toarray().astype(np.float64) - self.mean_) / self.scale_
            scaled[:, missing] = 0.0
            np.minimum(scaled, _MAX_SCALED, out=scaled)
            proba[rows] = normalised_sigmoids(scaled @ self.coef_.T + self.intercept_)
        return Predictions(cell_ids_of(adata), proba, self.classes_)

    def save(self, folder: Path) -> None:
        """Write weights, scaling and genes to `folder`."""
        check_fitted(bool(self.classes_), self.display_name)
        write_model(
            folder,
            key=self.key,
            classes=self.classes_,
            genes=self.genes_,
            values={"n_genes": self.n_genes, "min_cells": self.min_cells},
            arrays={
                "columns": self.columns_,
                "coef": self.coef_,
                "intercept": self.intercept_,
                "mean": self.mean_,
                "scale": self.scale_,
            },
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Read what `save` wrote."""
        classes, genes, values, arrays = read_model(folder, key=cls.key)
        model = cls(n_genes=values["n_genes"], min_cells=values["min_cells"])
        model.classes_, model.genes_ = classes, genes
        for name in ("columns", "coef", "intercept", "mean", "scale"):
            setattr(model, f"{name}_", arrays[name])
        return model


@contextmanager
def _quiet_celltypist(seed: int) -> Iterator[Any]:
    """Yield the package, silent and seeded, and undo what it changes for the whole process.

    Importing it opens the root logger, switches warnings off and makes a folder in the home;
    its mini-batches are drawn from numpy's global generator.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    before = np.random.get_state()  # noqa: NPY002 - celltypist draws from the global generator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import celltypist
        except OSError as error:
            msg = f"CellTypist cannot make its folder in the home ({error.strerror})."
            raise ModelUnavailable(
                msg, "Set CELLTYPIST_FOLDER to a folder that can be written."
            ) from error
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        celltypist.logger.set_level(logging.ERROR)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield celltypist
        finally:
            np.random.set_state(before)  # noqa: NPY002
