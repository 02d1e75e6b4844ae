"""A fit that was killed ends as if nothing had happened."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from backend.errors import JobFailed
from backend.store.bundle import list_runs, read_run
from backend.training.finetune import Classifier
from backend.training.fit_workspace import FitWorkspace
from backend.training.snapshots import Snapshots, generator_states, set_generator_states
from tests.backend.training import processes

LABEL = "cell_type_lineage"
TIMES = ["cells_per_second", "memory_mib"]


def survive(target, *args):
    """Start a process, and return how it ended: 0, or the number of the signal that killed it."""
    process = processes.context().Process(target=target, args=args)
    process.start()
    process.join(300)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
        pytest.fail("a fit of seconds did not end within 300 s")
    process.close()
    assert code in (0, -signal.SIGKILL)
    return -code


def test_killed_at_three_points_a_fit_ends_with_the_same_weights(tmp_path):
    rng = np.random.default_rng(5)
    for moment in ("step", "snapshot", "step"):
        count = int(rng.integers(2, 6))
        assert survive(processes.fit, str(tmp_path), "killed", moment, count) == signal.SIGKILL
    assert list((tmp_path / "fit").glob("state.pt"))
    assert survive(processes.fit, str(tmp_path), "killed") == 0
    whole = tmp_path / "whole"
    assert survive(processes.fit, str(whole), "model") == 0
    killed = (tmp_path / "killed" / "weights.safetensors").read_bytes()
    assert killed == (whole / "model" / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_killed_twenty_times_a_series_ends_with_the_same_bundles(tmp_path):
    rng = np.random.default_rng(6)
    for _ in range(20):
        moment = ("step", "snapshot")[int(rng.integers(2))]
        count = int(rng.integers(1, 4))
        assert survive(processes.run, str(tmp_path / "a"), moment, count) == signal.SIGKILL
    for name in ("a", "b"):
        assert survive(processes.run, str(tmp_path / name)) == 0
    killed, whole = (
        {read_run(folder).fold: folder for folder in list_runs(tmp_path / name)}
        for name in ("a", "b")
    )
    assert set(killed) == set(whole) == {0, 1}
    for fold, folder in whole.items():
        name = "predictions.parquet"
        assert (killed[fold] / name).read_bytes() == (folder / name).read_bytes()
        histories = [
            pd.read_parquet(each[fold] / "history.parquet").drop(columns=TIMES)
            for each in (killed, whole)
        ]
        pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert list((tmp_path / "a" / "work" / "fits").iterdir()) == []


def fitted(tmp_path, make_adata, minutes=0.0, **settings):
    typer = Classifier(
        "geneformer",
        "geneformer.small",
        settings={"epochs": 2, "batch_size": 16, **settings},
        device="cpu",
    )
    typer.work_in(FitWorkspace(snapshots=tmp_path / "fit", checkpoint_minutes=minutes))
    return typer.fit(make_adata(), label_key=LABEL, valid=make_adata(seed=2), seed=0)


def test_a_finished_fit_is_not_trained_again(tmp_path, make_adata, monkeypatch):
    first = fitted(tmp_path, make_adata)
    monkeypatch.setattr("backend.training.optimiser_step.Stepper.step", None)
    again = fitted(tmp_path, make_adata)
    pd.testing.assert_frame_equal(first.history_, again.history_)
    cells = make_adata(seed=3)
    assert np.array_equal(first.predict(cells).proba, again.predict(cells).proba)


def test_snapshots_of_another_fit_are_not_read(tmp_path, make_adata):
    first = fitted(tmp_path, make_adata)
    other = fitted(tmp_path, make_adata, learning_rate=2e-3)
    assert other.history_["lr"].iloc[0] == 2 * first.history_["lr"].iloc[0]


def test_a_damaged_snapshot_starts_again(tmp_path, make_adata):
    first = fitted(tmp_path, make_adata)
    path = tmp_path / "fit" / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged"):
        again = fitted(tmp_path, make_adata)
    columns = [name for name in first.history_ if name not in TIMES]
    pd.testing.assert_frame_equal(first.history_[columns], again.history_[columns])


def test_snapshots_are_as_frequent_as_asked(tmp_path, make_adata, monkeypatch):
    written = []
    monkeypatch.setattr(Snapshots, "write", lambda self, values: written.append(values["progress"]))
    fitted(tmp_path, make_adata, minutes=60.0)
    assert [(at["epoch"], at["group"]) for at in written] == [(1, 0), (2, 0)]
    written.clear()
    fitted(tmp_path, make_adata)
    assert [at["step"] for at in written] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_snapshot_runs_no_code(tmp_path):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"format": 1, "of": "x", "values": Bad()}, tmp_path / "state.pt")
    with pytest.warns(UserWarning, match="damaged"):
        assert Snapshots(tmp_path, "x").read() is None
    assert not (tmp_path / "made").exists()


def test_a_full_disk_keeps_the_snapshot_before(tmp_path, monkeypatch):
    snapshots = Snapshots(tmp_path, "x")
    snapshots.write({"value": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(JobFailed, match="disk is full"):
        snapshots.write({"value": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert snapshots.read()["value"] == 1


def test_generators_go_on_as_before(tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist()  # noqa: NPY002

    with torch.random.fork_rng():
        Snapshots(tmp_path, "x").write({"random": generator_states()})
        first = draw()
        set_generator_states(Snapshots(tmp_path, "x").read()["random"])
        assert draw() == first
