"""One-vs-rest L1 logistic regression on log-normalised counts of all detected genes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from scipy import sparse

from backend.errors import InputError
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
    write_model,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData

__all__ = ["LogisticRegressionL1"]

_N_CV_FOLDS: Final = 3
_TOLERANCE: Final = 1e-4
# The grid spans two orders of magnitude: a tenth of the precision ranks it the same in half
# the time.
_CV_TOLERANCE: Final = 1e-3
_MAX_ITERATIONS: Final = 200
# Processes, not threads: liblinear draws from one generator a process. Each class is fitted by
# itself, so the number changes nothing but the time.
_N_JOBS: Final = 2
_MIN_VALUES_FOR_JOBS: Final = 1_000_000


class LogisticRegressionL1(CellTyper):
    """Fit one sparse linear classifier a type, as Boiarsky et al. set against foundation models.

    Parameters
    ----------
    grid
        Values of C, the inverse strength of the L1 penalty. The one with the best macro-F1 over
        training cells predicted in 3-fold cross-validation grouped by donor is taken, of equals
        the smallest. One value is taken as it is.
    min_cells
        A gene is used when it is detected in so many training cells.

    Attributes
    ----------
    C_, cv_macro_f1_
        The chosen C, and the macro-F1 of each C of the grid (empty when nothing was to choose).
    coef_, intercept_
        (n_classes, n_genes) sparse and (n_classes,) weights of the log-normalised counts.
    """

    key = "logreg"
    display_name = "L1 logistic regression"
    card = ModelCard(
        summary="One-vs-rest logistic regression with an L1 penalty on log1p CP10k of every gene "
        "detected in 10 training cells.",
        citation="Boiarsky et al. 2024, Deeper evaluation of a single-cell foundation model, "
        "Nature Machine Intelligence.",
        doi="10.1038/s42256-024-00949-w",
        weights_licence="no weights",
        expects="raw counts, gene symbols",
    )

    def __init__(
        self, *, grid: Sequence[float] = (0.01, 0.1, 1.0), min_cells: int = MIN_CELLS
    ) -> None:
        self.grid = grid
        self.min_cells = min_cells

    def fit(self, train: AnnData, *, label_key: str, valid: AnnData, seed: int) -> Self:
        """Choose C inside the training cells, then fit on all of them; `valid` is not read."""
        self.check_input(train)
        if not self.grid or min(self.grid) <= 0:
            msg = f"The grid of C is {list(self.grid)}."
            raise InputError(msg, "Give at least one number above 0.")
        codes, self.classes_ = labels_of(train, label_key)
        self.genes_ = detected_genes(train, min_cells=self.min_cells)
        expression = log_cp10k(align_genes(train, self.genes_)[0]).astype(np.float64)
        notes: list[str] = []
        self.cv_macro_f1_: dict[float, float] = {}
        self.C_ = float(self.grid[0])
        if len(self.grid) > 1 and len(self.classes_) > 1:
            parts = list(_cv_parts(train, codes, seed, notes))
            if parts:
                self.cv_macro_f1_ = {
                    float(C): _cv_score(expression, codes, parts, C=C, seed=seed)
                    for C in sorted(self.grid)
                }
                self.C_ = max(self.cv_macro_f1_, key=self.cv_macro_f1_.__getitem__)
            else:
                self.C_ = float(np.median(self.grid))
        if len(self.classes_) == 1:
            notes.append(f"All training cells are {self.classes_[0]}: nothing else is predicted.")
        self.coef_, self.intercept_, slow = _fit_one_vs_rest(
            expression, codes, len(self.classes_), C=self.C_, seed=seed, tolerance=_TOLERANCE
        )
        if len(slow):
            names = ", ".join(self.classes_[c] for c in slow)
            notes.append(f"Not converged after {_MAX_ITERATIONS} iterations: {names}.")
        self.notes_ = tuple(notes)
        return self

    def predict(self, adata: AnnData, *, batch_size: int = 64) -> Predictions:
        """Return the sigmoids of the classes, scaled to sum to 1."""
        check_fitted(bool(self.classes_), self.display_name)
        self.check_input(adata)
        expression = log_cp10k(align_genes(adata, self.genes_)[0]).astype(np.float64)
        scores = np.asarray((expression @ self.coef_.T).todense()) + self.intercept_
        return Predictions(cell_ids_of(adata), normalised_sigmoids(scores), self.classes_)

    def save(self, folder: Path) -> None:
        """Write weights and genes to `folder`."""
        check_fitted(bool(self.classes_), self.display_name)
        write_model(
            folder,
            key=self.key,
            classes=self.classes_,
            genes=self.genes_,
            values={"C": self.C_, "grid": list(self.grid), "min_cells": self.min_cells},
            arrays={
                "coef_data": self.coef_.data,
                "coef_indices": self.coef_.indices,
                "coef_indptr": self.coef_.indptr,
                "intercept": self.intercept_,
            },
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Read what `save` wrote."""
        classes, genes, values, arrays = read_model(folder, key=cls.key)
        model = cls(grid=tuple(values["grid"]), min_cells=values["min_cells"])
        model.classes_, model.genes_, model.C_ = classes, genes, values["C"]
        model.intercept_ = arrays["intercept"]
        model.coef_ = sparse.csr_matrix(
            (arrays["coef_data"], arrays["coef_indices"], arrays["coef_indptr"]),
            shape=(len(classes), len(genes)),
        )
        return model


def _cv_parts(
    train: AnnData, codes: np.ndarray, seed: int, notes: list[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield fitted and held-out rows; say in `notes` when they are not grouped by donor."""
    from sklearn.model_selection import GroupKFold, KFold

    donors = train.obs["donor"].astype(str).to_numpy() if "donor" in train.obs else None
    n_donors = 0 if donors is None else len(np.unique(donors))
    if n_donors >= _N_CV_FOLDS:
        yield from GroupKFold(_N_CV_FOLDS).split(codes, groups=donors)
        return
    known = f"{n_donors} training donor{'' if n_donors == 1 else 's'}" if n_donors else "no donors"
    if len(codes) < _N_CV_FOLDS:
        notes.append(f"C is the middle of its grid: {len(codes)} training cells, {known}.")
        return
    notes.append(
        f"C was chosen by cross-validation over cells, not donors: {known}, "
        f"{_N_CV_FOLDS} are needed."
    )
    yield from KFold(_N_CV_FOLDS, shuffle=True, random_state=seed).split(codes)


def _cv_score(
    expression: sparse.csr_matrix,
    codes: np.ndarray,
    parts: list[tuple[np.ndarray, np.ndarray]],
    *,
    C: float,
    seed: int,
) -> float:
    """Return the macro-F1 over held-out predictions of all parts together."""
    from sklearn.metrics import f1_score

    n_classes = int(codes.max()) + 1
    predicted = np.empty_like(codes)
    for fitted, held_out in parts:
        # A class that the fitted part lacks keeps zero weights below every other class.
        coef, intercept, _ = _fit_one_vs_rest(
            expression[fitted], codes[fitted], n_classes, C=C, seed=seed, tolerance=_CV_TOLERANCE
        )
        scores = np.asarray((expression[held_out] @ coef.T).todense()) + intercept
        predicted[held_out] = scores.argmax(axis=1)
    return float(
        f1_score(codes, predicted, labels=np.arange(n_classes), average="macro", zero_division=0)
    )


def _fit_one_vs_rest(
    expression: sparse.csr_matrix,
    codes: np.ndarray,
    n_classes: int,
    *,
    C: float,
    seed: int,
    tolerance: float,
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Return weights (n_classes, n_genes), intercepts and the classes that did not converge.

    A class without a cell gets no weight and an intercept that no score is below.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    seen = np.unique(codes)
    intercept = np.full(n_classes, -np.inf)
    if len(seen) == 1:
        intercept[seen] = 0.0
        return sparse.csr_matrix((n_classes, expression.shape[1])), intercept, seen[:0]
    one_vs_rest = OneVsRestClassifier(
        LogisticRegression(
            solver="liblinear",
            l1_ratio=1,
            C=C,
            tol=tolerance,
            max_iter=_MAX_ITERATIONS,
            random_state=seed,
        ),
        n_jobs=_N_JOBS if expression.nnz >= _MIN_VALUES_FOR_JOBS else 1,
    )
    with warnings.catch_warnings():
        # Told to the user in the notes of the run.
        warnings.simplefilter("ignore", ConvergenceWarning)
        one_vs_rest.fit(expression, codes)
    fits = one_vs_rest.estimators_
    weights = np.vstack([fit.coef_ for fit in fits])
    offsets = np.concatenate([fit.intercept_ for fit in fits])
    n_iterations = np.array([int(np.max(fit.n_iter_)) for fit in fits])
    if len(seen) == 2:
        # One fit serves both classes: the second's weights and their negative.
        weights, offsets = np.vstack([-weights, weights]), np.concatenate([-offsets, offsets])
        n_iterations = np.repeat(n_iterations, 2)
    intercept[seen] = offsets
    rows = sparse.csr_matrix(
        (np.ones(len(seen)), (seen, np.arange(len(seen)))), shape=(n_classes, len(seen))
    )
    coef = (rows @ sparse.csr_matrix(weights)).tocsr()
    return coef, intercept, seen[n_iterations >= _MAX_ITERATIONS]
