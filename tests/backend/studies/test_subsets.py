"""The subset of a plan: what is refused, drawn once, the same without being written."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import h5py
import pytest

from backend.cli import main
from backend.config import environment, project_root
from backend.data import describe, load
from backend.data.simulate import write_simulated
from backend.data.stand_in.file import write_stand_in
from backend.errors import FaultlineError, InputError
from backend.jobs.requests import SweepRequest
from backend.store.bundle import list_runs, read_run
from backend.studies import subsets
from backend.studies.executors.common import InProcess
from backend.studies.plan import read_plan
from backend.studies.prepare import prepare

SHARES = 'shares = { Healthy = 0.25, Diagnosis = 0.30, "Post-treatment" = 0.22, Relapse = 0.22 }\n'
PLAN = f'model = "majority"\nfolds = 3\n[subset]\n{SHARES}'
STAGE = '[roles]\ncell_type = "celltype_final"\n'


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("subsets") / "simulated.h5ad"
    write_simulated(path, 900, seed=0, n_genes=300)
    return path


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    path = tmp_path_factory.mktemp("subsets") / "atlas.h5ad"
    write_stand_in(path, 700, n_genes=300)
    return path


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a plan and return its path; work lies in a place of its own."""
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))

    def write(text):
        path = tmp_path / "plan.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "place", "match"),
    [
        ("subset = 3", "[subset]", "`subset` is a whole number"),
        ("[subset]", "[subset]", "`shares` is missing"),
        ("[subset]\nshares = {}", "[subset]", "`shares` is empty"),
        ("[subset]\nshares = [0.5]", "[subset]", "`shares` is a list"),
        ("[subset]\nshares = { Healthy = 0.5 }", "[subset]", "come to 0.5, not to 1"),
        ('[subset]\nshares = { A = "x", B = 1 }', "[subset]", '`shares.A` is "x"'),
        ("[subset]\nshares = { A = true }", "[subset]", "`shares.A` is True"),
        ("[subset]\nshares = { A = 1 }\nby = 'mood'", "[subset]", '`by` is "mood"'),
        ("[subset]\nshares = { A = 1 }\ncells = 0", "[subset]", "`cells` is 0"),
        ("[subset]\nshares = { A = 1 }\nseed = -1", "[subset]", "`seed` is -1"),
        ("[subset]\nshare = { A = 1 }", "[subset]", 'no key "share"'),
        ("roles = 1", "plan.toml", "`roles` is a whole number"),
        ("[roles]\nmood = 'x'", "plan.toml", "does not name a role"),
        ("[roles]\ndonor = 1", "plan.toml", "`roles.donor` is 1"),
        ("[roles]\ntimepoints = 1", "plan.toml", "whole number"),
        ("[roles]\ntimepoints = { x = 'Cure' }", "plan.toml", "Unknown timepoints: Cure"),
    ],
)
def test_plans_that_are_refused(write, simulated, text, place, match):
    path = write(f'model = "majority"\n{text}')
    with pytest.raises(InputError, match=re.escape(match)) as refused:
        read_plan(path, dataset=simulated)
    assert place in refused.value.message


def test_a_subset_is_drawn_once_and_is_the_same_before_it_is_written(
    write, simulated, tmp_path, plain_umap
):
    plan = read_plan(write(PLAN), dataset=simulated)
    before = prepare(plan, tmp_path / "out", is_written=False)
    assert not (tmp_path / "out").exists()
    after = prepare(plan, tmp_path / "out", is_written=True)
    assert [run.run_id for run in before.runs] == [run.run_id for run in after.runs]
    (note,) = [text for text in after.notes if text.startswith("subset of")]
    assert note in before.notes
    assert re.search(r"simulated\.h5ad by timepoint: \d+ cells, 30 donors; Healthy \d+ \(25", note)
    (file,) = (tmp_path / "out" / "subsets").iterdir()
    written = file.stat().st_mtime_ns
    outcomes = after.execute(InProcess(), lambda _: None)
    assert [each.status for each in outcomes] == ["done"] * 3
    again = prepare(plan, tmp_path / "out", is_written=True)
    assert [run.state for run in again.runs] == ["done"] * 3
    assert file.stat().st_mtime_ns == written


def test_another_draw_has_another_place(write, simulated, tmp_path):
    plan = read_plan(write(PLAN), dataset=simulated)
    other = read_plan(write(PLAN + "seed = 1\n"), dataset=simulated)
    places = {
        subsets.subset_file(tmp_path, simulated, each.subset, each.roles) for each in (plan, other)
    }
    assert len(places) == 2


def test_an_impossible_subset_is_refused_with_the_largest(write, simulated, tmp_path, capsys):
    path = write(PLAN + "cells = 250000\n")
    words = ["sweep", str(path), "--dataset", str(simulated), "--out", str(tmp_path / "out")]
    for dry in (["--dry-run"], []):
        assert main([*words, *dry]) == 2
        said = capsys.readouterr().err
        assert "A subset of 250,000 cells with these shares cannot be drawn" in said
        assert re.search(r"Ask for 4 to \d{3} cells", said)
    assert not list((tmp_path / "out").rglob("*.h5ad"))


def test_nineteen_labels_are_not_to_be_had_of_the_earlier_file(write, tmp_path):
    early = tmp_path / "early.h5ad"
    write_stand_in(early, 600, n_genes=300, stage="first")
    plan = read_plan(write(f"{PLAN}{STAGE}"), dataset=early)
    with pytest.raises(FaultlineError, match="before its labels were cleaned") as refused:
        prepare(plan, tmp_path / "out", is_written=False)
    assert "celltype_final" in refused.value.message
    # Its 24 labels can be had, of the cells whose timepoint it says.
    plan = read_plan(write(PLAN), dataset=early)
    study = prepare(plan, tmp_path / "out", is_written=False)
    assert any("of another or no timepoint were left out" in note for note in study.notes)


def test_an_atlas_without_its_layer_of_counts_is_refused_by_name(write, atlas, tmp_path):
    bare = tmp_path / "bare.h5ad"
    bare.write_bytes(atlas.read_bytes())
    with h5py.File(bare, "r+") as file:
        del file["layers"]
    plan = read_plan(write(f"{PLAN}{STAGE}"), dataset=bare)
    with pytest.raises(FaultlineError, match="scran size factors") as refused:
        prepare(plan, tmp_path / "out", is_written=False)
    assert 'layers["counts"]' in refused.value.message


def test_a_download_that_broke_off_is_refused(write, atlas, tmp_path):
    half = tmp_path / "half.h5ad"
    half.write_bytes(atlas.read_bytes()[: atlas.stat().st_size // 2])
    plan = read_plan(write(f"{PLAN}{STAGE}"), dataset=half)
    with pytest.raises(FaultlineError, match="truncated"):
        prepare(plan, tmp_path / "out", is_written=False)


def test_a_type_that_a_fold_lacks_at_a_timepoint_is_listed(write, atlas, tmp_path):
    study = prepare(
        read_plan(write(f"{PLAN}{STAGE}"), dataset=atlas), tmp_path / "out", is_written=False
    )
    assert study.gaps
    split = study.runs[0].series
    assert (split.protocol, split.folds) == ("donor", 3)
    pattern = r"donor, fold [012]: (tests|trains on) no cell of [\w., ]+ \([A-Z][a-z-]+\)[;.]"
    assert all(re.match(pattern, text) for text in study.gaps), study.gaps


def test_a_plan_with_a_subset_is_not_for_uploads(simulated, monkeypatch, write):
    monkeypatch.setattr("backend.jobs.requests.find_plan", lambda _: write(PLAN))
    request = {"plan": "plan.toml", "dataset": "x", "roles": {}, "is_shared": False}
    with pytest.raises(InputError, match="would outlive your upload"):
        SweepRequest.of(request | {"upload": "0" * 16}).read(simulated)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="ray is not installed (requirements-cluster.txt)",
)
def test_workers_of_a_ray_cluster_read_the_subset(write, simulated, tmp_path):
    path = write(PLAN)
    words = ["sweep", str(path), "--dataset", str(simulated), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "backend", *words, "--executor", "ray", "--jobs", "1"],
        cwd=project_root(), env=environment() | {"PYTHONPATH": os.fspath(project_root())},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 done, 0 skipped, 0 failed." in done.stdout
    (subset,) = (tmp_path / "out" / "subsets").iterdir()
    records = [read_run(folder) for folder in list_runs(tmp_path / "out")]
    assert {record.dataset_id for record in records} == {describe(load(subset)).dataset_id}
