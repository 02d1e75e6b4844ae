"""Final fits: as long as was best for the folds, saved whole, and the same after loading."""

import json
from dataclasses import replace

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch

from backend.data import describe
from backend.data.fingerprint import cell_fingerprints
from backend.models.baselines.logreg import LogisticRegressionL1
from backend.splits import make_split
from backend.store.bundle import list_runs, read_run
from backend.training.finetune import Classifier
from backend.training.runs import build_typer, fold_histories, run_series
from backend.training.settings import best_epoch, median_best_epoch
from backend.types import Series

MODELS = ("scgpt", "geneformer", "scbert", "scfoundation")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cohort(make_adata):
    """90 cells of 9 donors, the last 5 unlabelled; its facts and a split by donor."""
    adata = make_adata(n_cells=90, n_donors=9, n_unlabelled=5)
    info = describe(adata)
    return adata, info, make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3)


def series_of(cohort, model="scbert", **settings):
    values = {"preset": f"{model}.small"} if model in MODELS else {}
    return Series(
        dataset_id=cohort[1].dataset_id,
        protocol="donor",
        folds=3,
        model=model,
        settings=settings,
        **values,
    )


def run(cohort, series, out, folds):
    adata, info, split = cohort
    results = run_series(adata, info, split, series, out=out, folds=folds)
    assert {result.status for result in results} <= {"done", "skipped"}
    return {result.fold: out / "runs" / result.run_id for result in results}


def table(**columns):
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"epoch": range(1, n + 1), **columns})


@pytest.mark.parametrize(
    ("history", "select_by", "epoch"),
    [
        (table(valid_loss=[3.0, 1.0, 2.0]), "valid_loss", 2),
        (table(valid_loss=[3.0, 1.0, 1.0]), "valid_loss", 2),
        (table(macro_f1=[0.1, 0.2, 0.9], valid_loss=[1.0, 2.0, 3.0]), "macro_f1", 3),
        (table(valid_accuracy=[0.5, 0.5, 0.4]), "valid_accuracy", 1),
        (table(valid_loss=[np.nan] * 3), "valid_loss", 3),
        (table(train_loss=[2.0, 1.0]), "valid_accuracy", 2),
    ],
)
def test_the_best_epoch_is_the_one_that_was_kept(history, select_by, epoch):
    assert best_epoch(history, select_by) == epoch


@pytest.mark.parametrize(
    ("best", "median"), [([2], 2), ([1, 4], 3), ([1, 1, 4], 1), ([2, 3, 4, 4], 4), ([4, 1, 3], 3)]
)
def test_the_median_of_folds(best, median):
    histories = [table(valid_loss=[float(abs(e - b)) for e in range(1, 6)]) for b in best]
    assert median_best_epoch(histories, "valid_loss") == median


def test_a_final_fit_stops_like_the_folds(cohort, tmp_path, monkeypatch):
    series = series_of(cohort, epochs=4)
    folders = run(cohort, series, tmp_path, [0, 1])
    # Plant which epochs were best: 1 and 2 give 2.
    for fold, best in ((0, 1), (1, 2)):
        path = folders[fold] / "history.parquet"
        history = pd.read_parquet(path)
        assert len(history) == 4
        history["valid_loss"] = np.abs(history["epoch"] - best).astype(float)
        history.to_parquet(path, index=False)
    folder = run(cohort, series, tmp_path, ["final"])["final"]
    record = read_run(folder)
    history = pd.read_parquet(folder / "history.parquet")
    assert history["epoch"].tolist() == [1, 2]
    assert "final fit of 2 epochs, the median of the best ones of 2 folds" in record.notes
    assert not any("no validation cells" in note for note in record.notes)
    # All labelled cells of the dataset, none held out.
    labelled = int(cohort[0].obs["cell_type_lineage"].notna().sum())
    assert (record.n_train, record.n_valid, record.n_test) == (labelled, 0, 0)
    assert not (folder / "predictions.parquet").exists()


@pytest.mark.slow
def test_learning_rates_are_those_of_the_folds(cohort, tmp_path):
    """A schedule that falls to the last epoch of the recipe is not squeezed into fewer epochs."""
    series = series_of(cohort, "geneformer", epochs=4)
    folders = run(cohort, series, tmp_path, [0])
    path = folders[0] / "history.parquet"
    history = pd.read_parquet(path)
    history["valid_loss"] = np.abs(history["epoch"] - 2).astype(float)
    history.to_parquet(path, index=False)
    final = run(cohort, series, tmp_path, ["final"])["final"]
    rates = pd.read_parquet(final / "history.parquet")["lr"]
    np.testing.assert_allclose(rates, history["lr"][:2])


def test_a_cap_holds_for_a_final_fit(cohort, tmp_path):
    adata, info, _ = cohort
    split = make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3, budget="cap4")
    series = replace(series_of(cohort, "majority"), budget="cap4")
    folder = run((adata, info, split), series, tmp_path, ["final"])["final"]
    labelled = adata.obs[adata.obs["cell_type_fine"].notna()]
    assert read_run(folder).n_train == labelled["donor"].value_counts().clip(upper=4).sum()


def test_without_a_finished_fold_the_recipe_counts(cohort, tmp_path):
    folder = run(cohort, series_of(cohort, epochs=3), tmp_path, ["final"])["final"]
    assert len(pd.read_parquet(folder / "history.parquet")) == 3
    wanted = "final fit of 3 epochs, the recipe's: no fold of the series is finished"
    assert wanted in read_run(folder).notes


def test_the_final_fold_comes_after_the_others(cohort, tmp_path):
    series = series_of(cohort, epochs=2)
    folders = run(cohort, series, tmp_path, ["final", 0])
    assert list(folders) == [0, "final"]
    notes = read_run(folders["final"]).notes
    assert any(note.endswith("of the best ones of 1 fold") for note in notes)


def test_only_folds_of_the_series_and_split_count(cohort, tmp_path):
    adata, info, split = cohort
    run(cohort, series_of(cohort, epochs=2), tmp_path, [0])
    run(cohort, series_of(cohort, epochs=3), tmp_path, [1])
    run(cohort, series_of(cohort, "majority"), tmp_path, [0])
    found = fold_histories(tmp_path, series_of(cohort, epochs=2), split)
    assert [len(history) for history in found] == [2]
    assert fold_histories(tmp_path, series_of(cohort, "majority"), split) == []
    other = make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3, seed=1)
    assert fold_histories(tmp_path, series_of(cohort, epochs=2), other) == []
    damaged = list_runs(tmp_path)[0] / "run.json"
    damaged.write_text("{", encoding="utf-8")
    assert len(fold_histories(tmp_path, series_of(cohort, epochs=2), split)) <= 1


def test_folds_are_found_in_an_object_store(cohort, tmp_path):
    series = series_of(cohort, epochs=2)
    folder = run(cohort, series, tmp_path, [1])[1]
    files = fsspec.filesystem("memory")
    files.put(str(folder), f"/bucket/runs/{folder.name}", recursive=True)
    try:
        (found,) = fold_histories("memory://bucket", series, cohort[2])
    finally:
        files.rm("/bucket", recursive=True)
    assert found.equals(pd.read_parquet(folder / "history.parquet"))


@pytest.mark.parametrize("model", [*MODELS, "logreg"])
def test_a_saved_model_predicts_the_same(cohort, tmp_path, make_adata, model):
    settings = {"grid": [1.0]} if model == "logreg" else {"epochs": 1, "max_steps": 2}
    series = series_of(cohort, model, **settings)
    folder = run(cohort, series, tmp_path, ["final"])["final"] / "model"
    weights = "arrays.npz" if model == "logreg" else "weights.safetensors"
    for name in ("model.json", "classes.json", "genes.json", "train_cells.bin", weights):
        assert (folder / name).is_file(), name
    assert json.loads((folder / "model.json").read_text(encoding="utf-8"))["model"] == model
    adata = cohort[0]
    train = adata[adata.obs["cell_type_lineage"].notna().to_numpy()].copy()
    stored = np.fromfile(folder / "train_cells.bin", dtype="<u8")
    assert stored.tolist() == sorted(cell_fingerprints(train).tolist())
    loaded = (LogisticRegressionL1 if model == "logreg" else Classifier).load(folder)
    # The same fit again, not saved: what was loaded must predict exactly as it does.
    typer = build_typer(series)
    typer.fit(train, label_key="cell_type_lineage", valid=train[:0].copy(), seed=series.seed)
    cells = make_adata(n_cells=30, seed=3)
    fresh, again = typer.predict(cells), loaded.predict(cells)
    assert fresh.classes == again.classes
    assert np.array_equal(fresh.proba, again.proba)
