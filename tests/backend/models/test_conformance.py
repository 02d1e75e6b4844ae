"""What every model keeps. A new model is one row of `ROWS`."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
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


@pytest.fixture(
    params=[pytest.param(row, marks=pytest.mark.slow if row.preset else ()) for row in ROWS],
    ids=lambda row: row.preset or row.model,
)
def row(request) -> Row:
    return request.param


@pytest.fixture(scope="module")
def fitted(make_adata):
    """Return a model of a row fitted on 120 cells; each is fitted once, so do not change it."""
    cache: dict[str, CellTyper] = {}

    def fit(row: Row) -> CellTyper:
        name = row.preset or row.model
        if name not in cache:
            cache[name] = fit_on(row, make_adata(n_cells=120))
        return cache[name]

    return fit


def fit_on(row: Row, train: ad.AnnData, **options: Any) -> CellTyper:
    valid = options.pop("valid", train[:0].copy())
    return row.typer().fit(train, label_key=LABEL, valid=valid, seed=options.pop("seed", 0))


def test_every_registered_model_has_a_row():
    assert {row.model for row in ROWS} >= set(list_models())


def test_class_says_what_it_is(row):
    model = model_class(row.model)
    assert model.key == row.model
    assert model.display_name
    for text in (model.card.summary, model.card.citation, model.card.doi, model.card.expects):
        assert text


def test_predictions_are_probabilities_in_input_order(row, fitted, make_adata):
    cells = make_adata(seed=1)
    predictions = fitted(row).predict(cells)
    assert list(predictions.cell_ids) == list(cells.obs_names)
    assert predictions.classes == ("HSC", "Mono", "T")
    assert predictions.proba.shape == (40, 3)
    assert predictions.proba.dtype == np.float32
    assert (predictions.proba >= 0).all()
    np.testing.assert_allclose(predictions.proba.sum(axis=1), 1, atol=1e-5)


def test_learns_what_is_plain(row, fitted, make_adata):
    cells = make_adata(seed=1)
    predictions = fitted(row).predict(cells)
    predicted = np.array(predictions.classes)[predictions.proba.argmax(axis=1)]
    right = (predicted == cells.obs[LABEL].to_numpy()).mean()
    assert right >= row.least_right


def test_input_is_not_mutated(row, make_adata):
    train, valid, untouched = make_adata(), make_adata(seed=2), make_adata()
    typer = fit_on(row, train, valid=valid)
    typer.predict(valid)
    for cells, copy in ((train, untouched), (valid, make_adata(seed=2))):
        assert (cells.X != copy.X).nnz == 0
        pd.testing.assert_frame_equal(cells.obs, copy.obs)
        assert list(cells.var_names) == list(copy.var_names)
        assert not cells.layers


def test_order_of_cells_does_not_matter(row, fitted, make_adata):
    cells = make_adata(seed=1)
    order = np.random.default_rng(0).permutation(cells.n_obs)
    plain = fitted(row).predict(cells).proba
    shuffled = fitted(row).predict(cells[order].copy()).proba
    np.testing.assert_allclose(shuffled, plain[order], atol=1e-5)


def test_order_of_genes_does_not_matter(row, fitted, make_adata):
    cells = make_adata(seed=1)
    order = np.random.default_rng(0).permutation(cells.n_vars)
    plain = fitted(row).predict(cells).proba
    np.testing.assert_allclose(fitted(row).predict(cells[:, order].copy()).proba, plain, atol=1e-5)


def test_unknown_genes_change_nothing(row, fitted, make_adata):
    cells = make_adata(seed=1)
    strange = ad.AnnData(
        sparse.csr_matrix(np.full((cells.n_obs, 5), 3.0, dtype=np.float32)),
        obs=cells.obs,
        var=pd.DataFrame(index=[f"NEW{i}" for i in range(5)]),
    )
    wider = ad.concat([strange, cells], axis=1, merge="first")
    wider.obs = cells.obs.assign(n_counts=cells.obs["n_counts"] + np.float32(15))
    np.testing.assert_allclose(
        fitted(row).predict(wider).proba, fitted(row).predict(cells).proba, atol=1e-5
    )


def test_missing_genes_are_survived(row, fitted, make_adata):
    cells = make_adata(seed=1)[:, :20].copy()
    proba = fitted(row).predict(cells).proba
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)


def test_one_cell_is_predicted_as_among_others(row, fitted, make_adata):
    cells = make_adata(seed=1)
    alone = fitted(row).predict(cells[7].copy()).proba
    assert alone.shape == (1, 3)
    np.testing.assert_allclose(alone, fitted(row).predict(cells).proba[7:8], atol=1e-5)


def test_no_cell_gives_no_row(row, fitted, make_adata):
    assert fitted(row).predict(make_adata()[:0].copy()).proba.shape == (0, 3)


def test_a_cell_without_counts_is_predicted(row, fitted, make_adata):
    cells = make_adata(seed=1)
    counts = cells.X.toarray()
    counts[0] = 0
    cells.X = sparse.csr_matrix(counts)
    np.testing.assert_allclose(fitted(row).predict(cells).proba.sum(axis=1), 1, atol=1e-5)


def test_dense_counts_give_the_same(row, fitted, make_adata):
    cells = make_adata(seed=1)
    plain = fitted(row).predict(cells).proba
    cells.X = cells.X.toarray()
    np.testing.assert_allclose(fitted(row).predict(cells).proba, plain, atol=1e-6)


def test_equal_seeds_give_equal_predictions(row, fitted, make_adata):
    cells = make_adata(seed=1)
    again = fit_on(row, make_adata(n_cells=120)).predict(cells)
    assert np.array_equal(again.proba, fitted(row).predict(cells).proba)


def test_global_random_state_is_left_alone(row, make_adata):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    fit_on(row, make_adata(), seed=3)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("types", [["T"], ["Mono", "T"]])
def test_one_or_two_types_are_enough(row, make_adata, types):
    train = make_adata(n_cells=90)
    train = train[train.obs[LABEL].isin(types)].copy()
    predictions = fit_on(row, train).predict(make_adata())
    assert predictions.classes == tuple(types)
    np.testing.assert_allclose(predictions.proba.sum(axis=1), 1, atol=1e-5)


def test_a_type_with_one_training_cell_is_a_class(row, make_adata):
    train = make_adata(n_cells=60)
    mono = (train.obs[LABEL] == "Mono").to_numpy().nonzero()[0]
    train = train[np.setdiff1d(np.arange(60), mono[1:])].copy()
    predictions = fit_on(row, train).predict(make_adata())
    assert predictions.classes == ("HSC", "Mono", "T")


def test_valid_cells_never_teach_a_type(row, make_adata):
    train, valid = make_adata(), make_adata(seed=2)
    valid.obs[LABEL] = "Only in valid"
    assert fit_on(row, train, valid=valid).classes_ == ("HSC", "Mono", "T")


def test_save_and_load_predict_equally(row, fitted, make_adata, tmp_path):
    cells = make_adata(seed=1)
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
    assert np.array_equal(loaded.predict(cells).proba, typer.predict(cells).proba)
    for path in (tmp_path / "model").iterdir():
        assert path.suffix in {".json", ".npz", ".safetensors", ".bin"}


def test_loading_another_folder_is_refused(row, tmp_path):
    if not row.is_savable:
        pytest.skip("nothing to load")
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


def test_foreign_genes_are_refused(row, fitted, make_adata):
    if not row.reads_genes:
        pytest.skip("reads no gene")
    cells = make_adata()
    cells.var_names = [f"MOUSE{i}" for i in range(cells.n_vars)]
    with pytest.raises(InputError, match="genes"):
        fitted(row).predict(cells)


def test_unlabelled_training_cells_are_refused(row, make_adata):
    with pytest.raises(LabelError, match="3 of 40 training cells"):
        fit_on(row, make_adata(n_unlabelled=3))


def test_missing_label_column_is_refused(row, make_adata):
    train = make_adata()
    with pytest.raises(LabelError, match='no column "nowhere"'):
        row.typer().fit(train, label_key="nowhere", valid=train[:0].copy(), seed=0)
