"""What the baselines share: checks, log-normalised expression, variable genes and saved arrays."""

from __future__ import annotations

import json
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse

from backend.data.matrix import log_cp10k
from backend.errors import InputError, LabelError, ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

__all__ = [
    "align_genes",
    "cell_ids_of",
    "check_counts",
    "check_fitted",
    "detected_genes",
    "labels_of",
    "log_cp10k",
    "normalised_sigmoids",
    "read_model",
    "variable_genes",
    "write_model",
]

MIN_CELLS: Final = 10
"""A gene must be detected in so many training cells to be used."""

MIN_SHARE_OF_GENES: Final = 0.1
"""A model refuses cells that bring less than this share of the genes it was fitted on."""

_N_MEAN_BINS: Final = 20
_MODEL_FORMAT: Final = 1


def check_counts(adata: AnnData) -> None:
    """Raise `InputError` unless `X` holds raw counts under unique gene names."""
    if adata.n_vars == 0:
        msg = f"The {adata.n_obs:,} cells have no genes."
        raise InputError(msg, "Give cells with counts.")
    if not adata.var_names.is_unique:
        repeated = sorted(set(adata.var_names[adata.var_names.duplicated()]))
        msg = f"{len(repeated):,} genes occur more than once: {', '.join(repeated[:5])}."
        raise InputError(msg, "Sum the counts of repeated genes first.")
    values = adata.X.data if sparse.issparse(adata.X) else np.asarray(adata.X)
    if values.size == 0:
        return
    if not np.isfinite(values).all():
        msg = f"`X` holds {int((~np.isfinite(values)).sum()):,} values that are not numbers."
        raise InputError(msg, "Give raw counts: whole numbers from 0.")
    if values.min() < 0:
        msg = f"`X` holds negative values (min {values.min():.2f}), so it looks scaled."
        raise InputError(msg, "Give raw counts: whole numbers from 0.")
    if (values != np.floor(values)).any():
        msg = f"`X` holds non-integer values (max {values.max():.2f}), so it looks log-normalised."
        raise InputError(msg, 'Give raw counts; put them in `layers["counts"]` of the file.')


def check_fitted(is_fitted: bool, name: str) -> None:  # noqa: FBT001
    """Raise `InputError` when a model is used before `fit` or `load`."""
    if not is_fitted:
        msg = f"{name} was not fitted yet."
        raise InputError(msg, "Call `fit` or `load` before `predict` and `save`.")


def cell_ids_of(adata: AnnData) -> np.ndarray:
    """Return `obs_names` as (n_cells,) str objects."""
    return adata.obs_names.to_numpy().astype(object)


def labels_of(train: AnnData, label_key: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the (n_cells,) class numbers of the training cells and the sorted classes.

    Raises
    ------
    LabelError
        If the column is missing or any training cell has no label.
    """
    if label_key not in train.obs:
        found = ", ".join(sorted(map(str, train.obs.columns))[:5])
        msg = f'`obs` has no column "{label_key}". Found: {found}.'
        raise LabelError(msg, "Name the column of the label level to train.")
    column: pd.Series = train.obs[label_key]
    if train.n_obs == 0 or column.isna().any():
        n = int(column.isna().sum())
        msg = f'{n:,} of {train.n_obs:,} training cells have no "{label_key}".'
        raise LabelError(msg, "Train on labelled cells, at least one.")
    classes, codes = np.unique(column.astype(str).to_numpy().astype(object), return_inverse=True)
    return codes, tuple(map(str, classes))


def detected_genes(train: AnnData, *, min_cells: int) -> tuple[str, ...]:
    """Return the genes with counts in at least `min_cells` cells, in the order of `var_names`.

    Raises
    ------
    InputError
        If there is none.
    """
    n_cells = np.asarray((train.X > 0).sum(axis=0)).ravel()
    genes = tuple(map(str, train.var_names[n_cells >= min_cells]))
    if not genes:
        msg = (
            f"None of {train.n_vars:,} genes is detected in {min_cells} of the {train.n_obs:,} "
            f"training cells (at most in {int(n_cells.max(initial=0))})."
        )
        raise InputError(msg, "Train on more cells.")
    return genes


def align_genes(adata: AnnData, genes: Sequence[str]) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return counts with columns in the order of `genes`, and which of them `adata` has.

    Genes that `adata` lacks are columns of zeros; genes that the model does not know are left
    out, so that they can change nothing.

    Raises
    ------
    InputError
        If `adata` brings less than `MIN_SHARE_OF_GENES` of the genes.
    """
    found = adata.var_names.get_indexer(list(genes))
    is_present = found >= 0
    if is_present.sum() < max(1, MIN_SHARE_OF_GENES * len(genes)):
        share = is_present.mean()
        msg = (
            f"Only {is_present.sum():,} of the {len(genes):,} genes of this model "
            f"({share:.0%}) are in the data."
        )
        raise InputError(msg, "Check that genes are named by the symbols used in training.")
    counts = sparse.csr_matrix(adata.X, dtype=np.float32)
    columns = counts[:, found[is_present]]
    spread = sparse.csr_matrix(
        (
            np.ones(int(is_present.sum()), dtype=np.float32),
            (np.arange(int(is_present.sum())), is_present.nonzero()[0]),
        ),
        shape=(int(is_present.sum()), len(genes)),
    )
    aligned = columns if is_present.all() else (columns @ spread).tocsr()
    aligned.sort_indices()
    return aligned, is_present


def variable_genes(expression: sparse.csr_matrix, n_genes: int) -> np.ndarray:
    """Return the sorted columns of the genes whose dispersion stands out at their mean.

    Parameters
    ----------
    expression
        log(1 + counts per 10,000) of the training cells.
    n_genes
        How many genes to return; all when there are fewer.

    Notes
    -----
    Binned normalised dispersion, after Satija et al. 2015 (doi:10.1038/nbt.3192) as in scanpy's
    `highly_variable_genes(flavor="seurat")`. Of equal genes the first wins.
    """
    n_cells = expression.shape[0]
    linear = expression.astype(np.float64)
    linear.data = np.expm1(linear.data)
    mean = np.asarray(linear.mean(axis=0)).ravel()
    square = np.asarray(linear.power(2).mean(axis=0)).ravel()
    variance = (square - mean**2) * n_cells / max(1, n_cells - 1)
    mean[mean == 0] = 1e-12
    dispersion = variance / mean
    dispersion[dispersion <= 0] = np.nan
    dispersion = np.log(dispersion)
    mean = np.log1p(mean)

    edges = np.linspace(mean.min(), mean.max(), _N_MEAN_BINS + 1)
    bins = np.clip(np.searchsorted(edges, mean, side="left") - 1, 0, _N_MEAN_BINS - 1)
    score = np.full(len(mean), -np.inf)
    for number in np.unique(bins):
        members = (bins == number) & np.isfinite(dispersion)
        values = dispersion[members]
        if len(values) == 1:
            # A gene alone in its bin has no spread to be measured by.
            score[members] = 1.0
        elif len(values) and values.std(ddof=1) > 0:
            score[members] = (values - values.mean()) / values.std(ddof=1)
    return np.sort(np.argsort(-score, kind="stable")[:n_genes])


def normalised_sigmoids(scores: np.ndarray) -> np.ndarray:
    """Turn one-vs-rest scores (n_cells, n_classes) into float32 rows that sum to 1.

    A row whose sigmoids all vanish falls back to the softmax of its scores.
    """
    proba = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    totals = proba.sum(axis=1, keepdims=True)
    if (totals < 1e-290).any():
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        proba = np.where(totals < 1e-290, shifted, proba)
        totals = proba.sum(axis=1, keepdims=True)
    return (proba / totals).astype(np.float32)


def write_model(
    folder: Path,
    *,
    key: str,
    classes: Sequence[str],
    genes: Sequence[str],
    values: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write a fitted model as `model.json`, `classes.json`, `genes.json` and `arrays.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"format_version": _MODEL_FORMAT, "model": key, "values": dict(values)}
    for name, content in (
        ("model.json", head),
        ("classes.json", list(classes)),
        ("genes.json", list(genes)),
    ):
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(folder / "arrays.npz", allow_pickle=False, **arrays)


def read_model(
    folder: Path, *, key: str
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any], dict[str, np.ndarray]]:
    """Return classes, genes, values and arrays that `write_model` wrote for model `key`.

    Raises
    ------
    ModelUnavailable
        If a file is missing or damaged, or the folder holds another model.
    """
    try:
        head = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        classes = tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
        genes = tuple(json.loads((folder / "genes.json").read_text(encoding="utf-8")))
        # Opened here: numpy leaves a damaged file open.
        with (
            (folder / "arrays.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        msg = f'The folder "{folder.name}" holds no readable model ({type(error).__name__}).'
        raise ModelUnavailable(msg, "Fit and save the model again.") from error
    found = (head.get("model"), head.get("format_version")) if isinstance(head, dict) else None
    if found != (key, _MODEL_FORMAT):
        msg = f'The folder "{folder.name}" holds {found}, not model "{key}" of format {_MODEL_FORMAT}.'
        raise ModelUnavailable(msg, "Load it as the model that saved it.")
    return classes, genes, head["values"], arrays
