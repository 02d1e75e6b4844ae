"""What every model keeps. A new model is one row of `ROWS`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from backend.errors import FaultlineError, InputError, LabelError, ModelUnavailable
from backend.models.registry import list_models, model_class
from backend.training.runs import build_typer
from backend.types import Series

if TYPE_CHECKING:
    from backend.models.base import CellTyper

LABEL = "cell_type_lineage"


@dataclass(frozen=True, eq=False)
class Row:
    """One model and what may be asked of it on tiny data."""

    model: str
    preset: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    reads_genes: bool = True
    is_savable: bool = True
    least_right: float = 0.9

    def typer(self) -> CellTyper:
        return build_typer(
            Series(
                dataset_id="0" * 16,
                protocol="donor",
                model=self.model,
                preset=self.preset,
                settings=self.settings,
            )
        )


ROWS = [
    Row("majority", reads_genes=False, least_right=0.3),
    Row("logreg"),
    Row("celltypist"),
    Row("hgb", settings={"n_iterations": 5}, is_savable=False),
    *(
        Row(model, preset=f"{model}.small", settings={"epochs": 1, "batch_size": 16}, least_right=0)
        for model in ("scbert", "scfoundation", "scgpt", "geneformer")
    ),
]


@pytest.fixture(params=ROWS, ids=lambda row: row.preset or row.model)
def row(request) -> Row:
    return request.param


@dataclass(frozen=True)
class Fit:
    """One fit of a row, what it was given, and what numpy's generator was before and after."""

    typer: CellTyper
    train: ad.AnnData
    valid: ad.AnnData
    random: tuple[np.ndarray, np.ndarray]


def strange_valid(make_adata) -> ad.AnnData:
    valid = make_adata(seed=2)
    valid.obs[LABEL] = "Only in valid"
    return valid


@pytest.fixture(scope="module")
def fit_of(make_adata):
    """Return what fits a row to 120 cells, once; do not change the model."""

    @cache
    def fit(row: Row) -> Fit:
        train, valid = make_adata(n_cells=120), strange_valid(make_adata)
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        typer = fit_on(row, train, valid=valid)
        after = np.random.get_state()[1].copy()  # noqa: NPY002
        return Fit(typer, train, valid, (before, after))

    return fit


@pytest.fixture(scope="module")
def fitted(fit_of):
    return lambda row: fit_of(row).typer


@pytest.fixture(scope="module")
def plain(fitted, make_adata):
    """Return the predictions of a row for 40 other cells, made once."""
    return cache(lambda row: fitted(row).predict(make_adata(seed=1)))


def fit_on(row: Row, train: ad.AnnData, *, valid: ad.AnnData | None = None) -> CellTyper:
    valid = train[:0].copy() if valid is None else valid
    return row.typer().fit(train, label_key=LABEL, valid=valid, seed=0)


def test_every_registered_model_has_a_row():
    assert {row.model for row in ROWS} >= set(list_models())


def test_class_says_what_it_is(row):
    model = model_class(row.model)
    assert model.key == row.model
    assert model.display_name
    for text in (model.card.summary, model.card.citation, model.card.doi, model.card.expects):
        assert text
    assert model.kind == ("foundation" if row.preset else "baseline")
    assert bool(model.presets) == (model.kind == "foundation")
    assert model.is_savable == row.is_savable
    typer = row.typer()
    assert (typer.key, typer.kind, typer.is_savable) == (row.model, model.kind, row.is_savable)


def test_predictions_are_probabilities_in_input_order(row, plain, make_adata):
    predictions = plain(row)
    assert list(predictions.cell_ids) == list(make_adata(seed=1).obs_names)
    assert predictions.classes == ("HSC", "Mono", "T")
    assert predictions.proba.shape == (40, 3)
    assert predictions.proba.dtype == np.float32
    assert (predictions.proba >= 0).all()
    np.testing.assert_allclose(predictions.proba.sum(axis=1), 1, atol=1e-5)


def test_learns_what_is_plain(row, plain, make_adata):
    predictions = plain(row)
    predicted = np.array(predictions.classes)[predictions.proba.argmax(axis=1)]
    right = (predicted == make_adata(seed=1).obs[LABEL].to_numpy()).mean()
    assert right >= row.least_right


def assert_untouched(cells, copy):
    assert (cells.X != copy.X).nnz == 0
    pd.testing.assert_frame_equal(cells.obs, copy.obs)
    assert list(cells.var_names) == list(copy.var_names)
    assert not cells.layers


def test_input_is_not_mutated(row, fit_of, make_adata):
    fit, cells = fit_of(row), make_adata(seed=1)
    fit.typer.predict(cells)
    assert_untouched(fit.train, make_adata(n_cells=120))
    assert_untouched(fit.valid, strange_valid(make_adata))
    assert_untouched(cells, make_adata(seed=1))


def test_order_of_cells_does_not_matter(row, fitted, plain, make_adata):
    cells = make_adata(seed=1)
    order = np.random.default_rng(0).permutation(cells.n_obs)
    shuffled = fitted(row).predict(cells[order].copy()).proba
    np.testing.assert_allclose(shuffled, plain(row).proba[order], atol=1e-5)


def test_order_of_genes_does_not_matter(row, fitted, plain, make_adata):
    cells = make_adata(seed=1)
    order = np.random.default_rng(0).permutation(cells.n_vars)
    shuffled = fitted(row).predict(cells[:, order].copy()).proba
    np.testing.assert_allclose(shuffled, plain(row).proba, atol=1e-5)


def test_unknown_genes_change_nothing(row, fitted, plain, make_adata):
    cells = make_adata(seed=1)
    strange = ad.AnnData(
        sparse.csr_matrix(np.full((cells.n_obs, 5), 3.0, dtype=np.float32)),
        obs=cells.obs,
        var=pd.DataFrame(index=[f"NEW{i}" for i in range(5)]),
    )
    wider = ad.concat([strange, cells], axis=1, merge="first")
    wider.obs = cells.obs.assign(n_counts=cells.obs["n_counts"] + np.float32(15))
    np.testing.assert_allclose(fitted(row).predict(wider).proba, plain(row).proba, atol=1e-5)


def test_missing_genes_are_survived(row, fitted, make_adata):
    cells = make_adata(seed=1)[:, :20].copy()
    proba = fitted(row).predict(cells).proba
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)


def test_one_cell_is_predicted_as_among_others(row, fitted, plain, make_adata):
    alone = fitted(row).predict(make_adata(seed=1)[7].copy()).proba
    assert alone.shape == (1, 3)
    np.testing.assert_allclose(alone, plain(row).proba[7:8], atol=1e-5)


def test_no_cell_gives_no_row(row, fitted, make_adata):
    assert fitted(row).predict(make_adata()[:0].copy()).proba.shape == (0, 3)


def test_a_cell_without_counts_is_predicted(row, fitted, make_adata):
    cells = make_adata(seed=1)
    counts = cells.X.toarray()
    counts[0] = 0
    cells.X = sparse.csr_matrix(counts)
    np.testing.assert_allclose(fitted(row).predict(cells).proba.sum(axis=1), 1, atol=1e-5)


def test_dense_counts_give_the_same(row, fitted, plain, make_adata):
    cells = make_adata(seed=1)
    cells.X = cells.X.toarray()
    np.testing.assert_allclose(fitted(row).predict(cells).proba, plain(row).proba, atol=1e-5)


def test_equal_seeds_give_equal_predictions(row, plain, make_adata):
    again = fit_on(row, make_adata(n_cells=120), valid=strange_valid(make_adata))
    assert np.array_equal(again.predict(make_adata(seed=1)).proba, plain(row).proba)


def test_global_random_state_is_left_alone(row, fit_of):
    assert np.array_equal(*fit_of(row).random)


def test_one_type_is_enough(row, make_adata):
    train = make_adata(n_cells=90)
    predictions = fit_on(row, train[train.obs[LABEL] == "T"].copy()).predict(make_adata())
    assert predictions.classes == ("T",)
    np.testing.assert_allclose(predictions.proba, 1, atol=1e-5)


def test_two_types_are_enough_and_one_cell_makes_a_type(row, make_adata):
    train = make_adata(n_cells=60)
    labels = train.obs[LABEL].to_numpy()
    kept = np.append((labels == "Mono").nonzero()[0][:1], (labels == "T").nonzero()[0])
    predictions = fit_on(row, train[np.sort(kept)].copy()).predict(make_adata())
    assert predictions.classes == ("Mono", "T")
    np.testing.assert_allclose(predictions.proba.sum(axis=1), 1, atol=1e-5)


def test_valid_cells_never_teach_a_type(row, fitted):
    assert fitted(row).classes_ == ("HSC", "Mono", "T")


def test_save_and_load_predict_equally(row, fitted, plain, make_adata, tmp_path):
    typer = fitted(row)
    if not row.is_savable:
        with pytest.raises(ModelUnavailable, match="cannot be saved"):
            typer.save(tmp_path / "model")
        assert not (tmp_path / "model").exists()
        with pytest.raises(ModelUnavailable, match="never saved"):
            type(typer).load(tmp_path / "model")
        return
    typer.save(tmp_path / "model")
    loaded = type(typer).load(tmp_path / "model")
    assert loaded.classes_ == typer.classes_
    assert np.array_equal(loaded.predict(make_adata(seed=1)).proba, plain(row).proba)
    for path in (tmp_path / "model").iterdir():
        assert path.suffix in {".json", ".npz", ".safetensors", ".bin"}


def test_loading_another_folder_is_refused(row, tmp_path):
    # Of what cannot be saved, every folder is another one.
    with pytest.raises(FaultlineError):
        type(row.typer()).load(tmp_path)


def test_predict_before_fit_is_refused(row, make_adata):
    with pytest.raises(InputError, match="not fitted"):
        row.typer().predict(make_adata())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: X.multiply(0.37).tocsr(), "non-integer"),
        (lambda X: -X, "negative"),
        (lambda X: X * np.float32("nan"), "not numbers"),
    ],
)
def test_wrong_counts_are_refused(row, fitted, make_adata, spoil, message):
    cells = make_adata()
    cells.X = spoil(cells.X)
    with pytest.raises(InputError, match=message):
        row.typer().check_input(cells)
    with pytest.raises(InputError, match=message):
        fit_on(row, cells)
    with pytest.raises(InputError, match=message):
        fitted(row).predict(cells)


def test_foreign_genes_are_refused_by_who_reads_genes(row, fitted, make_adata):
    cells = make_adata()
    cells.var_names = [f"MOUSE{i}" for i in range(cells.n_vars)]
    if not row.reads_genes:
        assert fitted(row).predict(cells).proba.shape == (40, 3)
        return
    with pytest.raises(InputError, match="genes"):
        fitted(row).predict(cells)


def test_unlabelled_training_cells_are_refused(row, make_adata):
    with pytest.raises(LabelError, match="3 of 40 training cells"):
        fit_on(row, make_adata(n_unlabelled=3))


def test_missing_label_column_is_refused(row, make_adata):
    train = make_adata()
    with pytest.raises(LabelError, match='no column "nowhere"'):
        row.typer().fit(train, label_key="nowhere", valid=train[:0].copy(), seed=0)
