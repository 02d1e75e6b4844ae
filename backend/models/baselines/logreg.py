"""One-vs-rest L1 logistic regression on log-normalised counts of all detected genes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Self

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
from backend.models.baselines.l1_path import OneVsRest, fit_one_vs_rest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData

__all__ = ["GRID", "LogisticRegressionL1"]

GRID: Final = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Values of C that the paper tries."""
_LOGS: Final[dict[Any, float]] = {"e": 1.0, 2: math.log(2), 10: math.log(10)}
_N_CV_FOLDS: Final = 3
# How far a gradient may be from what the penalty allows, relative to it. The objective is then
# within 1e-5 of its optimum, and within 1e-4 where C is chosen.
_TOLERANCE: Final = 0.01
_CV_TOLERANCE: Final = 0.1


class LogisticRegressionL1(CellTyper):
    """Fit one sparse linear classifier a type, as Boiarsky et al. set against foundation models.

    Parameters
    ----------
    grid
        Values of C, the inverse strength of the L1 penalty, tried from the smallest on. The one
        with the best macro-F1 over training cells predicted in 3-fold cross-validation grouped by
        donor is taken, of equals the smallest; the first value that is worse than the best ends
        the search. One value is taken as it is.
    min_cells
        A gene is used when it is detected in so many training cells.
    log_base
        Base of the logarithm of the counts: "e", 2 or 10.

    Attributes
    ----------
    C_, cv_macro_f1_
        The chosen C, and the macro-F1 of each C that was tried (empty when nothing was to choose).
    coef_, intercept_
        (n_classes, n_genes) sparse and (n_classes,) weights of the log-normalised counts.
    """

    recipe_version = 2
    """2: C from 0.001 to 10,000 instead of three values."""
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
        self,
        *,
        grid: Sequence[float] = GRID,
        min_cells: int = MIN_CELLS,
        log_base: int | str = "e",
    ) -> None:
        self.grid = grid
        self.min_cells = min_cells
        self.log_base = log_base

    def fit(self, train: AnnData, *, label_key: str, valid: AnnData, seed: int) -> Self:
        """Choose C inside the training cells, then fit on all of them; `valid` is not read."""
        self.check_input(train)
        if not self.grid or min(self.grid) <= 0:
            msg = f"The grid of C is {list(self.grid)}."
            raise InputError(msg, "Give at least one number above 0.")
        if self.log_base not in _LOGS:
            msg = f"The base of the logarithm is {self.log_base!r}."
            raise InputError(msg, "Give log_base as e, 2 or 10.")
        codes, self.classes_ = labels_of(train, label_key)
        self.genes_ = detected_genes(train, min_cells=self.min_cells)
        expression = self._expression(train)
        notes: list[str] = []
        self.C_, start = self._choose(train, expression, codes, seed, notes)
        self.chosen_ = {"C": self.C_}
        if self.cv_macro_f1_:
            tried = [f"{C:g}" for C in self.cv_macro_f1_]
            best = self.cv_macro_f1_[self.C_]
            self.chosen_ |= {"macro-F1 of held-out training donors": round(best, 4)}
            self.chosen_ |= {"C tried": ", ".join(tried)}
        if len(self.classes_) == 1:
            notes.append(f"All training cells are {self.classes_[0]}: nothing else is predicted.")
        found = fit_one_vs_rest(
            expression,
            codes,
            len(self.classes_),
            C=self.C_,
            tolerance=_TOLERANCE,
            start=start,
        )
        self.coef_, self.intercept_ = sparse.csr_matrix(found.coef), found.intercept
        if found.slow:
            names = ", ".join(self.classes_[c] for c in found.slow)
            notes.append(f"The optimum was not reached: {names}.")
        self.notes_ = tuple(notes)
        return self

    def _expression(self, adata: AnnData) -> sparse.csr_matrix:
        """Return the logarithms of counts per 10,000 of the genes that are read, in float64."""
        expression = log_cp10k(align_genes(adata, self.genes_)[0]).astype(np.float64)
        if (log := _LOGS[self.log_base]) != 1.0:
            expression.data /= log
        return expression

    def _choose(
        self,
        train: AnnData,
        expression: sparse.csr_matrix,
        codes: np.ndarray,
        seed: int,
        notes: list[str],
    ) -> tuple[float, OneVsRest | None]:
        """Return C, and the weights of a fit that chose it, to start from."""
        self.cv_macro_f1_: dict[float, float] = {}
        if len(self.grid) == 1 or len(self.classes_) == 1:
            return float(self.grid[0]), None
        parts = list(_cv_parts(train, codes, seed, notes))
        if not parts:
            return float(np.median(self.grid)), None
        n_classes = len(self.classes_)
        fits: list[OneVsRest | None] = [None] * len(parts)
        chosen, kept = float(min(self.grid)), None
        for C in map(float, sorted(self.grid)):
            fits = [
                fit_one_vs_rest(
                    expression[fitted],
                    codes[fitted],
                    n_classes,
                    C=C,
                    tolerance=_CV_TOLERANCE,
                    start=start,
                )
                for (fitted, _), start in zip(parts, fits, strict=True)
            ]
            self.cv_macro_f1_[C] = score = _cv_score(expression, codes, parts, fits)
            if kept is None or score > self.cv_macro_f1_[chosen]:
                chosen, kept = C, fits[0]
            elif score < self.cv_macro_f1_[chosen]:
                break
        return chosen, kept

    def predict(self, adata: AnnData, *, batch_size: int = 64) -> Predictions:
        """Return the sigmoids of the classes, scaled to sum to 1."""
        check_fitted(bool(self.classes_), self.display_name)
        self.check_input(adata)
        expression = self._expression(adata)
        scores = np.asarray((expression @ self.coef_.T).todense()) + self.intercept_
        return Predictions(cell_ids_of(adata), normalised_sigmoids(scores), self.classes_)

    def gene_weights(self) -> tuple[Sequence[str], np.ndarray]:
        """Return genes, and the sum of each one's absolute coefficients over the types."""
        check_fitted(bool(self.classes_), self.display_name)
        return self.genes_, np.asarray(abs(self.coef_).sum(axis=0)).ravel()

    def save(self, folder: Path) -> None:
        """Write weights and genes to `folder`."""
        check_fitted(bool(self.classes_), self.display_name)
        write_model(
            folder,
            key=self.key,
            classes=self.classes_,
            genes=self.genes_,
            values={
                "C": self.C_,
                "grid": list(self.grid),
                "min_cells": self.min_cells,
                "log_base": self.log_base,
            },
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
        # Files of the first recipe name no base: it was e.
        base = values.get("log_base", "e")
        model = cls(grid=tuple(values["grid"]), min_cells=values["min_cells"], log_base=base)
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
    fits: Sequence[OneVsRest | None],
) -> float:
    """Return the macro-F1 over held-out predictions of all parts together."""
    from sklearn.metrics import f1_score

    n_classes = int(codes.max()) + 1
    predicted = np.empty_like(codes)
    for (_, held_out), fit in zip(parts, fits, strict=True):
        assert fit is not None
        # A class that the fitted part lacks keeps zero weights below every other class.
        predicted[held_out] = fit.scores(expression[held_out]).argmax(axis=1)
    return float(
        f1_score(codes, predicted, labels=np.arange(n_classes), average="macro", zero_division=0)
    )
