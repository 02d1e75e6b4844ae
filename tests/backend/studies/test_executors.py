"""Executors: a worker that dies costs one attempt, never the sweep."""

import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.config import environment, project_root
from backend.data import cells_table, describe, load
from backend.errors import InputError
from backend.processes import Child
from backend.store.bundle import list_runs, read_predictions, read_run, write_dataset
from backend.studies.executors.common import execute
from backend.studies.executors.local import LocalExecutor, thread_limits
from backend.studies.lock import NAME
from backend.studies.plan import read_plan
from backend.studies.prepare import prepare

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_adata):
    path = tmp_path_factory.mktemp("data") / "tiny.h5ad"
    make_adata(n_cells=120, n_donors=6).write_h5ad(path)
    return path


@pytest.fixture
def sweep_of(dataset, tmp_path, monkeypatch):
    """Prepare a plan on the tiny dataset; gives sweep and plan's path."""
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))

    def sweep_of(text, out="out"):
        path = tmp_path / "plan.toml"
        path.write_text(f'dataset = "{dataset}"\nfolds = 3\n{text}', encoding="utf-8")
        where = out if "://" in out else tmp_path / out
        adata = load(dataset)
        # Without a map, which takes long.
        write_dataset(where, describe(adata).to_json(), cells_table(adata))
        return prepare(read_plan(path), where, is_written=True)

    return sweep_of


class Killer:
    """Kills the worker of a task each of the first `times` that it starts."""

    def __init__(self, executor, key, times):
        self.executor, self.key, self.left, self.events = executor, key, times, []

    def __call__(self, event):
        self.events.append(event)
        if self.left and (event.key, getattr(event, "state", "")) == (self.key, "started"):
            self.left -= 1
            busy = [w for w in self.executor._workers if w.task and w.task.key == self.key]
            os.kill(busy[0].child.pid, signal.SIGKILL)


def test_a_worker_that_dies_costs_one_attempt(sweep_of):
    sweep = sweep_of('model = "majority"')
    executor = LocalExecutor(jobs=1)
    tell = Killer(executor, sweep.runs[1].key, times=1)
    outcomes = sweep.execute(executor, tell)
    assert [(each.status, each.attempts) for each in outcomes] == [
        ("done", 1),
        ("done", 2),
        ("done", 1),
    ]
    retried = [event for event in tell.events if getattr(event, "state", "") == "retried"]
    assert [event.text for event in retried] == [
        "its worker was killed (SIGKILL, perhaps for want of memory)"
    ]
    assert {read_run(folder).status for folder in list_runs(sweep.out)} == {"done"}


@pytest.mark.slow
def test_a_run_whose_worker_dies_twice_has_failed_and_the_others_go_on(sweep_of):
    sweep = sweep_of('model = "majority"')
    executor = LocalExecutor(jobs=2)
    outcomes = sweep.execute(executor, Killer(executor, sweep.runs[0].key, times=2))
    assert [each.status for each in outcomes] == ["failed", "done", "done"]
    assert outcomes[0].attempts == 2
    record = read_run(sweep.out / "runs" / sweep.runs[0].run_id)
    assert (record.status, record.error_kind) == ("failed", "JobFailed")
    assert record.reason == outcomes[0].reason
    assert re.fullmatch(r"Its worker was killed \(SIGKILL.*\), 2 times\.", record.reason)
    assert record.display_name == "Majority class"
    assert executor._workers == []


@pytest.mark.slow
def test_gpus_are_dealt_to_the_workers_and_their_number_changes_nothing(sweep_of, monkeypatch):
    started = []

    class Recorded(Child):
        def __init__(self, *words, env, **options):
            started.append(env.get("CUDA_VISIBLE_DEVICES"))
            super().__init__(*words, env=env, **options)

    monkeypatch.setattr("backend.studies.executors.local.Child", Recorded)
    plan = '[[run]]\nmodel = "majority"\nprotocol = ["donor", "random"]'
    one, two = sweep_of(plan, "one"), sweep_of(plan, "two")
    one.execute(LocalExecutor(jobs=1), lambda event: None)
    assert started == [None]
    two.execute(LocalExecutor(jobs=2, gpus=["3", "5"]), lambda event: None)
    assert started == [None, "3", "5"]
    for run in one.runs:
        first, second = (read_predictions(s.out / "runs" / run.run_id) for s in (one, two))
        pd.testing.assert_frame_equal(first, second)


def test_a_fault_of_the_program_ends_one_run_only(sweep_of):
    sweep = sweep_of('model = "majority"')
    # A worker that cannot read its split is refused; one that gets nonsense fails as a fault.
    other = sweep.runs[0].split.with_name("other.parquet")
    other.write_bytes(b"no split")
    tasks = list(sweep.runs)
    tasks[0] = replace(tasks[0], options={"no_such_option": 1})
    tasks[1] = replace(tasks[1], split=other)
    outcomes = LocalExecutor(jobs=1).run(tasks, lambda event: None)
    assert [each.status for each in outcomes] == ["failed", "failed", "done"]
    assert outcomes[0].reason.startswith("fault of the program: ")
    assert '"other.parquet" cannot be read as a split' in outcomes[1].reason
    assert [each.attempts for each in outcomes] == [1, 1, 1]


def test_every_numerical_library_is_held_to_its_threads():
    assert thread_limits(3) == {
        f"{name}_NUM_THREADS": "3" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    }


def test_results_may_go_to_a_url(sweep_of, tmp_path):
    sweep = sweep_of('model = "majority"', f"file://{tmp_path}/remote")
    run = sweep.runs[0]
    assert not run.split.is_relative_to(tmp_path / "remote")
    assert execute(run, lambda event: None).status == "done"
    assert list_runs(str(sweep.out)) == [f"{sweep.out}/runs/{run.run_id}"]
    assert len(read_predictions(f"{sweep.out}/runs/{run.run_id}"))
    path = tmp_path / "plan.toml"
    assert [each.state for each in prepare(read_plan(path), sweep.out, is_written=False).runs] == [
        "done",
        "to do",
        "to do",
    ]
    assert execute(run, lambda event: None).status == "skipped"


def test_a_final_fit_of_epochs_needs_a_folder(sweep_of, tmp_path):
    text = 'model = "scgpt"\npreset = "small"\nfold = [0, "final"]'
    with pytest.raises(InputError, match="histories of its folds, which are at a URL"):
        sweep_of(text, f"file://{tmp_path}/remote")


def test_without_ray_the_way_to_install_it_is_told(sweep_of, tmp_path, monkeypatch, capsys):
    real = importlib.import_module

    def without_ray(name, *rest):
        if name == "ray":
            raise ModuleNotFoundError(name="ray")
        return real(name, *rest)

    sweep_of('model = "majority"')
    monkeypatch.setattr(importlib, "import_module", without_ray)
    words = ["sweep", str(tmp_path / "plan.toml"), "--executor", "ray", "--out", str(tmp_path)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "needs the package ray, which is not installed" in said
    assert "pip install -r requirements-cluster.txt" in said
    assert not (tmp_path / NAME).exists()


STUDY = """
[[run]]
model = ["majority", "logreg"]
fold = [0, 1]
[[run]]
model = "scgpt"
preset = "small"
fold = [0, 1]
settings = { epochs = 2, batch_size = 8 }
"""


def descendants(pid):
    """Return the living processes below one, by id, with their command lines."""
    found, waiting = {}, [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                below = [int(each) for each in task.read_text().split()]
                for each in below:
                    found[each] = (
                        Path(f"/proc/{each}/cmdline").read_bytes().decode("utf-8", "replace")
                    )
                waiting += below
            except (FileNotFoundError, ProcessLookupError):
                # It ended between two looks.
                continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (requirements-cluster.txt)")
def test_a_local_ray_loses_a_worker_and_still_finishes(sweep_of, tmp_path):
    sweep = sweep_of(STUDY)
    command = ["sweep", str(tmp_path / "plan.toml"), "--out", str(sweep.out)]
    with (tmp_path / "sweep.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend", *command, "--executor", "ray", "--jobs", "2"],
            env=environment(FAULTLINE_HOME=str(tmp_path / "home")),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=project_root(),
        )
    killed = None
    end = time.monotonic() + 240
    while process.poll() is None and killed is None:
        assert time.monotonic() < end
        # A worker is called after the task that it does.
        for pid, name in descendants(process.pid).items():
            if name.startswith("ray::scgpt"):
                os.kill(pid, signal.SIGKILL)
                killed = pid
                break
        time.sleep(0.02)
    assert killed is not None, (tmp_path / "sweep.log").read_text()
    assert process.wait(timeout=300) == 0, (tmp_path / "sweep.log").read_text()
    assert "6 done, 0 skipped, 0 failed." in (tmp_path / "sweep.log").read_text()

    expected = sweep_of(STUDY, "expected")
    for run in expected.runs:
        outcome = execute(run, lambda event: None)
        assert (outcome.key, outcome.status) == (run.key, "done")
        found = read_predictions(sweep.out / "runs" / run.run_id)
        wanted = read_predictions(expected.out / "runs" / run.run_id)
        plain = [name for name in wanted if name not in ("confidence", "proba")]
        pd.testing.assert_frame_equal(found[plain], wanted[plain])
        np.testing.assert_allclose(found["confidence"], wanted["confidence"], atol=1e-6)


def test_a_cluster_that_is_not_there_is_named(sweep_of, tmp_path, capsys):
    sweep_of('model = "majority"')
    words = ["sweep", str(tmp_path / "plan.toml"), "--executor", "ray", "--out", str(tmp_path)]
    assert main([*words, "--address", "ray://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert 'No Ray cluster answers at "ray://127.0.0.1:9" (Connection refused).' in said
    assert "--address" in said
    assert not (tmp_path / NAME).exists()
