"""Jobs that train leave bundles where they belong, curves, and reasons of failures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend.data.simulate import write_simulated
from backend.data.uploads import save_upload
from backend.errors import InputError, JobFailed
from backend.jobs import handlers, trainable_models, training
from backend.jobs.curves import live_curves
from backend.jobs.directory import create_job, read_log, read_status
from backend.jobs.requests import RunRequest
from backend.store.bundle import list_runs, read_dataset, read_run
from backend.store.neighbours import NEIGHBOURS_FILE
from backend.training.progress import Outcome, ProgressEvent
from tests.helpers import ask_here

pytestmark = pytest.mark.usefixtures("plain_umap")


class Context:
    def __init__(self, home):
        self.home, self.owner, self.folder = home, "someone", home / "job"
        self.folder.mkdir(parents=True)
        self.shares, self.words, self.lines = [], [], []

    def progress(self, share, message=""):
        self.shares.append(share)
        self.words.append(message)

    def log(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    write_simulated(folder / "course.h5ad", 800, seed=0)
    return folder


@pytest.fixture(autouse=True)
def allowed(request, monkeypatch):
    if "shared" in request.fixturenames:
        monkeypatch.setenv("FAULTLINE_DATA_DIRS", str(request.getfixturevalue("shared")))


def asked(shared, **changes):
    values = {"dataset": f"{shared.name}/course.h5ad", "model": "majority", "folds": 2}
    return values | changes


def test_progress_of_a_fit_becomes_share_words_and_curve(tmp_path):
    context = Context(tmp_path)
    texts = {"a": "fold 0", "b": "fold 1"}
    follow = training._Follower(context, texts, has_curve=True)
    row = {"epoch": 1, "step": 20, "train_loss": 1.5, "valid_loss": float("nan"), "macro_f1": 0.5}
    first, second = {"key": "a", "fold": 0}, {"key": "b", "fold": 1}
    follow(ProgressEvent("fitting", "300 training cells", **first))
    follow(ProgressEvent("fitting", "epoch 1 of 2", 0.5, epoch=1, step=10, **first))
    follow(ProgressEvent("fitting", "epoch 1 of 2", 0.5, epoch=1, step=20, row=row, **first))
    follow(ProgressEvent("done", "3 s", **first))
    follow(ProgressEvent("failed", "no memory", **second))
    follow(Outcome("a", "done"))
    follow.close()
    assert context.shares == sorted(context.shares)
    assert context.shares[1] == pytest.approx(0.05 + 0.95 * 0.25)
    assert context.shares[-1] == 1.0
    assert context.words[1] == "fold 0: fitting, epoch 1 of 2"
    assert context.lines[-1] == "fold 1: failed, no memory"
    assert not any("epoch" in line for line in context.lines)
    text = (context.folder / training.CURVE).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(row["fold"], row["step"]) for row in rows] == [(0, 10), (0, 20), (0, None), (1, None)]
    assert (rows[1]["train_loss"], rows[1]["valid_loss"]) == (1.5, None)


def test_an_end_that_only_the_executor_tells_of_is_logged(tmp_path):
    context = Context(tmp_path)
    follow = training._Follower(context, {"a": "majority · donor · fold 0"}, has_curve=False)
    follow(Outcome("a", "failed", "Its worker ended with exit code 1, 2 times."))
    assert context.lines == [
        "majority · donor · fold 0: failed, Its worker ended with exit code 1, 2 times."
    ]


def test_all_failed_is_a_failed_job():
    failed = [Outcome("a", "failed", "no memory"), Outcome("b", "failed", "no memory")]
    with pytest.raises(JobFailed, match="All 2 fits failed: no memory"):
        training._check_any_done(failed, "fits")
    assert training._check_any_done([*failed, Outcome("c", "done")], "fits") == 2
    assert training._check_any_done([], "runs") == 0


def test_file_that_is_no_dataset_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "bad.h5ad").write_bytes(b"nothing")
    monkeypatch.setenv("FAULTLINE_DATA_DIRS", str(folder))
    context = Context(tmp_path / "home")
    with pytest.raises(InputError):
        training.run({"dataset": "files/bad.h5ad", "model": "majority"}, context)
    assert context.lines[0].startswith("refused: ")


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [False, True])
def test_run_leaves_bundles_of_its_owner_or_of_all(shared, tmp_path, is_shared):
    context = Context(tmp_path)
    result = training.run(asked(shared, is_shared=is_shared, fits="both"), context)
    out = tmp_path if is_shared else tmp_path / "users" / "someone"
    records = [read_run(folder) for folder in list_runs(out)]
    assert {record.fold for record in records} == {0, 1, "final"}
    assert {run["run_id"] for run in result["runs"]} == {record.run_id for record in records}
    dataset = out / "datasets" / records[0].dataset_id
    assert (dataset / "cells.parquet").is_file()
    assert (dataset / NEIGHBOURS_FILE).is_file()
    # A second time nothing is fitted again.
    again = training.run(asked(shared, is_shared=is_shared, fits="both"), context)
    assert {run["status"] for run in again["runs"]} == {"skipped"}


@pytest.mark.slow
def test_sweep_does_a_plan_once(shared, tmp_path, monkeypatch):
    plan = tmp_path / "tiny.toml"
    plan.write_text('folds = 2\nprotocol = "donor"\n[[run]]\nmodel = "majority"\n')
    monkeypatch.setattr("backend.jobs.requests.find_plan", lambda _: plan)
    context = Context(tmp_path / "home")
    values = {"dataset": f"{shared.name}/course.h5ad", "plan": "tiny.toml"}
    assert training.sweep(values, context) == {"n_runs": 2, "n_done": 2, "n_failed": 0}
    assert context.shares[-1] == 1.0
    assert training.sweep(values, context) == {"n_runs": 2, "n_done": 0, "n_failed": 0}


@pytest.mark.slow
def test_training_job_in_a_worker_tells_its_curves_epoch_by_epoch(
    shared, home, run_all, monkeypatch
):
    kind = replace(handlers.KINDS["run"], target="tests.backend.jobs.work:train")
    monkeypatch.setitem(handlers.KINDS, "run", kind)
    values = asked(
        shared, model="scgpt", preset="scgpt.small", settings={"epochs": 2, "max_steps": 4},
        fraction=0.2,
    )  # fmt: skip
    job_id = create_job(home, "run", values, owner="local")
    run_all(stale_seconds=60.0)
    status = read_status(home, job_id, owner="local")
    assert status.state == "done", status
    assert status.result["n_failed"] == 0
    assert "fold 1: done" in read_log(home, job_id, owner="local")
    curves = live_curves(home, job_id, owner="local")
    assert set(curves["fold"]) == {"0", "1"}
    assert {"Training loss", "Validation macro-F1"} <= set(curves["measure"])
    assert curves["value"].notna().all()


def test_menu_names_models_and_refuses_what_cannot_be_fitted(shared, tmp_path, monkeypatch):
    names = {entry["key"]: entry for entry in trainable_models.list_trainable()}
    assert "scgpt.small" in names["scgpt"]["presets"]
    assert names["majority"]["presets"] == []
    # One child is enough to see that the question is put in a process of its own.
    monkeypatch.setattr(trainable_models, "ask_child", ask_here)
    found = trainable_models.check_request("run", asked(shared), tmp_path, "someone")
    assert found == {"gaps": [], "folds": None}
    with pytest.raises(InputError, match="no model"):
        trainable_models.check_request("run", asked(shared, model="x"), tmp_path, "someone")
    good = asked(shared, model="scgpt", preset="small", settings={"epochs": 1})
    for changes, message in (
        ({"settings": {"epochz": 1}}, "epochz"),
        ({"model": "hgb", "preset": None, "settings": {}, "fits": "final"}, "cannot be saved"),
    ):
        with pytest.raises(InputError, match=message):
            trainable_models.check_request("run", good | changes, tmp_path, "someone")
    (split,) = trainable_models.splits_in_child(None, "run", good, tmp_path)["splits"]
    assert (split["protocol"], split["folds"], split["is_foundation"]) == ("donor", 2, True)


def test_run_on_an_upload_stays_with_its_owner(shared, tmp_path):
    context = Context(tmp_path)
    with (shared / "course.h5ad").open("rb") as stream:
        upload = save_upload(tmp_path, "someone", stream, name="mine.h5ad", kind="cells").upload_id
    values = {"dataset": "My cells", "upload": upload, "model": "majority", "folds": 2}
    training.run(values | {"fits": "final", "protocol": "random"}, context)
    own = tmp_path / "users" / "someone"
    (record,) = (read_run(folder) for folder in list_runs(own))
    facts, _ = read_dataset(own / "datasets" / record.dataset_id)
    assert (facts["name"], facts["uploaded"], facts["upload_id"]) == ("My cells", True, upload)
    assert facts["source"] == "file mine.h5ad"
    assert list_runs(tmp_path) == []
    with pytest.raises(InputError, match="its owner alone"):
        training.run(values | {"is_shared": True}, context)
    with pytest.raises(InputError, match="Upload not found"):
        RunRequest.of(values).path(tmp_path, "other")
