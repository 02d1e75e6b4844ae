"""Sweeps: what a plan means on data, one sweep a folder, and the same end after any death."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.config import environment, project_root
from backend.data import cells_table, describe, load
from backend.data.expression import open_expression
from backend.errors import InputError, ModelUnavailable, SplitError
from backend.processes import Process, myself
from backend.store.bundle import (
    list_runs,
    read_dataset,
    read_predictions,
    read_run,
    write_dataset,
)
from backend.store.neighbours import NEIGHBOURS_FILE
from backend.studies import costs
from backend.studies.costs import Costs, cell_passes
from backend.studies.executors.common import execute
from backend.studies.lock import NAME, SweepLock
from backend.studies.plan import read_plan
from backend.studies.prepare import ensure_dataset, prepare
from backend.training.progress import Outcome, ProgressEvent


class Inline:
    """An executor in this process."""

    def __init__(self):
        self.texts = []

    def run(self, tasks, tell):
        self.texts += [task.text for task in tasks]
        outcomes = [execute(task, tell) for task in tasks]
        for outcome in outcomes:
            tell(outcome)
        return outcomes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_adata):
    path = tmp_path_factory.mktemp("data") / "tiny.h5ad"
    make_adata(n_cells=120, n_donors=6).write_h5ad(path)
    return path


@pytest.fixture
def out(dataset, tmp_path, monkeypatch):
    """A results folder that has the dataset's bundle, as its map takes long."""
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    adata = load(dataset)
    write_dataset(tmp_path / "out", describe(adata).to_json(), cells_table(adata))
    return tmp_path / "out"


@pytest.fixture
def write(dataset, tmp_path):
    """Write a plan and return its path."""

    def write(text, data=dataset):
        path = tmp_path / "plan.toml"
        path.write_text(f'dataset = "{data}"\nfolds = 3\n{text}', encoding="utf-8")
        return path

    return write


def prepared(path, out, *, is_written=True):
    return prepare(read_plan(path), out, is_written=is_written)


def events():
    said = []
    return said, said.append


SCGPT = 'model = "scgpt"\npreset = "whole_human"\nfold = 0'
MAJORITY = 'model = "majority"\n'


def test_runs_are_done_once_and_then_skipped(write, out):
    sweep = prepared(write(MAJORITY + 'protocol = ["donor", "random"]'), out)
    assert [run.state for run in sweep.runs] == ["to do"] * 6
    said, tell = events()
    outcomes = sweep.execute(Inline(), tell)
    assert [each.status for each in outcomes] == ["done"] * 6
    assert {event.state for event in said if isinstance(event, ProgressEvent)} >= {
        "started",
        "done",
    }
    assert {folder.name for folder in list_runs(out)} == {run.run_id for run in sweep.runs}
    again = prepared(write(MAJORITY + 'protocol = ["donor", "random"]'), out)
    assert [run.state for run in again.runs] == ["done"] * 6
    executor = Inline()
    assert again.execute(executor, tell) == []
    assert executor.texts == []


def test_a_dataset_is_written_once_with_its_nearest_cells(dataset, tmp_path, monkeypatch):
    adata = load(dataset)
    info, cells = describe(adata), cells_table(adata)
    nearest = np.full((adata.n_obs, 3), -1, dtype=np.int32)

    def computed(_, *, progress):
        progress(0.5, "Finding the nearest cells")
        return cells, nearest

    monkeypatch.setattr("backend.data.cells_and_neighbours", computed)
    said = []
    ensure_dataset(adata, info, tmp_path, say=said.append)
    folder = tmp_path / "datasets" / info.dataset_id
    values, stored = read_dataset(folder)
    assert values["name"] == "Tiny"
    assert list(stored["cell_id"]) == list(adata.obs_names)
    assert (folder / NEIGHBOURS_FILE).is_file()
    before = (folder / "cells.parquet").stat().st_mtime_ns
    ensure_dataset(adata, info, tmp_path, say=said.append)
    assert (folder / "cells.parquet").stat().st_mtime_ns == before
    assert said == ["Placing cells on a map", "Finding the nearest cells", "Writing counts by gene"]
    assert open_expression(folder).n_cells == adata.n_obs


def test_ids_are_those_of_the_verb_run(write, out, dataset):
    sweep = prepared(write(MAJORITY + "fold = 1\nseed = 4"), out)
    words = f"run --dataset {dataset} --model majority --folds 3 --fold 1 --seed 4 --out {out}"
    assert main(words.split()) == 0
    assert [folder.name for folder in list_runs(out)] == [sweep.runs[0].run_id]


def test_a_run_that_is_named_twice_is_done_once(write, out):
    tables = '[[run]]\nmodel = "majority"\n[[run]]\nmodel = ["majority", "logreg"]\nfold = [0, 2]\n'
    sweep = prepared(write(tables), out)
    assert len(sweep.runs) == 3 + 2
    assert sweep.n_repeated == 2


def test_study_has_at_most_one_fold_a_study(write, out):
    with pytest.raises(SplitError, match="stud"):
        prepared(write(MAJORITY + 'protocol = "study"'), out)


def test_a_dry_run_writes_nothing(write, out, capsys):
    path = write(MAJORITY + 'label_level = ["lineage", "fine"]')
    before = sorted(out.rglob("*"))
    assert main(["sweep", str(path), "--out", str(out), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert sorted(out.rglob("*")) == before
    assert len(re.findall(r"^to do +[0-9a-f]{16} +majority +tiny donor equal", printed, re.M)) == 6
    assert "6 runs: 0 done, 6 to do, 0 failed before." in printed
    assert re.search(
        r"^majority +6 +\d+ +1 +0\.02 +0\.0 core +measured: van Galen 2019", printed, re.M
    )
    assert "Estimated: 0.0 core hours, " in printed
    assert "Threads of a run: 1" in printed


def test_failures_are_reported_and_tried_again(write, out, monkeypatch, capsys):
    from backend.models.baselines.majority import MajorityClass

    def fail(self, train, **_):
        msg = "no memory left"
        raise MemoryError(msg)

    monkeypatch.setattr("backend.studies.executors.local.LocalExecutor", lambda **_: Inline())
    path = write('[[run]]\nmodel = "majority"\nfold = [0, 1]\n')
    with monkeypatch.context() as patch:
        patch.setattr(MajorityClass, "fit", fail)
        assert main(["sweep", str(path), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "0 done, 0 skipped, 2 failed." in printed
    assert "failed: majority · donor · fold 1: no memory left" in printed
    assert main(["sweep", str(path), "--out", str(out), "--dry-run"]) == 0
    assert "failed before: majority · donor · fold 0: no memory left" in capsys.readouterr().out
    assert main(["sweep", str(path), "--out", str(out)]) == 0
    assert "2 done, 0 skipped, 0 failed." in capsys.readouterr().out
    assert main(["sweep", str(path), "--out", str(out)]) == 0
    assert "0 done, 2 skipped, 0 failed." in capsys.readouterr().out


def test_a_type_that_no_training_cell_has_is_named(write, out, make_adata, tmp_path):
    adata = make_adata(n_cells=120, n_donors=6)
    for level in ("fine", "lineage"):
        labels = adata.obs[f"cell_type_{level}"].astype(object)
        labels[(adata.obs["donor"] == "AML1") & (labels == "T")] = "pDC"
        adata.obs[f"cell_type_{level}"] = pd.Categorical(labels)
    adata.write_h5ad(tmp_path / "rare.h5ad")
    path = write(MAJORITY, tmp_path / "rare.h5ad")
    sweep = prepare(read_plan(path), out, is_written=False)
    lines = [line for line in sweep.warnings if "no training cell is pDC" in line]
    assert len(lines) == 1
    assert re.fullmatch(
        r"donor, fold \d: no training cell is pDC \(\d+ test cells\); no model can predict it\.",
        lines[0],
    )


def test_a_fold_that_trains_on_one_type_is_refused(write, out, make_adata, tmp_path):
    adata = make_adata(n_cells=120, n_donors=6)
    rare = adata.obs["donor"] == "AML1"
    for level in ("fine", "lineage"):
        adata.obs[f"cell_type_{level}"] = pd.Categorical(
            ["T" if is_rare else "HSC" for is_rare in rare]
        )
    adata.write_h5ad(tmp_path / "one.h5ad")
    path = write(MAJORITY, tmp_path / "one.h5ad")
    with pytest.raises(SplitError, match=r"donor, fold \d: .* one type at most \(HSC\)"):
        prepare(read_plan(path), out, is_written=False)
    assert list_runs(out) == []


def test_a_fold_without_validation_cells_is_named_for_foundation_models(write, out):
    tables = '[[run]]\nmodel = "majority"\n'
    said = prepared(write(tables), out).warnings
    assert not [line for line in said if "no validation cell," in line]
    tables += '[[run]]\nmodel = "scgpt"\npreset = "small"\nfold = 0'
    said = prepared(write(tables), out).warnings
    assert [line for line in said if "no validation cell," in line] == [
        "donor, fold 0: there is no validation cell, so the last epoch is kept."
    ]


PRETRAIN = """
[[pretrain]]
name = "ours"
model = "scgpt"
preset = "small"
protocol = "donor"
fold = [0, 1]

[[run]]
model = "scgpt"
preset = "small"
init = "pretrained"
checkpoint = "ours"
"""


def test_runs_wait_for_their_checkpoints(write, out):
    sweep = prepared(write(PRETRAIN + "fold = [0, 1]"), out)
    assert [made.fold for made in sweep.checkpoints] == [0, 1]
    assert [run.checkpoint for run in sweep.runs] == [made.key for made in sweep.checkpoints]
    assert [run.run_id for run in sweep.runs] == [None, None]

    class Failing:
        def run(self, tasks, tell):
            return [Outcome(task.key, "failed", "the loss is not finite") for task in tasks]

    outcomes = sweep.execute(Failing(), lambda event: None)
    assert [each.reason for each in outcomes[2:]] == [
        "Its checkpoint was not made: the loss is not finite"
    ] * 2


@pytest.mark.parametrize("line", ["fold = 2", 'protocol = "random"\nfold = 0'])
def test_a_checkpoint_that_the_plan_makes_for_other_cells_is_refused(write, out, line):
    with pytest.raises(ModelUnavailable, match=r'\[\[run\]\] 1: no \[\[pretrain\]\] .*"ours"'):
        prepared(write(PRETRAIN + line), out)


def test_a_plan_larger_than_the_disk_is_refused(write, out, monkeypatch, capsys):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(costs.shutil, "disk_usage", lambda path: Usage(10, 0, 1000))
    assert main(["sweep", str(write(MAJORITY)), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert re.search(r"needs about 0\.\d\d GiB below .*, but only 0\.00 GiB are free", said)
    assert "--out" in said
    assert list_runs(out) == []
    assert not (out / NAME).exists()


def test_larger_presets_and_more_jobs_need_more_disk(write, out):
    small = prepared(write('model = "scgpt"\npreset = "small"\nfold = 0'), out)
    large = prepared(write(SCGPT), out)
    weights = 200 * 2**20
    assert large.bytes_needed(jobs=1) - small.bytes_needed(jobs=1) > 6 * weights
    assert large.bytes_needed(jobs=2) - large.bytes_needed(jobs=1) == 8 * weights


def test_estimates_take_finished_runs_before_guides(write, out):
    sweep = prepared(write(MAJORITY), out)
    costs_before = Costs(out, has_gpu=False)
    (guide,) = costs_before.table(sweep.runs)
    assert (guide.n_runs, guide.epochs, guide.ms, guide.unit) == (3, 1, 0.02, "core")
    assert guide.source == "measured: van Galen 2019, one core"
    assert guide.hours == pytest.approx(sum(run.n_train for run in sweep.runs) * 0.02 / 3.6e6)
    sweep.execute(Inline(), lambda event: None)
    after = Costs(out, has_gpu=False)
    (found,) = after.table(sweep.runs)
    assert found.source == "measured: finished runs here, on a CPU"
    assert found.ms != guide.ms
    walls = sorted(read_run(f).wall_seconds / read_run(f).n_train for f in list_runs(out))
    assert after.seconds("majority", 500, {}) == pytest.approx(500 * walls[1])
    assert after.seconds("never_heard_of", 500, {}) is None
    gpu = Costs(out, has_gpu=True).table(prepared(write(SCGPT), out).runs)
    assert [(each.unit, each.source.partition(":")[0]) for each in gpu] == [("GPU", "stated")]
    assert cell_passes("scgpt.small", 100, {}) == 1000
    assert cell_passes("scgpt.small", 100, {"epochs": 3}) == 300
    assert cell_passes("scgpt.small", 100, {"max_steps": 2, "batch_size": 8}) == 16


def test_a_second_sweep_in_a_folder_is_refused(write, out, capsys):
    path = write(MAJORITY)
    with SweepLock(out, "first.toml"):
        assert main(["sweep", str(path), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert "Another sweep is at work in this folder (plan first.toml, process" in said
        assert "another --out" in said
        assert list_runs(out) == []
    assert not (out / NAME).exists()
    assert [path.name for path in out.iterdir()] == ["datasets"]


def hold(out, process):
    with SweepLock(out, "old.toml"):
        values = json.loads((out / NAME).read_text())
    (out / NAME).write_text(json.dumps(values | {"process": process._asdict()}))


def test_the_lock_of_a_dead_process_is_taken_over(out):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    hold(out, Process(myself().host, child.pid, ""))
    with SweepLock(out, "new.toml") as lock:
        assert f"process {child.pid}" in lock.notice
        assert "died (plan old.toml" in lock.notice
        assert json.loads((out / NAME).read_text())["plan"] == "new.toml"
    # A later process may have got the same number.
    hold(out, myself()._replace(started="1"))
    with SweepLock(out, "new.toml") as lock:
        assert "died" in lock.notice


def test_the_lock_of_another_machine_is_kept(out):
    hold(out, Process("elsewhere", 1, "1"))
    os.utime(out / NAME, (time.time() - 500,) * 2)
    with (
        pytest.raises(InputError, match=r"another machine .* on elsewhere.*5\d\d s ago.*delete"),
        SweepLock(out, "new.toml"),
    ):
        pass
    assert (out / NAME).exists()


def test_a_damaged_lock_is_named(out):
    (out / NAME).write_text("{")
    with (
        pytest.raises(InputError, match=r"cannot be read.*delete the file"),
        SweepLock(out, "new.toml"),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs is 0"),
        (["--address", "auto"], "--address goes with --executor ray"),
        (["--out", "s3://bucket/x"], "the local executor writes to a folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(write, capsys, words, message):
    assert main(["sweep", str(write(MAJORITY)), *words]) == 2
    assert message in capsys.readouterr().err


# From here on, real processes.

STUDY = """
[[run]]
model = "majority"
[[run]]
model = "scgpt"
preset = "small"
fold = [0, 1]
settings = { epochs = 3, batch_size = 4 }
"""


def start(path, out, tmp_path, *words):
    log = (tmp_path / "sweep.log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "backend", "sweep", str(path), "--out", str(out), *words],
            env=environment(FAULTLINE_HOME=str(tmp_path / "home")),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=project_root(),
        )


def wait_until(is_true, process, seconds=180):
    end = time.monotonic() + seconds
    while not is_true():
        assert process.poll() is None, "the sweep ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.02)


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_sweep_killed_twice_ends_as_one_that_was_not(write, out, tmp_path, dataset):
    path = write(STUDY)
    whole = tmp_path / "whole"
    adata = load(dataset)
    write_dataset(whole, describe(adata).to_json(), cells_table(adata))
    expected = prepared(path, whole)
    assert {o.status for o in expected.execute(Inline(), lambda event: None)} == {"done"}

    def n_done():
        return len(list_runs(out))

    def is_training():
        return any((out / "work").glob("fits/*/*"))

    first = start(path, out, tmp_path, "--jobs", "2")
    wait_until(lambda: n_done() >= 2, first)
    workers = children(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (out / NAME).exists()
    end = time.monotonic() + 10
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlived its sweep"
        time.sleep(0.05)

    second = start(path, out, tmp_path, "--jobs", "1")
    wait_until(is_training, second)
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert n_done() < len(expected.runs)

    last = start(path, out, tmp_path, "--jobs", "1")
    assert last.wait(timeout=300) == 0, (tmp_path / "sweep.log").read_text()
    log = (tmp_path / "sweep.log").read_text()
    assert log.count("Took over from a sweep that died") == 2
    assert " 0 failed." in log
    assert not (out / NAME).exists()
    assert {f.name for f in list_runs(out)} == {run.run_id for run in expected.runs}
    for folder in list_runs(out):
        pd.testing.assert_frame_equal(
            read_predictions(folder), read_predictions(whole / "runs" / folder.name)
        )
    assert prepared(path, out, is_written=False).waiting() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_sweep_cleanly(write, out, tmp_path, number):
    process = start(write(STUDY), out, tmp_path, "--jobs", "1")
    wait_until(lambda: len(list_runs(out)) >= 1, process)
    workers = children(process.pid)
    assert workers
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert "Finished runs are kept" in (tmp_path / "sweep.log").read_text()
    assert not (out / NAME).exists()
    assert not any(is_running(pid) for pid in workers)
    assert not list((out / "runs").glob(".tmp-*"))


@pytest.mark.slow
def test_checkpoints_are_made_first_and_found_by_their_fold(write, out):
    text = PRETRAIN.replace(
        'protocol = "donor"', 'settings = { max_steps = 2 }\nprotocol = "donor"'
    )
    path = write(text + "fold = [0, 1]\nsettings = { epochs = 1 }")
    sweep = prepared(path, out)
    said, tell = events()
    outcomes = sweep.execute(Inline(), tell)
    assert [(each.status, each.reason) for each in outcomes] == [("done", None)] * 4
    shares = {outcome.key: set() for outcome in outcomes}
    for event in said:
        if isinstance(event, ProgressEvent) and event.share is not None:
            shares[event.key].add(event.share)
    assert all(found and max(found) == 1 for found in shares.values())
    again = prepared(path, out)
    assert [made.is_done for made in again.checkpoints] == [True, True]
    assert [run.state for run in again.runs] == ["done", "done"]
    records = [read_run(folder) for folder in list_runs(out)]
    assert len({record.checkpoint_sha256 for record in records}) == 2
    assert again.execute(Inline(), lambda event: None) == []
