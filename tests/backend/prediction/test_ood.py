from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from backend.errors import ModelUnavailable
from backend.models.base import Predictions
from backend.models.baselines.majority import MajorityClass
from backend.models.reference import OUTSIDE, Reference, fit_reference

LABEL = "cell_type_lineage"


def reference_of(train, seed=0):
    typer = MajorityClass().fit(train, label_key=LABEL, valid=train[:0], seed=0)
    return fit_reference(typer, train, label_key=LABEL, seed=seed)


def percentiles(reference, cells):
    nothing = Predictions(cells.obs_names.to_numpy(), np.zeros((cells.n_obs, 0)), ())
    return reference.percentiles(reference.distances(cells, nothing))


def far(cells, seed=0):
    """Give every cell the expression of none of the types."""
    moved = cells.copy()
    rng = np.random.default_rng(seed)
    moved.X = sparse.csr_matrix(rng.permuted(moved.X.toarray(), axis=1))
    return moved


def test_cells_of_a_new_donor_belong_and_scrambled_cells_do_not(make_adata):
    train = make_adata(400, n_donors=8)
    like, new = make_adata(200, n_donors=8, seed=1), far(make_adata(200, seed=2))
    reference = reference_of(train)
    assert reference.held_out.shape == (8, 101)
    assert np.mean(percentiles(reference, like) > OUTSIDE) == pytest.approx(0.05, abs=0.06)
    assert np.mean(percentiles(reference, new) > OUTSIDE) > 0.9


def test_a_programme_that_no_training_cell_lacks_is_missed(make_adata):
    train = make_adata(400, n_donors=8)
    new = make_adata(60, seed=3)
    counts = new.X.toarray()
    counts[:, ::3] = 0
    new.X = sparse.csr_matrix(counts)
    shares = percentiles(reference_of(train), new)
    is_hsc = (new.obs[LABEL] == "HSC").to_numpy()
    assert np.mean(shares[is_hsc] > OUTSIDE) > 0.9


def test_cells_with_few_of_the_genes_have_no_place(make_adata):
    cells = make_adata(30, seed=3)
    cells.var_names = [*cells.var_names[:2], *(f"OTHER{i}" for i in range(cells.n_vars - 2))]
    assert np.isnan(percentiles(reference_of(make_adata(400, n_donors=8)), cells)).all()


def test_what_the_components_leave_out_is_measured(make_adata):
    components = reference_of(make_adata(400, n_donors=8)).components
    cells = make_adata(30, seed=3)
    assert components.axes.shape[0] == 15
    rest = components.transform(cells)[:, -1]
    scrambled = components.transform(far(cells))[:, -1]
    assert rest.min() > 0
    assert np.median(scrambled) > np.median(rest)


def test_a_donor_with_many_cells_counts_once(make_adata):
    reference = reference_of(make_adata(400, n_donors=8))
    rows = np.sort(np.random.default_rng(0).random((3, 101)), axis=1)
    changed = Reference(reference.space, reference.classes, reference.components, rows)
    expected = np.mean([np.interp(0.5, row, np.linspace(0, 1, 101)) for row in rows])
    assert changed.percentiles(np.array([0.5]))[0] == pytest.approx(expected, abs=1e-6)


def test_missing_genes_are_no_evidence(make_adata):
    train = make_adata(400, n_donors=8)
    cells = make_adata(200, seed=1)[:, 3:].copy()
    assert np.mean(percentiles(reference_of(train), cells) > OUTSIDE) < 0.3


def test_one_donor_gives_distances_and_no_percentile(make_adata):
    train = make_adata(120, n_donors=1)
    reference = reference_of(train)
    assert np.isnan(percentiles(reference, train)).all()


def test_same_after_saving(make_adata, tmp_path):
    train, cells = make_adata(200, n_donors=4), make_adata(50, seed=1)
    reference = reference_of(train)
    assert Reference.load(tmp_path) is None
    reference.save(tmp_path)
    loaded = Reference.load(tmp_path)
    np.testing.assert_allclose(percentiles(loaded, cells), percentiles(reference, cells), atol=0.01)
    (tmp_path / "reference.npz").write_bytes(b"not a zip file")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        Reference.load(tmp_path)


def test_foundation_models_are_asked_in_their_states(make_adata, tmp_path):
    from backend.training.finetune import Classifier

    train = make_adata(90, n_donors=3)
    typer = Classifier(
        "scgpt", "scgpt.small", settings={"epochs": 4, "learning_rate": 0.01}, device="cpu"
    ).fit(train, label_key=LABEL, valid=train[:0], seed=0)
    cells = make_adata(30, seed=1)
    predictions = typer.predict(cells)
    assert predictions.embedding.shape == (30, 64)
    assert not np.isclose(predictions.embedding[0], predictions.embedding[1]).all()
    reference = fit_reference(typer, train, label_key=LABEL)
    assert reference.space == "states"
    assert reference.components is None
    reference.save(tmp_path)
    shares = Reference.load(tmp_path).percentiles(reference.distances(cells, predictions))
    assert ((shares >= 0) & (shares <= 1)).all()
