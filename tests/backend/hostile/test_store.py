"""One bad bundle costs that bundle; a damaged store is made again, or works in memory."""

from __future__ import annotations

import json
import random
import warnings

import pytest

from backend.cli import main
from backend.store.bundle import write_dataset, write_run
from backend.store.cache import Store
from backend.store.seals import seal, verify
from tests.backend.store import builders

SERIES = builders.series()


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "bundles"
    write_dataset(root, builders.info(), builders.cells())
    for fold in range(3):
        run = builders.record(SERIES, fold)
        write_run(root, run, builders.predictions(builders.cells(), run))
    return root


def opened(root, path=":memory:"):
    return Store(path, [("public", root)], threads=1)


HEADS = {
    "deep": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep object": '{"a":' * 100_000,
    "huge number": '{"fold": ' + "9" * 10_000 + "}",
    "number": "1",
    "null": "null",
    "empty": "",
    "NUL": "\0" * 100,
    "not UTF-8": b"\xff\xfe{",
}
VALUES = {
    "classes a number": {"classes": 5},
    "classes of lists": {"classes": [[1], [2]]},
    "classes an object": {"classes": {"a": 1}},
    "notes a number": {"notes": 1},
    "notes of numbers": {"notes": [1, 2]},
    "fold a text": {"fold": "x"},
    "fold huge": {"fold": 10**30},
    "seed huge": {"seed": 10**30},
    "seed a list": {"seed": [1]},
    "name a surrogate": {"display_name": "\ud800"},
    "settings a list": {"settings": [[]]},
    "files a list": {"files": ["a"]},
    "files of numbers": {"files": {"predictions.parquet": 3}},
    "wall a text": {"wall_seconds": "long"},
    "model null": {"model": None},
    "dataset a list": {"dataset_id": ["x"]},
}


def test_a_bad_run_costs_that_run(root):
    harmed = {}
    for seed, name in enumerate([*HEADS, *VALUES], start=1):
        run = builders.record(builders.series(seed=seed))
        head = write_run(root, run, builders.predictions(builders.cells(), run)) / "run.json"
        harmed[run.run_id] = name
        if name in HEADS:
            content = HEADS[name]
            head.write_bytes(content if isinstance(content, bytes) else content.encode())
        else:
            head.write_text(json.dumps(json.loads(head.read_text()) | VALUES[name]))
    with opened(root) as store:
        for report in (store.sync(), store.rebuild()):
            assert report.n_datasets == 1
            assert report.n_runs >= 3
            told = {key: [p for p in report.problems if key in p] for key in harmed}
            assert [harmed[key] for key in harmed if len(told[key]) != 1] == []
            assert len(report.problems) == len(harmed)
            assert all(len(problem) < 500 for problem in report.problems)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "\ud800"}, {"name": 5}, {"simulated": "yes"}, {"citation": [1]}, {"parent": {}},
        {"files": 3}, {"dataset_id": 1}, {"source": "\ud800"},
    ],
)  # fmt: skip
def test_one_bad_dataset_costs_that_dataset(root, change):
    write_dataset(root, builders.info("e" * 16, name="Second"), builders.cells())
    head = root / "datasets" / ("e" * 16) / "dataset.json"
    head.write_text(json.dumps(json.loads(head.read_text()) | change))
    with opened(root) as store:
        report = store.sync()
        assert report.n_runs == 3
        assert len(report.problems) <= 1
        assert report.n_datasets == 2 - len(report.problems)


@pytest.mark.parametrize("n", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_a_file_is_noticed(root, n):
    rng = random.Random(0)
    folder = root / "runs" / builders.record(SERIES, 1).run_id
    for path in (
        folder / "predictions.parquet",
        root / "datasets" / builders.DATASET / "cells.parquet",
    ):
        whole = path.read_bytes()
        for _ in range(n):
            flipped = bytearray(whole)
            flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            with opened(root) as store:
                assert store.sync().problems
        path.write_bytes(whole)
    with opened(root) as store:
        assert not store.sync().problems


def test_verify_names_what_is_not_as_it_was_written(root, capsys):
    assert main(["store", "verify", str(root)]) == 0
    assert "4 of 4 bundles" in capsys.readouterr().out
    one, two, three = sorted((root / "runs").iterdir())
    (one / "log.txt").write_text("another")
    (two / "extra.txt").write_text("x")
    (three / "predictions.parquet").unlink()
    assert main(["store", "verify", "--json", str(root)]) == 1
    wrong = json.loads(capsys.readouterr().out)["wrong"]
    assert [problems for _, problems in sorted(wrong.items())] == [
        ["`log.txt` has changed"], ["`extra.txt` is not listed"], ["`predictions.parquet` is missing"],
    ]  # fmt: skip
    for number in range(20):
        (two / f"extra{number}.txt").write_text("x")
    assert main(["store", "verify", str(root)]) == 1
    assert "is not listed; 16 more" in capsys.readouterr().out
    assert main(["store", "verify", str(root / "none")]) == 2


def test_seal_lists_the_files_of_old_bundles(root):
    folder = next((root / "runs").iterdir())
    before = json.loads((folder / "run.json").read_text())
    builders.unseal(folder)
    assert "lists no sha256" in verify(root)[f"runs/{folder.name}"][0]
    assert seal(root) == 1
    assert json.loads((folder / "run.json").read_text()) == before
    assert seal(root) == 0
    assert not any(verify(root).values())


@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 12))]
)
def test_flipped_bytes_of_a_store_never_end_in_a_traceback(root, tmp_path, seed):
    path = tmp_path / "store.duckdb"
    with opened(root, path) as store:
        store.sync()
        good = store.info()
    rng = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 8, 64, 512])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with opened(root, path) as store:
            store.sync()
            for _ in range(2):
                assert len(store.query("runs", owner="local"))
            now = store.info()
            assert (now["n_runs"], now["n_predictions"]) == (good["n_runs"], good["n_predictions"])


def test_a_store_that_stays_damaged_works_in_memory_and_says_so(root, tmp_path, monkeypatch):
    import duckdb

    path = tmp_path / "store.duckdb"
    with opened(root, path) as store:
        store.sync()
        execute = store._cursor

        class Broken:
            def __init__(self, cursor):
                self.cursor = cursor

            def execute(self, *given):
                if store.path is not None:
                    msg = "no such column"
                    raise duckdb.BinderException(msg)
                return self.cursor.execute(*given)

        from contextlib import contextmanager

        @contextmanager
        def cursor():
            with execute() as real:
                yield Broken(real)

        monkeypatch.setattr(store, "_cursor", cursor)
        monkeypatch.setattr(store, "_sync", lambda progress: "synced")
        with pytest.warns(UserWarning, match=r"made again|in memory"):
            assert store.query("runs", owner="local").empty
        assert store.path is None
        assert "working in memory" in store.notice
