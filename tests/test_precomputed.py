"""What is shipped is what the manifest says, and nothing that may not be shipped."""

import hashlib
import importlib.util
import json

import pandas as pd
import pytest

from backend.config import project_root
from backend.store.bundle import list_runs, read_predictions, read_run
from backend.store.index import INDEX, index_of
from tests.helpers import write_results

SHIPPED = project_root() / "precomputed"
MAY_BE_SHIPPED = {
    "cell_id", "cell_type_fine", "cell_type_lineage", "timepoint", "donor", "study", "sample",
    "day", "label_source", "genotype", "is_malignant", "n_counts", "n_genes", "umap_x", "umap_y",
    "sort",
}  # fmt: skip


EIGHT = {
    "majority", "logreg", "celltypist", "hgb", "scgpt", "geneformer", "scbert", "scfoundation",
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest():
    return json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs():
    return [read_run(folder) for folder in list_runs(SHIPPED)]


def test_every_file_is_listed_with_its_hash(manifest):
    found = {
        path.relative_to(SHIPPED).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("datasets", "runs", "splits")
        for path in (SHIPPED / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert found == manifest["sha256"]


@pytest.fixture(scope="module")
def folds(runs):
    """Each shipped fold; `final` fits test nothing."""
    columns = [
        "dataset_id",
        "model",
        "init",
        "budget",
        "label_level",
        "protocol",
        "fold",
        "n_train",
    ]
    rows = [[getattr(run, name) for name in columns] for run in runs if run.fold != "final"]
    return pd.DataFrame(rows, columns=columns)


def test_the_index_lists_what_is_shipped():
    """If not: `python -m backend runs index`."""
    shipped = (SHIPPED / INDEX).read_text(encoding="utf-8")
    assert shipped == index_of(SHIPPED).to_csv(index=False, lineterminator="\n")


def test_no_shipped_run_failed(runs):
    assert [run.run_id for run in runs if run.status != "done"] == []


def test_all_baselines_have_all_folds_under_each_protocol(folds):
    assert set(folds["model"]) >= {"majority", "logreg", "celltypist", "hgb"}
    by_dataset = folds.groupby("dataset_id")["protocol"].agg(set)
    assert all(protocols >= {"random", "donor"} for protocols in by_dataset)
    at_five = folds[folds["protocol"] != "study"]
    by_series = at_five.groupby(at_five.columns[:6].tolist())["fold"].agg(set)
    assert all(found == {0, 1, 2, 3, 4} for found in by_series)


def test_all_eight_models_stand_in_one_picture(folds, runs):
    """One budget and one level for all, under both protocols, with a model to ask for each."""
    real = folds[folds["budget"] != "equal"]
    assert real[["dataset_id", "budget", "label_level"]].drop_duplicates().shape == (1, 3)
    assert set(real["label_level"]) == {"fine"}
    scratch = real[real["init"] == "scratch"]
    for protocol in ("random", "donor"):
        assert set(scratch.loc[scratch["protocol"] == protocol, "model"]) == EIGHT
    finals = {run.model for run in runs if run.fold == "final"}
    assert finals == EIGHT - {"hgb"}, "trees cannot be saved without pickle"


def test_networks_start_from_scratch_and_from_cells_of_their_fold(folds, runs):
    real = folds[(folds["budget"] != "equal") & (folds["init"] == "pretrained")]
    assert set(real["model"]) == {"scgpt", "geneformer", "scbert", "scfoundation"}
    assert set(real["protocol"]) == {"donor"}
    seeds: dict[str, set[int]] = {}
    for run in runs:
        if run.protocol == "donor" and run.init == "scratch" and run.fold != "final":
            seeds.setdefault(run.model, set()).add(run.seed)
    assert seeds["scgpt"] == seeds["logreg"] == {0, 1, 2}


def test_networks_say_whether_they_had_stopped_improving(runs):
    networks = [run for run in runs if run.preset is not None and run.fold != "final"]
    assert networks
    assert all(run.convergence["state"] for run in networks)


def test_random_and_donor_train_on_equally_many_cells(folds):
    wide = folds[folds["protocol"] != "study"].pivot_table(
        index=["dataset_id", "model", "init", "budget", "label_level", "fold"],
        columns="protocol",
        values="n_train",
    )
    both = wide.dropna()
    assert len(both) >= 4 * 5 * 3
    assert (both["random"] == both["donor"]).all()


def test_only_what_may_be_shipped_is_shipped():
    for path in SHIPPED.glob("datasets/*/cells.parquet"):
        assert set(pd.read_parquet(path).columns) <= MAY_BE_SHIPPED
    assert {path.suffix for path in SHIPPED.rglob("*") if path.is_file()} <= {
        ".json", ".csv", ".parquet", ".txt", ".py", ".npz", ".safetensors", ".bin", ".pyc",
    }  # fmt: skip


def test_each_cell_is_tested_once_in_a_series(runs):
    by_series: dict[str, list] = {}
    for run, folder in zip(runs, list_runs(SHIPPED), strict=True):
        if run.fold != "final":
            by_series.setdefault(run.series_id, []).append(folder)
    for folders in list(by_series.values())[:6]:
        tested = pd.concat(
            [read_predictions(f).query("role == 'test'")["cell_id"] for f in folders]
        )
        assert tested.is_unique


def test_simulated_and_real_are_told_apart(manifest):
    told = {
        info["dataset_id"]: info["simulated"]
        for info in (
            json.loads(p.read_text(encoding="utf-8"))
            for p in SHIPPED.glob("datasets/*/dataset.json")
        )
    }
    assert sorted(told.values()) == [False, True]
    assert [d["simulated"] for d in manifest["datasets"]] == [False, True]
    real = manifest["datasets"][0]
    assert real["accession"] == "GSE116256"
    assert "10.1016/j.cell.2019.01.031" in real["doi"]


def test_complete_series_take_the_place_of_the_shipped_ones(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make", SHIPPED / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    shipped, results = tmp_path / "shipped", tmp_path / "results"
    monkeypatch.setattr(make, "HERE", shipped)
    models = {name: (name, (0,)) for name in ("logreg", "hgb")}
    given = {"models": models, "fine": (), "folds": 2, "failed": (("hgb", "donor", 1),)}
    course = write_results(shipped, name="Course", simulated=True, **given)
    old = write_results(shipped, name="Old", simulated=False, **given)
    new = write_results(results, name="New", simulated=False, **given)
    for root, dataset in ((shipped, course), (shipped, old), (results, new)):
        (root / "splits").mkdir(exist_ok=True)
        for name in ("donor-k2-s0-equal", "donor-k2-s0-cap9"):
            (root / "splits" / f"{dataset.dataset_id}-{name}.parquet").touch()
    before = {run.run_id for run in map(read_run, list_runs(shipped)) if "hgb" in run.model}

    make.take(results)
    runs = [read_run(folder) for folder in list_runs(shipped)]
    assert {run.dataset_id for run in runs} == {course.dataset_id, new.dataset_id}
    taken = {(run.model, run.protocol) for run in runs if run.dataset_id == new.dataset_id}
    assert taken == {("logreg", "donor"), ("logreg", "random"), ("hgb", "random")}
    assert before & {run.run_id for run in runs if run.dataset_id == course.dataset_id}
    assert {path.name for path in (shipped / "datasets").iterdir()} == {
        course.dataset_id,
        new.dataset_id,
    }
    assert sorted(path.name for path in (shipped / "splits").iterdir()) == sorted(
        [
            f"{course.dataset_id}-donor-k2-s0-equal.parquet",
            f"{course.dataset_id}-donor-k2-s0-cap9.parquet",
            f"{new.dataset_id}-donor-k2-s0-equal.parquet",
        ]
    )


def test_nothing_is_taken_from_results_without_a_complete_series(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make", SHIPPED / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.setattr(make, "HERE", tmp_path / "shipped")
    (tmp_path / "results" / "runs").mkdir(parents=True)
    with pytest.raises(SystemExit, match="0 real datasets"):
        make.take(tmp_path / "results")
