"""What is shipped is what the manifest says, and nothing that may not be shipped."""

import hashlib
import json

import pandas as pd
import pytest

from backend.config import project_root
from backend.store.bundle import list_runs, read_predictions, read_run

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


def test_all_baselines_have_all_folds_under_each_protocol(runs):
    frame = pd.DataFrame([(r.dataset_id, r.model, r.protocol, r.label_level, r.fold) for r in runs])
    folds = frame.groupby([0, 1, 2, 3])[4].nunique()
    assert all(run.status == "done" for run in runs)
    assert set(frame[1]) >= {"majority", "logreg", "celltypist", "hgb"}
    by_dataset = frame.groupby(0)[2].agg(set)
    assert all(protocols >= {"random", "donor"} for protocols in by_dataset)
    assert (folds.drop("study", level=2, errors="ignore") == 5).all()


def test_random_and_donor_train_on_equally_many_cells(runs):
    frame = pd.DataFrame(
        [(r.dataset_id, r.model, r.label_level, r.fold, r.protocol, r.n_train) for r in runs],
        columns=["dataset", "model", "level", "fold", "protocol", "n_train"],
    )
    wide = frame[frame["protocol"] != "study"].pivot_table(
        index=["dataset", "model", "level", "fold"], columns="protocol", values="n_train"
    )
    assert len(wide) >= 4 * 5 * 3
    assert (wide["random"] == wide["donor"]).all()


def test_only_what_may_be_shipped_is_shipped():
    for path in SHIPPED.glob("datasets/*/cells.parquet"):
        assert set(pd.read_parquet(path).columns) <= MAY_BE_SHIPPED
    assert {path.suffix for path in SHIPPED.rglob("*") if path.is_file()} <= {
        ".json", ".parquet", ".txt", ".py", ".npz", ".safetensors", ".bin", ".pyc",
    }  # fmt: skip


def test_each_cell_is_tested_once_in_a_series(runs):
    by_series: dict[str, list] = {}
    for run, folder in zip(runs, list_runs(SHIPPED), strict=True):
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
