"""What each baseline promises beyond the conformance suite."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from scipy import sparse

from backend.errors import InputError, ModelUnavailable
from backend.models.baselines import hgb, l1_path, logreg
from backend.models.baselines.celltypist import CellTypist
from backend.models.baselines.expression import (
    align_genes,
    detected_genes,
    log_cp10k,
    normalised_sigmoids,
    read_model,
    variable_genes,
    write_model,
)
from backend.models.baselines.hgb import GradientBoosting
from backend.models.baselines.l1_path import OneVsRest, fit_one_vs_rest, objectives
from backend.models.baselines.logreg import LogisticRegressionL1
from backend.models.baselines.majority import MajorityClass

LABEL = "cell_type_lineage"


def fit(model, train, seed=0):
    return model.fit(train, label_key=LABEL, valid=train[:0].copy(), seed=seed)


def normalised(adata):
    return log_cp10k(sparse.csr_matrix(adata.X))


def test_log_cp10k_by_hand():
    counts = sparse.csr_matrix(np.array([[1, 3, 0], [0, 0, 0]], dtype=np.float32))
    expected = [[np.log1p(2500), np.log1p(7500), 0], [0, 0, 0]]
    np.testing.assert_allclose(log_cp10k(counts).toarray(), expected, rtol=1e-6)


def test_sigmoids_that_all_vanish_still_sum_to_one():
    proba = normalised_sigmoids(np.array([[-2000.0, -1000.0], [-np.inf, 0.0], [3.0, 3.0]]))
    np.testing.assert_allclose(proba, [[0, 1], [0, 1], [0.5, 0.5]], atol=1e-6)


def test_variable_genes_are_those_of_scanpy(make_adata):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scanpy as sc

        rng = np.random.default_rng(0)
        cells = make_adata(n_cells=150, n_genes=400)
        cells.X = sparse.csr_matrix(
            rng.negative_binomial(0.5, 0.1, cells.shape).astype(np.float32)
            * rng.gamma(1, 1, 400).round().astype(np.float32)
        )
        ours = variable_genes(normalised(cells), 60)
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
        theirs = sc.pp.highly_variable_genes(cells, n_top_genes=60, flavor="seurat", inplace=False)
    assert set(ours) == set(theirs["highly_variable"].to_numpy().nonzero()[0])


def test_variable_genes_of_few_genes_are_all(tiny):
    assert list(variable_genes(normalised(tiny), 500)) == list(range(30))


def test_majority_shares_are_those_of_training(tiny):
    train = tiny[tiny.obs[LABEL] != "T"][:20].copy()
    labels = train.obs[LABEL].astype(str)
    predictions = fit(MajorityClass(), train).predict(tiny)
    expected = [(labels == name).mean() for name in predictions.classes]
    np.testing.assert_allclose(predictions.proba[0], expected, rtol=1e-6)


@pytest.mark.parametrize("C", [0.01, 0.1, 1.0, 100.0])
def test_logreg_finds_the_optimum_of_liblinear(make_adata, C):
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    train, cells = make_adata(n_cells=90), make_adata(seed=1)
    model = fit(LogisticRegressionL1(grid=(C,)), train, seed=4)
    expression = normalised(train).astype(np.float64)
    reference = OneVsRestClassifier(
        LogisticRegression(solver="liblinear", l1_ratio=1, C=C, tol=1e-7, max_iter=20_000)
    ).fit(expression, train.obs[LABEL].astype(str))
    fits = reference.estimators_
    theirs = OneVsRest(
        np.vstack([each.coef_ for each in fits]), np.concatenate([e.intercept_ for e in fits])
    )
    ours = OneVsRest(model.coef_.toarray(), model.intercept_)
    codes = np.unique(train.obs[LABEL].astype(str), return_inverse=True)[1]
    ours, theirs = (objectives(expression, codes, each, C=C) for each in (ours, theirs))
    assert (ours <= theirs * (1 + 1e-4)).all()
    np.testing.assert_allclose(
        model.predict(cells).proba,
        reference.predict_proba(normalised(cells).astype(np.float64)),
        atol=0.02,
    )
    assert (model.coef_.toarray() != 0).mean() < 0.9


def test_logreg_is_the_same_from_any_start(make_adata):
    train = make_adata(n_cells=90)
    expression = normalised(train).astype(np.float64)
    codes = np.unique(train.obs[LABEL].astype(str), return_inverse=True)[1]
    cold = fit_one_vs_rest(expression, codes, 3, C=0.3, tolerance=1e-6)
    rng = np.random.default_rng(0)
    strange = OneVsRest(rng.normal(size=cold.coef.shape), np.ones(3))
    warm = fit_one_vs_rest(expression, codes, 3, C=0.3, tolerance=1e-6, start=strange)
    assert cold.slow == warm.slow == ()
    np.testing.assert_allclose(
        objectives(expression, codes, warm, C=0.3), objectives(expression, codes, cold, C=0.3)
    )


@pytest.mark.parametrize(("base", "log"), [("e", 1.0), (2, np.log(2)), (10, np.log(10))])
def test_logreg_reads_logarithms_of_the_base_that_is_asked_for(make_adata, tmp_path, base, log):
    train = make_adata(n_cells=90)
    model = fit(LogisticRegressionL1(grid=(0.1,), log_base=base), train)
    found = model._expression(train).toarray()
    np.testing.assert_allclose(found, normalised(train).toarray() / log, rtol=1e-6)
    model.save(tmp_path)
    again = LogisticRegressionL1.load(tmp_path)
    np.testing.assert_array_equal(again.predict(train).proba, model.predict(train).proba)


def test_logreg_refuses_other_bases(make_adata):
    with pytest.raises(InputError, match="base of the logarithm is 3"):
        fit(LogisticRegressionL1(log_base=3), make_adata(n_cells=90))


def test_logreg_of_the_first_recipe_still_loads(make_adata, tmp_path):
    train = make_adata(n_cells=90)
    model = fit(LogisticRegressionL1(grid=(0.1,)), train)
    model.save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    del about["values"]["log_base"]
    (tmp_path / "model.json").write_text(json.dumps(about), encoding="utf-8")
    again = LogisticRegressionL1.load(tmp_path)
    np.testing.assert_array_equal(again.predict(train).proba, model.predict(train).proba)


def test_logreg_chooses_c_by_held_out_donors(make_adata, monkeypatch):
    train = make_adata(n_cells=90)
    donors = train.obs["donor"].to_numpy()
    parts = list(logreg._cv_parts(train, np.zeros(90, dtype=int), 0, []))
    assert len(parts) == 3
    for fitted, held_out in parts:
        assert not set(donors[fitted]) & set(donors[held_out])

    scores = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    monkeypatch.setattr(logreg, "_cv_score", lambda *_: next(scores))
    model = fit(LogisticRegressionL1(), train)
    # Of equals the smallest; the first worse one ends the search.
    assert model.C_ == 0.01
    assert model.cv_macro_f1_ == {0.001: 0.5, 0.01: 0.7, 0.1: 0.7, 1.0: 0.6}
    assert model.chosen_["C"] == 0.01
    assert model.chosen_["C tried"] == "0.001, 0.01, 0.1, 1"
    assert model.notes_ == ()


@pytest.mark.parametrize(
    ("n_cells", "n_donors", "note"),
    [
        (40, 2, "over cells, not donors: 2 training donors, 3 are needed"),
        (40, 1, "over cells, not donors: 1 training donor, 3 are needed"),
    ],
)
def test_logreg_says_when_donors_are_too_few(make_adata, n_cells, n_donors, note):
    model = fit(LogisticRegressionL1(), make_adata(n_cells=n_cells, n_donors=n_donors))
    assert note in model.notes_[0]


def test_logreg_says_when_it_did_not_converge(make_adata, monkeypatch):
    monkeypatch.setattr(l1_path, "_MAX_ROUNDS", 1)
    model = fit(LogisticRegressionL1(grid=(1.0,)), make_adata(n_cells=90))
    assert "The optimum was not reached: " in model.notes_[0]


def test_logreg_cv_survives_a_type_of_one_donor(make_adata):
    train = make_adata(n_cells=90)
    mono = (train.obs[LABEL] == "Mono").to_numpy() & (train.obs["donor"] != "AML1").to_numpy()
    model = fit(LogisticRegressionL1(), train[~mono].copy())
    assert model.classes_ == ("HSC", "Mono", "T")
    assert all(0 <= score <= 1 for score in model.cv_macro_f1_.values())


def test_celltypist_predicts_as_celltypist_does(make_adata):
    """Its package, given our weights as its own model, agrees cell by cell."""
    train, cells = make_adata(n_cells=120), make_adata(seed=1)[:, 5:].copy()
    model = fit(CellTypist(), train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import celltypist
        from sklearn.linear_model import SGDClassifier
        from sklearn.preprocessing import StandardScaler

        classifier = SGDClassifier()
        classifier.classes_ = np.array(model.classes_)
        classifier.coef_, classifier.intercept_ = model.coef_.copy(), model.intercept_
        classifier.features = np.array(model.genes_)[model.columns_]
        classifier.n_features_in_ = len(classifier.features)
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_ = model.mean_, model.scale_
        description = {"date": "", "details": "", "url": "", "source": "", "version": ""}
        theirs = celltypist.models.Model(classifier, scaler, description)
        query = cells.copy()
        query.X = normalised(cells)
        proba = celltypist.annotate(query, model=theirs).probability_matrix.to_numpy()
    ours = model.predict(cells).proba
    np.testing.assert_allclose(ours, proba / proba.sum(axis=1, keepdims=True), atol=1e-4)


def test_celltypist_fits_mini_batches_from_1001_cells_on(make_adata):
    few, many = make_adata(n_cells=1000), make_adata(n_cells=1001)
    assert fit(CellTypist(), few).notes_ == ("1,000 training cells: fitted without mini-batches.",)
    assert fit(CellTypist(), many).notes_ == ()


def test_celltypist_leaves_logging_and_warnings_alone(tiny):
    import logging

    before = (list(logging.getLogger().handlers), logging.getLogger().level, warnings.filters[:])
    fit(CellTypist(), tiny)
    after = (list(logging.getLogger().handlers), logging.getLogger().level, warnings.filters[:])
    assert after == before


def test_hgb_components_are_centred_and_fitted_on_training_cells(make_adata):
    train = make_adata(n_cells=120)
    model = fit(GradientBoosting(n_components=5, n_iterations=2), train)
    expression = log_cp10k(align_genes(train, model.genes_)[0])
    components = model._components(expression)
    assert components.shape == (120, 5)
    np.testing.assert_allclose(components.mean(axis=0), 0, atol=1e-5)
    covariance = np.cov(components.T)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-4)
    dense = expression.toarray()[:, model.columns_]
    largest = np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)[:5] ** 2 / 119
    np.testing.assert_allclose(np.diag(covariance), largest, rtol=1e-3)


def test_hgb_does_not_depend_on_the_number_of_threads(make_adata, monkeypatch):
    train, cells = make_adata(n_cells=120), make_adata(seed=1)
    proba = []
    for least in (0, 10**9):
        monkeypatch.setattr(hgb, "_MIN_CELLS_FOR_THREADS", least)
        model = fit(GradientBoosting(n_iterations=3), train)
        proba.append(model.predict(cells).proba)
    assert np.array_equal(*proba)


def test_genes_must_be_detected_often_enough(tiny):
    counts = tiny.X.toarray()
    counts[:, 0] = 0
    counts[:9, 0] = 5
    tiny.X = sparse.csr_matrix(counts)
    assert tiny.var_names[0] not in detected_genes(tiny, min_cells=10)
    assert tiny.var_names[0] in detected_genes(tiny, min_cells=9)
    with pytest.raises(InputError, match="None of 30 genes is detected in 41"):
        detected_genes(tiny, min_cells=41)


def test_saved_models_hold_no_pickle(tiny, tmp_path):
    fit(LogisticRegressionL1(grid=(0.1,)), tiny).save(tmp_path / "model")
    with np.load(tmp_path / "model" / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


@pytest.mark.parametrize("spoiled", ["model.json", "classes.json", "genes.json", "arrays.npz"])
def test_damaged_models_are_refused(tmp_path, spoiled):
    write_model(
        tmp_path, key="majority", classes=["T"], genes=[], values={}, arrays={"shares": np.ones(1)}
    )
    assert read_model(tmp_path, key="majority")[0] == ("T",)
    with pytest.raises(ModelUnavailable, match="majority"):
        read_model(tmp_path, key="logreg")
    (tmp_path / spoiled).write_bytes(b"PK\x03\x04 no longer what it was")
    with pytest.raises(ModelUnavailable, match="no readable model"):
        read_model(tmp_path, key="majority")
