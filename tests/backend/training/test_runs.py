from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.data import describe
from backend.data.fingerprint import cell_fingerprints
from backend.errors import InputError, JobFailed, ModelUnavailable, SplitError
from backend.models.base import CellTyper, LoadReport, Predictions
from backend.models.baselines.majority import MajorityClass
from backend.splits import TEST, TRAIN, VALID, make_split
from backend.store.bundle import list_runs, read_predictions, read_run
from backend.training import runs
from backend.training.measure import Measured
from backend.training.progress import Outcome, ProgressEvent, Tally
from backend.training.runs import build_typer, run_series, versions_of
from backend.training.settings import parse_settings
from backend.types import Series


@pytest.fixture
def cohort(make_adata):
    """120 cells of 9 donors, the last 5 unlabelled; its facts and a split by donor."""
    adata = make_adata(n_cells=120, n_donors=9, n_unlabelled=5)
    info = describe(adata)
    split = make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3)
    return adata, info, split


def series_of(cohort, **changes):
    _, info, split = cohort
    values = {"protocol": split.protocol, "folds": split.folds, "model": "majority"} | changes
    return Series(dataset_id=info.dataset_id, **values)


def run(cohort, series, out, **options):
    adata, info, split = cohort
    return run_series(adata, info, split, series, out=out, **options)


def bundles(out):
    return {read_run(folder).fold: folder for folder in list_runs(out)}


def test_every_cell_is_predicted_once_as_test(cohort, tmp_path):
    adata, _, split = cohort
    results = run(cohort, series_of(cohort), tmp_path)
    assert [result.status for result in results] == ["done"] * 3
    tables = pd.concat([read_predictions(folder) for folder in bundles(tmp_path).values()])
    tested = tables.query("role == 'test'")
    assert sorted(tested["cell_id"]) == sorted(adata.obs_names)
    assert set(tables["role"]) == {"valid", "test"}
    for fold, folder in bundles(tmp_path).items():
        table = read_predictions(folder).set_index("cell_id")
        assert set(table.query("role == 'valid'").index) == set(
            split.cell_ids[split.cells(fold, VALID)]
        )


def test_unlabelled_cells_are_predicted_but_never_trained(cohort, tmp_path):
    adata, _, _ = cohort
    run(cohort, series_of(cohort), tmp_path)
    tables = pd.concat([read_predictions(folder) for folder in bundles(tmp_path).values()])
    blank = tables[tables["label"].isna()]
    assert sorted(blank["cell_id"]) == sorted(adata.obs_names[-5:])
    assert set(blank["role"]) == {"test"}
    labelled = adata.obs["cell_type_lineage"].notna().sum()
    for folder in bundles(tmp_path).values():
        assert read_run(folder).n_train <= labelled


def test_labels_are_those_of_the_level(cohort, tmp_path):
    run(cohort, series_of(cohort, label_level="fine"), tmp_path)
    folder = bundles(tmp_path)[0]
    assert read_run(folder).classes == ("HSC-like", "Mono", "T")
    assert set(read_predictions(folder)["label"].dropna()) == {"HSC-like", "Mono", "T"}


def test_record_says_what_was_done(cohort, tmp_path):
    adata, _, split = cohort
    series = series_of(cohort, model="logreg", settings={"grid": [0.1]})
    run(cohort, series, tmp_path, folds=[1])
    record = read_run(bundles(tmp_path)[1])
    assert record.series_id == series.series_id
    assert record.display_name == "L1 logistic regression"
    assert record.split_sha256 == split.sha256
    assert (record.n_train, record.n_valid, record.n_test) == tuple(split.sizes().loc[1])
    train = split.cells(1, TRAIN)
    assert record.n_train_donors == adata.obs["donor"][train].nunique()
    assert {"python", "scikit-learn", "faultline"} <= record.versions.keys()
    assert record.device == "cpu"
    assert record.wall_seconds > 0
    assert record.peak_memory_mib > 10


@pytest.mark.parametrize("model", ["majority", "logreg", "celltypist"])
def test_same_inputs_give_the_same_bytes(cohort, tmp_path, model):
    series = series_of(cohort, model=model)
    for name in ("first", "second"):
        run(cohort, series, tmp_path / name, folds=[0])
    first, second = (
        (bundles(tmp_path / name)[0] / "predictions.parquet").read_bytes()
        for name in ("first", "second")
    )
    assert first == second


def test_finished_folds_are_skipped(cohort, tmp_path, monkeypatch):
    run(cohort, series_of(cohort), tmp_path, folds=[0])
    before = (bundles(tmp_path)[0] / "run.json").read_bytes()
    states = []
    results = run(
        cohort, series_of(cohort), tmp_path, progress=lambda e: states.append((e.fold, e.state))
    )
    assert [result.status for result in results] == ["skipped", "done", "done"]
    assert states[0] == (0, "skipped")
    assert states[1:4] == [(1, "fitting"), (1, "predicting"), (1, "done")]
    assert (bundles(tmp_path)[0] / "run.json").read_bytes() == before


def test_failed_fold_leaves_its_reason_and_is_tried_again(cohort, tmp_path, monkeypatch):
    sizes = []

    def fail_once(self, train, **_):
        sizes.append(train.n_obs)
        if len(sizes) == 2:
            msg = "The loss is not a number."
            raise JobFailed(msg, "Lower the learning rate.")
        return real_fit(self, train, **_)

    real_fit = MajorityClass.fit
    monkeypatch.setattr(MajorityClass, "fit", fail_once)
    results = run(cohort, series_of(cohort), tmp_path)
    assert [result.status for result in results] == ["done", "failed", "done"]
    folder = bundles(tmp_path)[1]
    record = read_run(folder)
    assert record.status == "failed"
    assert record.error_kind == "JobFailed"
    assert record.reason == "The loss is not a number. Lower the learning rate."
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "run.json"]

    again = run(cohort, series_of(cohort), tmp_path)
    assert [result.status for result in again] == ["skipped", "done", "skipped"]
    assert read_run(bundles(tmp_path)[1]).status == "done"


def test_bugs_are_not_taken_for_failed_models(cohort, tmp_path, monkeypatch):
    def broken(self, train, **_):
        return self.no_such_attribute

    monkeypatch.setattr(MajorityClass, "fit", broken)
    with pytest.raises(AttributeError):
        run(cohort, series_of(cohort), tmp_path)
    assert list_runs(tmp_path) == []


def test_no_fit_sees_a_valid_or_test_cell(cohort, tmp_path, monkeypatch):
    _, _, split = cohort
    seen = []
    real_fit = MajorityClass.fit

    def spy(self, train, *, valid, **_):
        seen.append((set(train.obs_names), set(valid.obs_names)))
        return real_fit(self, train, valid=valid, **_)

    monkeypatch.setattr(MajorityClass, "fit", spy)
    run(cohort, series_of(cohort), tmp_path)
    for fold, (train, valid) in enumerate(seen):
        assert train == set(split.cell_ids[split.cells(fold, TRAIN)])
        assert not train & set(split.cell_ids[split.cells(fold, TEST)])
        assert not valid & set(split.cell_ids[split.cells(fold, TEST)])


@pytest.mark.parametrize("model", ["logreg", "celltypist", "hgb"])
def test_test_cells_change_nothing_that_was_fitted(cohort, tmp_path, model, make_adata):
    """Predictions of one test cell stay when the counts of all other test cells change."""
    adata, info, split = cohort
    settings = {"n_iterations": 5} if model == "hgb" else {}
    series = series_of(cohort, model=model, settings=settings)
    changed = adata.copy()
    rows = split.cells(0, TEST).nonzero()[0]
    counts = changed.X.toarray()
    counts[rows[1:]] = counts[rows[1:]][:, ::-1] * 3
    changed.X = type(adata.X)(counts)
    kept = adata.obs_names[rows[0]]
    proba = []
    for name, data in (("plain", adata), ("changed", changed)):
        run_series(data, info, split, series, out=tmp_path / name, folds=[0])
        table = read_predictions(bundles(tmp_path / name)[0]).set_index("cell_id")
        proba.append(list(table.loc[kept, "proba"]))
    assert proba[0] == proba[1]


def test_fraction_takes_some_cells_of_every_type(cohort, tmp_path, monkeypatch):
    taken = {}
    real_fit = MajorityClass.fit

    def spy(self, train, **_):
        taken[len(taken)] = train.obs["cell_type_lineage"].astype(str)
        return real_fit(self, train, **_)

    monkeypatch.setattr(MajorityClass, "fit", spy)
    for fraction in (0.02, 0.5, 1.0):
        run(cohort, series_of(cohort, fraction=fraction), tmp_path, folds=[0])
    few, half, full = (taken[i] for i in range(3))
    assert set(few) == set(full)
    assert set(few.index) < set(half.index) < set(full.index)
    assert len(half) == pytest.approx(len(full) / 2, abs=3)


def test_final_fit_is_saved_with_its_cells(cohort, tmp_path):
    adata, _, _ = cohort
    series = series_of(cohort, model="logreg", settings={"grid": [0.1]})
    run(cohort, series, tmp_path, folds=["final"])
    folder = bundles(tmp_path)["final"]
    record = read_run(folder)
    assert (record.n_train, record.n_test) == (115, 0)
    assert not (folder / "predictions.parquet").exists()
    prints = np.frombuffer((folder / "model" / "train_cells.bin").read_bytes(), dtype="<u8")
    labelled = adata[adata.obs["cell_type_lineage"].notna()]
    assert np.array_equal(prints, np.sort(cell_fingerprints(labelled)))
    loaded = type(build_typer(series)).load(folder / "model")
    assert loaded.classes_ == record.classes == ("HSC", "Mono", "T")


def test_final_fit_of_what_cannot_be_saved_is_refused(cohort, tmp_path):
    with pytest.raises(ModelUnavailable, match="cannot be saved"):
        run(cohort, series_of(cohort, model="hgb"), tmp_path, folds=["final"])
    assert list_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "random"}, "protocol"),
        ({"folds": 5}, "number of folds"),
        ({"split_seed": 3}, "split seed"),
        ({"budget": "full"}, "budget"),
        ({"dataset_id": "f" * 16}, "dataset"),
    ],
)
def test_series_of_another_split_is_refused(cohort, tmp_path, change, message):
    series = dataclasses.replace(series_of(cohort), **change)
    with pytest.raises(SplitError, match=message):
        run(cohort, series, tmp_path)


@pytest.mark.parametrize(
    ("changes", "folds", "message"),
    [
        ({}, [3], "no fold 3"),
        ({"fraction": 0.0}, "all", "fraction"),
        ({"label_level": "family"}, "all", '`label_level` is "family"'),
        ({"settings": {"depth": 3}}, "all", "no setting depth"),
        ({"model": "logreg", "settings": {"C": 3}}, "all", "no setting C"),
        ({"preset": "small"}, "all", "is a baseline"),
    ],
)
def test_impossible_series_are_refused(cohort, tmp_path, changes, folds, message):
    with pytest.raises(InputError, match=message):
        run(cohort, series_of(cohort, **changes), tmp_path, folds=folds)
    assert not (tmp_path / "runs").exists()


class _Wrapped(CellTyper):
    """Stands for the classifier that wraps a foundation model."""

    display_name = "Fake"
    recipe_version = 7
    checkpoint_sha256 = "c" * 64
    device_ = "cuda:0"
    kind = "foundation"

    def __init__(self, model, preset, init, checkpoint, settings):
        self.given = (model, preset, init, checkpoint, settings)

    def check_input(self, adata):
        raise NotImplementedError

    save = load = check_input

    def fit(self, train, *, label_key, valid, seed):
        self.classes_ = ("HSC", "Mono", "T")
        self.notes_ = ("512 tokens at most",)
        self.history_ = pd.DataFrame({"step": [1], "train_loss": [0.5]})
        self.load_report_ = LoadReport(n_loaded=3, share_loaded=0.5, renamed={"a": "b"})
        return self

    def predict(self, adata, *, batch_size=64):
        proba = np.full((adata.n_obs, 3), 1 / 3, dtype=np.float32)
        return Predictions(adata.obs_names.to_numpy(), proba, self.classes_)


@pytest.fixture
def fake_model(monkeypatch):
    class Config:
        name = "fake.small"

    class Fake:
        display_name = "Fake"
        kind = "foundation"
        presets = {"small": Config()}  # noqa: RUF012

    monkeypatch.setattr(runs, "model_class", lambda _: Fake)


@pytest.mark.parametrize(
    ("settings", "recorded"),
    [
        ({"lora": 8}, {"peft"}),
        ({"oversample": True}, {"imbalanced-learn"}),
        ({"oversample": False}, set()),
    ],
)
def test_packages_of_a_setting_are_recorded_where_it_is_used(cohort, settings, recorded):
    versions = versions_of(
        series_of(cohort, model="geneformer", preset="geneformer.small", settings=settings)
    )
    assert versions.keys() & {"peft", "imbalanced-learn"} == recorded
    assert "unknown" not in versions.values()


def test_foundation_models_go_through_the_classifier(cohort, tmp_path, fake_model):
    series = series_of(cohort, model="fake", preset="fake.small", settings={"epochs": 2})
    typer = build_typer(series, classifier=_Wrapped)
    assert typer.given == ("fake", "fake.small", "scratch", None, {"epochs": 2})

    run(cohort, series, tmp_path, folds=[0], classifier=_Wrapped)
    folder = bundles(tmp_path)[0]
    record = read_run(folder)
    assert record.display_name == "Fake small, scratch"
    assert record.recipe_version == 7
    assert record.checkpoint_sha256 == "c" * 64
    assert record.device == "cuda:0"
    assert record.notes == (
        "architecture trained from scratch — published weights not used",
        "512 tokens at most",
    )
    assert "torch" in record.versions
    assert pd.read_parquet(folder / "history.parquet")["train_loss"].tolist() == [0.5]
    assert json.loads((folder / "load_report.json").read_text())["share_loaded"] == 0.5


def test_foundation_models_need_a_preset(cohort, fake_model):
    with pytest.raises(InputError, match="no preset was given"):
        build_typer(series_of(cohort, model="fake"), classifier=_Wrapped)
    with pytest.raises(InputError, match=r'no preset "huge".*fake\.small'):
        build_typer(series_of(cohort, model="fake", preset="huge"), classifier=_Wrapped)


def test_a_tally_counts_running_tasks_by_their_share():
    tally = Tally()
    seen = []
    for event in (
        ProgressEvent("started", key="a"),
        ProgressEvent("fitting", "epoch 1 of 2", 0.5, key="a"),
        ProgressEvent("fitting", "epoch 1 of 4", 0.25, key="b"),
        ProgressEvent("predicting", key="a"),
        ProgressEvent("retried", key="b"),
        ProgressEvent("done", key="a"),
        Outcome("a", "done"),
        Outcome("b", "failed"),
        ProgressEvent("retried", key="b"),
    ):
        tally.add(event)
        seen.append((tally.n_ended, tally.done))
    assert seen[:5] == [(0, 0), (0, 0.5), (0, 0.75), (0, 0.75), (0, 0.5)]
    assert seen[5:] == [(1, 1), (1, 1), (2, 2), (1, 1)]


def test_settings_are_read_as_json_or_text():
    assert parse_settings(["a=3", "b=[0.1, 1]", "c=word"]) == {"a": 3, "b": [0.1, 1], "c": "word"}
    for words in (["a"], ["=3"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="NAME=VALUE"):
            parse_settings(words)


def test_measured_sees_memory_that_was_freed_again():
    with Measured() as idle:
        pass
    with Measured() as busy:
        block = np.ones(40 * 2**20 // 8)
        busy._look()
        del block
    assert busy.peak_memory_mib > idle.peak_memory_mib + 30
    assert busy.wall_seconds > 0


@pytest.fixture
def dataset_file(make_adata, tmp_path):
    def write(name="tiny.h5ad", **options):
        path = tmp_path / name
        make_adata(n_cells=120, n_donors=options.pop("n_donors", 6), **options).write_h5ad(path)
        return path

    return write


def command(path, out, *words):
    given = ["run", "--dataset", str(path), "--out", str(out), "--model", "majority", *words]
    return main([str(word) for word in given])


@pytest.mark.slow  # the map of cells compiles umap-learn's code
def test_command_writes_dataset_split_and_runs(dataset_file, tmp_path, capsys):
    path, out = dataset_file(), tmp_path / "out"
    assert command(path, out, "--protocol", "donor", "--folds", 3, "--fold", "all") == 0
    printed = capsys.readouterr().out
    assert printed.count("done") == 3
    folders = list_runs(out)
    assert len(folders) == 3
    dataset_id = read_run(folders[0]).dataset_id
    cells = pd.read_parquet(out / "datasets" / dataset_id / "cells.parquet")
    assert np.isfinite(cells[["umap_x", "umap_y"]].to_numpy()).all()
    split_file = out / "splits" / f"{dataset_id}-donor-k3-s0-equal.parquet"
    assert split_file.exists()

    assert command(path, out, "--split", split_file, "--fold", "0", "2") == 0
    assert capsys.readouterr().out.count("skipped") == 2
    assert command(path, out, "--split", split_file, "--protocol", "random") == 2
    assert "--protocol" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words", "message"),
    [
        ({"n_donors": 1}, ["--protocol", "donor"], "one donor"),
        ({}, ["--protocol", "study"], "2 studies"),
        ({}, ["--fold", "first"], "not a fold"),
        ({}, ["--set", "depth=3"], "no setting depth"),
        ({}, ["--model", "scgtp"], "scgpt"),
        ({}, ["--budget", "most"], "budget"),
    ],
)
def test_command_refuses_with_a_message(dataset_file, tmp_path, capsys, options, words, message):
    out = tmp_path / "out"
    assert command(dataset_file(**options), out, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "hint:" in error
    assert not (out / "runs").exists()
    assert not (out / "datasets").exists()
