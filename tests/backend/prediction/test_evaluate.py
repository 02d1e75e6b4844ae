from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from backend.data.problems import Refusal
from backend.errors import InputError, LabelError
from backend.evaluation import views
from backend.prediction.evaluate import evaluate
from backend.prediction.saved_models import find_saved_model
from backend.store.bundle import read_dataset, read_predictions, read_run
from backend.store.per_cell import neighbours_of
from backend.types import Scope
from tests.backend.prediction.conftest import run_of
from tests.conftest import build_adata
from tests.helpers import open_store


def new_cells(n=120, seed=5, n_donors=3):
    """Cells of other donors, with the labels of another vocabulary."""
    adata = build_adata(n, seed=seed, n_donors=n_donors)
    words = {"HSC-like": "HSC-like", "Mono": "classical monocyte", "T": "T cells"}
    adata.obs["cell_type"] = adata.obs["cell_type_fine"].astype(str).map(words)
    adata.obs["donor"] = "NEW" + adata.obs["donor"].astype(str)
    adata.obs = adata.obs[["cell_type", "donor", "timepoint"]]
    del adata.uns["faultline"]
    return adata


@pytest.fixture
def logreg(trained_home):
    return find_saved_model(run_of(trained_home, "logreg"), [trained_home])


@pytest.fixture
def write(tmp_path):
    def written(adata, name="upload.h5ad"):
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return written


def test_new_donors_are_scored_and_shown(logreg, write, tmp_path):
    adata = new_cells()
    shares = []
    done = evaluate(
        write(adata), [logreg], tmp_path, progress=lambda share, _: shares.append(share)
    )
    assert (done.n_cells, done.n_scored, done.n_unmapped, done.n_in_training) == (120, 120, 0, 0)
    assert {m.label: (m.cell_type, m.how) for m in done.labels} == {
        "HSC-like": ("HSC", "normal counterpart"),
        "classical monocyte": ("Mono", "narrower term"),
        "T cells": ("T", "spelling"),
    }
    assert shares == sorted(shares)
    assert shares[-1] == 1
    info, cells = read_dataset(tmp_path / "datasets" / done.dataset_id)
    assert cells["cell_id"].tolist() == adata.obs_names.tolist()
    assert cells["cell_type_fine"].tolist() == adata.obs["cell_type"].tolist()
    assert set(cells["cell_type_lineage"]) == {"HSC", "Mono", "T"}
    assert np.isfinite(cells[["umap_x", "umap_y"]]).all(axis=None)
    assert info["evaluation"]["n_scored"] == 120
    assert info["evaluation"]["map_fitted_on"] == 120

    store = open_store(tmp_path)
    near = neighbours_of(store, done.dataset_id)
    assert near.shape == (120, 15)
    own = cells["cell_type_fine"].to_numpy()
    assert (own[near] == own[:, None]).mean() > 0.9
    (choice,) = views.scope_choices(store).itertuples()
    assert (choice.protocol, choice.label_level) == ("external", "lineage")
    scope = Scope(
        dataset_id=done.dataset_id, protocol="external", budget=choice.budget, label_level="lineage"
    )
    (model,) = views.configurations(store, scope).itertuples()
    assert model.is_complete
    assert "fitted on Reference" in model.note
    scores = views.scores_by_timepoint(store, scope).scores
    assert (scores["value"].dropna() > 0.8).all()
    assert scores["n_cells"].sum() == 120


def test_cells_and_donors_of_training_are_left_out(logreg, trained_file, write, tmp_path):
    import anndata as ad

    seen = ad.read_h5ad(trained_file)[:30].copy()
    seen.obs = seen.obs[["cell_type_fine"]].rename(columns={"cell_type_fine": "cell_type"})
    seen.obs["donor"] = "RENAMED"
    same_donor = new_cells(60, seed=9)
    same_donor.obs["donor"] = "AML1"
    other = new_cells(60, seed=10)
    both = ad.concat([seen, same_donor, other], index_unique="-", keys=["a", "b", "c"])
    done = evaluate(write(both), [logreg], tmp_path)
    assert (done.n_cells, done.n_in_training, done.n_scored) == (150, 90, 60)
    frame = read_predictions(tmp_path / "runs" / done.run_ids[0])
    assert frame["label"].isna().tolist() == [True] * 90 + [False] * 60
    assert frame["predicted"].notna().all()
    record = read_run(tmp_path / "runs" / done.run_ids[0])
    assert "90 cells were in training: predicted, not scored" in record.notes


def test_training_cells_in_a_file_without_labels_are_said(logreg, trained_file, write, tmp_path):
    import anndata as ad

    seen = ad.read_h5ad(trained_file)[:30].copy()
    seen.obs = seen.obs[[]].assign(donor="RENAMED")
    done = evaluate(write(seen), [logreg], tmp_path, is_scored=False)
    assert any("30 of these cells were in the training data" in note for note in done.notes)


def test_labels_that_the_model_lacks_are_counted_not_scored(logreg, write, tmp_path):
    adata = new_cells()
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[:10], labels.iloc[10:15] = "fibroblast", None
    adata.obs["cell_type"] = labels
    path = write(adata)
    done = evaluate(path, [logreg], tmp_path)
    assert (done.n_unmapped, done.n_unlabelled, done.n_scored) == (10, 5, 105)
    (note,) = [n for n in read_run(tmp_path / "runs" / done.run_ids[0]).notes if "output" in n]
    assert note == (
        "10 cells have a label that the models cannot output (fibroblast): predicted, not scored"
    )
    other = evaluate(path, [logreg], tmp_path, given={"fibroblast": "Mono"})
    assert other.n_scored == 115
    assert other.dataset_id != done.dataset_id
    with pytest.raises(LabelError, match="cannot output Stroma"):
        evaluate(path, [logreg], tmp_path, given={"fibroblast": "Stroma"})


def test_cells_that_do_not_belong_lie_far(logreg, write, tmp_path):
    adata = new_cells(90)
    counts = adata.X.toarray()
    rng = np.random.default_rng(0)
    counts[:20] = rng.permuted(counts[:20], axis=1)
    adata.X = counts
    done = evaluate(write(adata), [logreg], tmp_path)
    ood = pq.read_table(tmp_path / "runs" / done.run_ids[0] / "ood.parquet").to_pandas()
    assert ood["cell_id"].tolist() == adata.obs_names.tolist()
    assert (ood["percentile"][:20] > 0.95).mean() > 0.7
    assert (ood["percentile"][20:] > 0.95).mean() < 0.35
    assert done.outside[done.run_ids[0]] == pytest.approx(
        (ood["percentile"] > 0.95).mean(), abs=1e-3
    )


def test_several_models_share_cells_and_labels(trained_home, write, tmp_path):
    models = [
        find_saved_model(run_of(trained_home, key), [trained_home])
        for key in ("logreg", "majority")
    ]
    done = evaluate(write(new_cells()), models, tmp_path)
    assert len(done.run_ids) == 2
    store = open_store(tmp_path)
    scope = Scope(dataset_id=done.dataset_id, protocol="external", budget="full")
    assert views.configurations(store, scope)["is_complete"].all()
    assert len(views.overview(store, scope).scores) >= 2


def test_a_file_without_labels_is_predicted(logreg, write, tmp_path):
    adata = new_cells()
    adata.obs = adata.obs[["donor"]]
    path = write(adata)
    with pytest.raises(Refusal, match="no column for the cell type"):
        evaluate(path, [logreg], tmp_path)
    assert not (tmp_path / "runs").exists()
    done = evaluate(path, [logreg], tmp_path, is_scored=False)
    assert (done.n_scored, done.n_unlabelled) == (0, 120)
    frame = read_predictions(tmp_path / "runs" / done.run_ids[0])
    assert frame["label"].isna().all()


def test_ensembl_ids_with_versions_give_the_same_predictions(logreg, write, tmp_path):
    from backend.data.genes import gene_table

    adata = new_cells()
    plain = evaluate(write(adata), [logreg], tmp_path)
    ids = gene_table().ensembl_of
    adata.var_names = [f"{ids[name]}.7" if name in ids else name for name in adata.var_names]
    renamed = evaluate(write(adata, "ids.h5ad"), [logreg], tmp_path / "other")
    one = read_predictions(tmp_path / "runs" / plain.run_ids[0])
    two = read_predictions(tmp_path / "other" / "runs" / renamed.run_ids[0])
    pd.testing.assert_series_equal(one["predicted"], two["predicted"])
    np.testing.assert_array_equal(one["confidence"], two["confidence"])


def test_the_chunk_size_changes_nothing(logreg, write, tmp_path, monkeypatch):
    path = write(new_cells())
    whole = evaluate(path, [logreg], tmp_path / "same")
    monkeypatch.setattr("backend.prediction.evaluate.CHUNK", 7)
    pieces = evaluate(path, [logreg], tmp_path / "x" / "same")
    assert whole.dataset_id == pieces.dataset_id
    one = read_predictions(tmp_path / "same" / "runs" / whole.run_ids[0])
    two = read_predictions(tmp_path / "x" / "same" / "runs" / pieces.run_ids[0])
    assert one["predicted"].tolist() == two["predicted"].tolist()
    folders = [tmp_path / "same", tmp_path / "x" / "same"]
    for name in ("cells.parquet", "neighbours.parquet"):
        files = [folder / "datasets" / whole.dataset_id / name for folder in folders]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_note_on_the_file_is_given_once(logreg, write, tmp_path):
    adata = new_cells()
    adata.obs["timepoint"] = "week nine"
    done = evaluate(write(adata), [logreg], tmp_path)
    assert sum("week nine" in note for note in done.notes) == 1


def test_too_few_genes_say_which_model(logreg, write, tmp_path):
    adata = new_cells()[:, :2].copy()
    with pytest.raises(InputError, match="L1 logistic regression cannot read the file: Only 2 of"):
        evaluate(write(adata), [logreg], tmp_path)
    assert not (tmp_path / "runs").exists()
