"""Bundles are complete or absent, and say what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backend.errors import StoreError
from backend.store import bundle
from backend.store.bundle import (
    RunRecord,
    is_done,
    list_runs,
    predictions_frame,
    read_dataset,
    read_predictions,
    read_run,
    write_dataset,
    write_run,
)
from tests.backend.store import builders

SERIES = builders.series()
TABLE = builders.cells()


def frame_of(run: RunRecord, seed: int = 0) -> pd.DataFrame:
    return builders.predictions(TABLE, run, seed=seed)


def test_run_comes_back_as_written(tmp_path: Path) -> None:
    run = builders.record(SERIES, notes=("trained from scratch",), versions={"numpy": "2"})
    folder = write_run(
        tmp_path,
        run,
        frame_of(run),
        history=pd.DataFrame({"step": [1], "train_loss": [0.5]}),
        load_report={"n_loaded": 3},
        model_writer=lambda path: (path / "model.json").write_text("{}") and None,
        log="fitted",
    )
    assert folder == tmp_path / "runs" / run.run_id
    assert read_run(folder) == run
    back = read_predictions(folder)
    pd.testing.assert_frame_equal(
        back.drop(columns=["proba", "top5"]),
        frame_of(run).drop(columns=["proba", "top5"]),
        check_dtype=False,
    )
    proba = np.stack([np.asarray(row, dtype=np.float32) for row in back["proba"]])
    assert proba.shape == (len(TABLE), len(run.classes))
    assert (proba.argmax(axis=1) == [run.classes.index(p) for p in back["predicted"]]).mean() > 0.95
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.parquet",
        "load_report.json",
        "log.txt",
        "model",
        "predictions.parquet",
        "run.json",
    ]
    assert list_runs(tmp_path) == [folder]
    assert is_done(tmp_path, run.run_id)
    assert list_runs(tmp_path / "nothing") == []


def test_equal_predictions_are_equal_bytes(tmp_path: Path) -> None:
    run = builders.record(SERIES)
    files = [
        Path(write_run(tmp_path / name, run, frame_of(run))) / "predictions.parquet"
        for name in ("a", "b")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_done_is_never_overwritten_and_failed_is_replaced(tmp_path: Path) -> None:
    failed = builders.record(SERIES, status="failed", reason="diverged", error_kind="InputError")
    folder = write_run(tmp_path, failed, frame_of(failed), log="traceback")
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "run.json"]
    assert not is_done(tmp_path, failed.run_id)
    with pytest.raises(StoreError, match="diverged"):
        read_predictions(folder)

    done = builders.record(SERIES)
    write_run(tmp_path, done, frame_of(done, seed=1))
    first = (folder / "predictions.parquet").read_bytes()
    write_run(tmp_path, done, frame_of(done, seed=2))
    write_run(tmp_path, failed, None)
    assert (folder / "predictions.parquet").read_bytes() == first
    assert is_done(tmp_path, done.run_id)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [done.run_id]


def test_ties_go_to_the_first_class() -> None:
    frame = predictions_frame(
        ["a"], [None], np.array([[0.2, 0.4, 0.4]]), ("x", "y", "z"), 0, "test"
    )
    assert frame["predicted"].tolist() == ["y"]
    assert frame["label"].tolist() == [None]


def test_many_classes_keep_the_five_best() -> None:
    classes = [f"type {i}" for i in range(65)]
    proba = np.linspace(0, 1, 65)[None, :] / np.linspace(0, 1, 65).sum()
    frame = predictions_frame(["a"], ["type 3"], proba, classes, 0, "valid")
    assert frame["proba"].isna().all()
    assert [item["class_index"] for item in frame["top5"][0]] == [64, 63, 62, 61, 60]


def test_a_type_may_bear_any_name(tmp_path: Path) -> None:
    names = ("../../etc", "'; drop table runs; --", "Ünïcode \u202e\n", "nan")
    run = builders.record(SERIES, classes=names)
    ids = ["../a", "b\x00c", "NULL", "'"]
    frame = predictions_frame(ids, list(names), np.eye(4), names, 0, "test")
    back = read_predictions(write_run(tmp_path, run, frame))
    assert back["cell_id"].tolist() == ids
    assert back["predicted"].tolist() == list(names)


@pytest.mark.parametrize("bad", ["../../../tmp/x", "a" * 15, "A" * 16, "", "a" * 16 + "\n", 7])
def test_ids_cannot_leave_the_root(tmp_path: Path, bad: object) -> None:
    run = builders.record(SERIES)
    with pytest.raises(StoreError, match="is not an id"):
        dataclasses.replace(run, run_id=bad)
    with pytest.raises(StoreError, match="is not an id"):
        write_dataset(tmp_path, builders.info(dataset_id=bad), TABLE)
    with pytest.raises(StoreError, match="is not an id"):
        is_done(tmp_path, bad)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "train"}, "roles"),
        ({"predicted": "Martian"}, "outside `classes`"),
        ({"confidence": np.float32(1.5)}, "outside 0-1"),
        ({"confidence": np.float32(np.nan)}, "outside 0-1"),
        ({"cell_id": "same"}, "cells twice"),
        ({"cell_id": ""}, "empty cell ids"),
        ({"fold": np.int16(3)}, "other folds"),
    ],
)
def test_bad_predictions_leave_nothing(tmp_path: Path, change: dict, message: str) -> None:
    run = builders.record(SERIES)
    with pytest.raises(StoreError, match=message):
        write_run(tmp_path, run, frame_of(run).assign(**change))
    assert not list(tmp_path.iterdir())


def test_missing_parts_are_refused(tmp_path: Path) -> None:
    run = builders.record(SERIES)
    with pytest.raises(StoreError, match="has no predictions"):
        write_run(tmp_path, run, None)
    with pytest.raises(StoreError, match="lacks columns: confidence"):
        write_run(tmp_path, run, frame_of(run).drop(columns="confidence"))
    with pytest.raises(StoreError, match="not numbers"):
        predictions_frame(["a"], ["x"], np.array([[np.nan, 1]]), ("x", "y"), 0, "test")
    with pytest.raises(StoreError, match="1 × 2"):
        predictions_frame(["a"], ["x"], np.array([[0, 1]]), ("x",), 0, "test")
    final = builders.record(SERIES, fold="final")
    assert read_run(write_run(tmp_path, final, None)).fold == "final"


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    run = builders.record(SERIES)

    def writer(folder: Path) -> None:
        (folder / "half").write_text("x")
        msg = "disk full"
        raise OSError(msg)

    with pytest.raises(OSError, match="disk full"):
        write_run(tmp_path, run, frame_of(run), model_writer=writer)
    assert list_runs(tmp_path) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_unknown_versions_and_damage_are_refused(tmp_path: Path) -> None:
    run = builders.record(SERIES)
    folder = write_run(tmp_path, run, frame_of(run))
    head = folder / "run.json"
    values = json.loads(head.read_text())

    head.write_text(json.dumps(values | {"format_version": 99}))
    with pytest.raises(StoreError, match="format version 99; this Faultline reads 1"):
        read_run(folder)
    with pytest.raises(StoreError, match="format version 99"):
        write_run(tmp_path, run, frame_of(run))

    head.write_text(json.dumps(values | {"status": "running"}))
    with pytest.raises(StoreError, match="status 'running'"):
        read_run(folder)
    head.write_text(json.dumps({k: v for k, v in values.items() if k != "protocol"}))
    with pytest.raises(StoreError, match="protocol"):
        read_run(folder)
    head.write_text("{")
    with pytest.raises(StoreError, match="not JSON"):
        read_run(folder)
    assert not is_done(tmp_path, run.run_id)
    write_run(tmp_path, run, frame_of(run))
    assert read_run(folder) == run

    (folder / "predictions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match=r"`predictions.parquet` of .* cannot be read"):
        read_predictions(folder)
    other = folder.rename(folder.with_name("e" * 16))
    with pytest.raises(StoreError, match="names run"):
        read_run(other)
    with pytest.raises(StoreError, match="No bundle"):
        read_run(folder)


def test_dataset_comes_back_as_written(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, builders.info(), TABLE)
    values, back = read_dataset(folder)
    assert values == builders.info()
    pd.testing.assert_frame_equal(back, TABLE, check_dtype=False)
    write_dataset(tmp_path, builders.info(name="Another"), TABLE)
    assert read_dataset(folder)[0]["name"] == "Tiny cohort"


def test_dataset_words_are_checked(tmp_path: Path) -> None:
    for column, value in (("timepoint", "Remission"), ("genotype", "wt"), ("label_source", "me")):
        with pytest.raises(StoreError, match=f"unknown values of `{column}`: {value}"):
            write_dataset(tmp_path, builders.info(), TABLE.assign(**{column: value}))
    with pytest.raises(StoreError, match="`n_genes` of"):
        write_dataset(tmp_path, builders.info(), TABLE.assign(n_genes="many"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["memory"])
def test_bundles_lie_in_object_stores_too(kind: str, tmp_path: Path) -> None:
    root = f"{kind}://faultline-{tmp_path.name}"
    failed = builders.record(SERIES, status="failed", reason="diverged")
    folder = write_run(root, failed, None)
    assert folder == f"{root}/runs/{failed.run_id}"
    run = builders.record(SERIES)
    write_run(root, run, frame_of(run))
    assert read_run(folder) == run
    assert len(read_predictions(folder)) == len(TABLE)
    write_run(root, failed, None)
    assert is_done(root, run.run_id)
    assert list_runs(root) == [folder]
    values, back = read_dataset(write_dataset(root, builders.info(), TABLE))
    assert values["name"] == "Tiny cohort"
    assert len(back) == len(TABLE)


_WRITER = """
import sys
sys.path.insert(0, {project!r})
from tests.backend.store import builders
from backend.store.bundle import write_run
run = builders.record(builders.series(), status="{status}", reason="no")
frame = builders.predictions(builders.cells(2000), run)
def slow(folder):
    for i in range(20):
        (folder / str(i)).write_bytes(b"x" * 100_000)
print("ready", flush=True)
while True:
    write_run({root!r}, run, frame, model_writer=slow)
    if "{status}" == "done":
        break
"""


@pytest.mark.parametrize(
    "delay",
    [0.0, 0.03, *(pytest.param(d, marks=pytest.mark.slow) for d in (0.01, 0.02, 0.05, 0.1, 0.2))],
)
def test_a_killed_writer_leaves_nothing_half(tmp_path: Path, delay: float) -> None:
    import time

    project = str(Path(__file__).parents[3])
    write_run(tmp_path, builders.record(SERIES, status="failed", reason="first"), None)
    code = textwrap.dedent(_WRITER).format(project=project, root=str(tmp_path), status="done")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=project)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for folder in list_runs(tmp_path):
        if read_run(folder).status == "done":
            assert len(read_predictions(folder)) == 2000
            assert len(list((folder / "model").iterdir())) == 20
    run = builders.record(SERIES)
    write_run(tmp_path, run, frame_of(run))
    assert is_done(tmp_path, run.run_id)


def test_many_writers_leave_one_whole_bundle(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    run = builders.record(SERIES)
    write_run(tmp_path, builders.record(SERIES, status="failed", reason="first"), None)
    frames = [frame_of(run, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda frame: write_run(tmp_path, run, frame), frames))
    found = read_predictions(tmp_path / "runs" / run.run_id)["predicted"].tolist()
    assert found in [frame["predicted"].tolist() for frame in frames]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.run_id]


def test_old_leftovers_are_swept(tmp_path: Path) -> None:
    left = tmp_path / "runs" / ".tmp-dead"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    fresh = tmp_path / "runs" / ".tmp-living"
    fresh.mkdir()
    run = builders.record(SERIES)
    write_run(tmp_path, run, frame_of(run))
    assert not left.exists()
    assert fresh.exists()


def test_a_dataset_is_removed_with_its_runs(tmp_path):
    for run_id, dataset_id in (("a" * 16, "1" * 16), ("b" * 16, "1" * 16), ("c" * 16, "2" * 16)):
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"dataset_id": dataset_id}))
        (tmp_path / "datasets" / dataset_id).mkdir(parents=True, exist_ok=True)
    assert bundle.delete_dataset(tmp_path, "1" * 16) == 2
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["c" * 16]
    for root, dataset_id in (
        (tmp_path, "1" * 16),
        (tmp_path / "x", "2" * 16),
        (tmp_path, "../datasets"),
    ):
        with pytest.raises(StoreError, match="Results not found"):
            bundle.delete_dataset(root, dataset_id)
    assert (tmp_path / "datasets" / ("2" * 16)).is_dir()


def test_a_dataset_goes_with_its_last_run(tmp_path):
    for run_id in ("a" * 16, "b" * 16):
        folder = tmp_path / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"dataset_id": "1" * 16}))
    (tmp_path / "datasets" / ("1" * 16)).mkdir(parents=True)
    bundle.delete_run(tmp_path, "a" * 16)
    assert (tmp_path / "datasets" / ("1" * 16)).is_dir()
    bundle.delete_run(tmp_path, "b" * 16)
    assert list((tmp_path / "datasets").iterdir()) == list((tmp_path / "runs").iterdir()) == []
    with pytest.raises(StoreError, match="Run not found"):
        bundle.delete_run(tmp_path, "b" * 16)
