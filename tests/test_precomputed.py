"""What is shipped is what the manifest says, and nothing that may not be shipped."""

import hashlib
import json

import pandas as pd
import pytest

from backend.config import project_root
from backend.store.bundle import list_runs, read_predictions, read_run
from backend.store.index import INDEX, index_of

SHIPPED = project_root() / "precomputed"
MAY_BE_SHIPPED = {
    "cell_id", "cell_type_fine", "cell_type_lineage", "timepoint", "donor", "study", "sample",
    "day", "label_source", "genotype", "is_malignant", "n_counts", "n_genes", "umap_x", "umap_y",
    "sort",
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
