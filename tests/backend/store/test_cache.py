"""The store follows its bundles, survives damage and serves threads and processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from backend.errors import StoreError
from backend.store import cache
from backend.store.bundle import (
    list_runs,
    predictions_frame,
    read_predictions,
    write_dataset,
    write_run,
)
from backend.store.cache import Store, default_roots
from backend.store.frames import PREDICTIONS_SCHEMA, write_parquet
from backend.store.per_cell import probabilities
from tests.backend.store import builders

SERIES = builders.series()
ASKED = {
    "dataset_id": builders.DATASET,
    "label_level": "fine",
    "series_ids": [SERIES.series_id],
}
PROJECT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    builders.fill_root(folder, SERIES)
    return folder


def n_rows(store: Store) -> dict[str, int]:
    tables = (
        "datasets",
        "cells",
        "slices",
        "runs",
        "prediction_rows",
        "confusion_rows",
        "tally_rows",
    )
    return {name: int(store.sql(f"select count(*) as n from {name}")["n"][0]) for name in tables}


def test_migrations_run_from_zero_in_order_and_once(tmp_path: Path) -> None:
    connection = duckdb.connect(":memory:")
    n = cache.migrate(connection)
    assert n == len(list((PROJECT / "backend" / "store" / "schema").glob("*.sql")))
    rows = connection.execute("select version, length(sha256) from schema_migrations").fetchall()
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {row[1] for row in rows} == {64}
    assert cache.migrate(connection) == 0
    connection.execute("update schema_migrations set sha256 = 'x' where version like '0001%'")
    with pytest.raises(StoreError, match="made by another Faultline"):
        cache.migrate(connection)
    connection.close()


def test_a_new_migration_keeps_what_was_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "store.duckdb"
    with Store(file, [("public", root)]) as store:
        store.sync()
        before = n_rows(store)
    more = [*cache._migrations(), ("0099_more", "create table more (x integer);")]
    monkeypatch.setattr(cache, "_migrations", lambda: more)
    with Store(file, [("public", root)]) as store:
        assert n_rows(store) == before
        assert store.sql("select count(*) as n from more")["n"].tolist() == [0]
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="made by another Faultline"):
        store = Store(file, [("public", root)])
    assert store.sync().n_added == 3
    store.close()


def test_sync_adds_changes_and_drops(root: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store.duckdb", [("public", root)]) as store:
        assert store.version == ""
        first = store.sync()
        assert (first.n_datasets, first.n_runs, first.n_added) == (1, 2, 3)
        assert store.version == first.version
        full = n_rows(store)
        again = store.sync()
        assert (again.n_added, again.n_changed, again.n_dropped) == (0, 0, 0)
        assert again.version == first.version

        run = builders.record(SERIES, 0)
        shutil.rmtree(root / "runs" / run.run_id)
        gone = store.sync()
        assert (gone.n_runs, gone.n_dropped) == (1, 1)
        assert gone.version != first.version
        assert store.query("series")["n_folds_done"].tolist() == [1]

        write_run(root, builders.record(SERIES, 0, status="failed", reason="no"), None)
        assert store.sync().n_failed == 1
        frame = builders.predictions(builders.cells(), run)
        write_run(root, run, frame[np.arange(60) % 2 == 0])
        changed = store.sync()
        assert (changed.n_changed, changed.n_failed) == (1, 0)

        shutil.rmtree(root / "runs")
        store.sync()
        assert n_rows(store) == full | dict.fromkeys(full, 0) | {
            name: full[name] for name in ("datasets", "cells", "slices")
        }
        shutil.rmtree(root / "datasets")
        store.sync()
        assert set(n_rows(store).values()) == {0}


def test_version_is_the_same_in_every_process(root: Path) -> None:
    versions = set()
    for _ in range(2):
        with Store(":memory:", [("public", root)]) as store:
            versions.add(store.sync().version)
    assert len(versions) == 1


def test_a_run_waits_for_its_dataset(tmp_path: Path) -> None:
    builders.fill_root(tmp_path, SERIES, dataset=False)
    with Store(":memory:", [("public", tmp_path)]) as store:
        report = store.sync()
        assert len(report.problems) == 2
        assert "its dataset dddddddddddddddd is not there" in report.problems[0]
        assert store.query("tallies", **ASKED).empty
        assert store.query("series")["n_folds_done"].tolist() == [0]
        write_dataset(tmp_path, builders.info(), builders.cells())
        assert store.sync().problems == ()
        assert len(store.query("tallies", **ASKED))
        shutil.rmtree(tmp_path / "datasets")
        assert len(store.sync().problems) == 2
        assert store.query("tallies", **ASKED).empty
        assert n_rows(store)["prediction_rows"] == 0


def damage_text(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def rewrite(path: Path, change: dict) -> None:
    frame = pd.read_parquet(path)
    frame.assign(**change).to_parquet(path)


@pytest.mark.parametrize(
    ("file", "damage", "problem"),
    [
        ("predictions.parquet", lambda path: path.write_bytes(b"x" * 50), "cannot be read"),
        ("predictions.parquet", damage_text, "cannot be read"),
        ("predictions.parquet", Path.unlink, "cannot be read"),
        ("run.json", lambda path: path.write_text("{}"), "format version None"),
        ("run.json", lambda path: path.write_text("[]"), "not JSON|list where an object"),
        (
            "run.json",
            lambda path: path.write_text(path.read_text().replace('"n_test": 0', '"n_test": "x"')),
            "wrong type",
        ),
    ],
)
def test_a_damaged_bundle_is_named_and_the_rest_is_read(
    root: Path, file: str, damage, problem: str
) -> None:
    for seed in range(1, 4):
        builders.fill_root(root, builders.series(seed=seed), dataset=False)
    damage(root / "runs" / builders.record(SERIES, 1).run_id / file)
    with Store(":memory:", [("public", root)]) as store:
        report = store.sync()
        assert len(report.problems) == 1
        assert pd.Series(report.problems).str.contains(problem).all()
        series = store.query("series").set_index("seed")
        assert series["n_folds_done"].to_dict() == {0: 1, 1: 2, 2: 2, 3: 2}


def test_a_flipped_byte_in_the_data_is_found(root: Path) -> None:
    path = root / "runs" / builders.record(SERIES, 1).run_id / "predictions.parquet"
    content = bytearray(path.read_bytes())
    content[20:200] = bytes(180)
    path.write_bytes(content)
    with Store(":memory:", [("public", root)]) as store:
        report = store.sync()
        assert len(report.problems) == 1
        assert store.query("series")["n_folds_done"].tolist() == [1]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"cell_id": ["stranger"]}, "1 of 1 predicted cells are not in its dataset"),
        ({"cell_id": ["cell0", "cell0"]}, "a cell is predicted twice"),
        ({"role": ["train"]}, "a role is neither valid nor test"),
        ({"predicted": [None]}, "a cell has no prediction"),
        ({"confidence": [np.float32(np.nan)]}, "a confidence is not a number from 0 to 1"),
    ],
)
def test_hostile_predictions_are_not_scored(root: Path, rows: dict, problem: str) -> None:
    """A file that did not come from `write_run` cannot make wrong scores."""
    run = builders.record(builders.series(seed=7), 0)
    n = len(next(iter(rows.values())))
    proba = np.full((n, 5), 0.2)
    good = predictions_frame(
        [f"cell{i}" for i in range(n)], ["T"] * n, proba, run.classes, 0, "test"
    )
    folder = write_run(root, run, good)
    table = pa.Table.from_pandas(good.assign(**rows), preserve_index=False)
    write_parquet(folder / "predictions.parquet", table.cast(PREDICTIONS_SCHEMA))
    builders.unseal(folder)
    with Store(":memory:", [("public", root)]) as store:
        report = store.sync()
        assert [text.split(": ", 1)[1] for text in report.problems] == [problem]
        assert store.query("tallies", **(ASKED | {"series_ids": [run.series_id]})).empty
        assert len(store.query("tallies", **ASKED))


def test_damaged_datasets_are_named(root: Path) -> None:
    folder = root / "datasets" / builders.DATASET
    frame = pd.read_parquet(folder / "cells.parquet")
    write_dataset(root, builders.info("e" * 16, name="Second"), builders.cells())
    (folder / "cells.parquet").write_bytes(b"")
    with Store(":memory:", [("public", root)]) as store:
        report = store.sync()
        assert report.n_datasets == 1
        assert any("`cells.parquet` cannot be read" in text for text in report.problems)
        frame.assign(cell_id="same").astype({"day": "int32"}).to_parquet(folder / "cells.parquet")
        assert any("not unique" in text or "not" in text for text in store.sync().problems)


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    names = ("'); drop table runs; --", "../../etc/passwd", "$owner", "x\x00y", "‮evil")
    cells = builders.cells(5).assign(
        cell_id=[f"{name}-{i}" for i, name in enumerate(names)],
        cell_type_fine=names,
        cell_type_lineage=names,
        donor=names,
        sample=names,
    )
    write_dataset(tmp_path, builders.info(name=names[0]), cells)
    run = builders.record(builders.series(), 0, classes=names, display_name=names[1])
    frame = predictions_frame(cells["cell_id"], names, np.eye(5), names, 0, "test")
    write_run(tmp_path, run, frame)
    (tmp_path / "runs" / "..evil").mkdir()
    (tmp_path / "runs" / ("g" * 16)).mkdir()
    with Store(":memory:", [("public", tmp_path)]) as store:
        assert store.sync().problems == ()
        rows = store.query("tallies", **ASKED)
        assert set(rows["cell_type"]) == set(names)
        assert (rows["tp"] == 1).all()
        with pytest.raises(StoreError, match="is not an id"):
            probabilities(store, "../../../etc", ["a"])


def test_folders_may_bear_any_name(tmp_path: Path) -> None:
    root = tmp_path / "it's [odd] *{a,b} $x=1"
    builders.fill_root(root, SERIES)
    with Store(root / "store.duckdb", [("public", root)]) as store:
        assert store.path == root / "store.duckdb"
        assert store.sync().problems == ()
        assert len(store.query("tallies", **ASKED))


def test_a_file_that_duckdb_cannot_open_gives_a_store_in_memory(tmp_path: Path) -> None:
    # DuckDB takes what follows a question mark for options and fails.
    root = tmp_path / "why?" / "home"
    builders.fill_root(root, SERIES)
    with (
        pytest.warns(UserWarning, match="made again"),
        pytest.warns(UserWarning, match="working in memory"),
    ):
        store = Store(root / "store.duckdb", [("public", root)])
    with store:
        assert store.path is None
        assert store.sync().problems == ()
        assert len(store.query("tallies", **ASKED))


def test_many_threads_read_the_right_rows(root: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store.duckdb", [("public", root)], threads=2) as store:
        store.sync()
        tallies = store.query("tallies", **ASKED)
        statement = "select cell_index, cell_id from cells where cell_index % 8 = $thread"
        expected = [store.sql(statement, thread=thread) for thread in range(8)]
        wrong: list[int] = []

        def read(thread: int) -> None:
            for i in range(200):
                at = (thread + i) % 8
                if not store.sql(statement, thread=at).equals(expected[at]):
                    wrong.append(at)
            if not store.query("tallies", **ASKED).equals(tallies):
                wrong.append(thread)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(8)))
        assert wrong == []


def test_readers_never_see_a_rebuild(root: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store.duckdb", [("public", root)], threads=1) as store:
        store.sync()
        expected = store.query("tallies", **ASKED)
        stop = threading.Event()
        wrong: list[int] = []

        def read() -> None:
            while not stop.is_set():
                if not store.query("tallies", **ASKED).equals(expected):
                    wrong.append(1)

        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(read)
            for _ in range(3):
                store.rebuild()
            stop.set()
        assert wrong == []


@pytest.mark.parametrize("content", [b"", b"not a database" * 500, b"\x00" * 20_000])
def test_a_damaged_store_is_made_again(root: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "store.duckdb"
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="cannot be used and is made again"):
        store = Store(file, [("public", root)])
    store.sync()
    assert len(store.query("tallies", **ASKED))
    store.close()


def test_damage_inside_the_file_is_repaired_while_reading(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.duckdb"
    with Store(file, [("public", root)]) as store:
        store.sync()
        expected = store.query("tallies", **ASKED)
    content = bytearray(file.read_bytes())
    # Keep the headers, so that only a read of the tables can notice.
    content[12_288 + 8 :: 4096] = bytes(len(content[12_288 + 8 :: 4096]))
    file.write_bytes(content)

    def open_and_ask() -> pd.DataFrame:
        with Store(file, [("public", root)]) as store:
            store.sync()
            return store.query("tallies", **ASKED)

    with pytest.warns(UserWarning, match="made again"):
        found = open_and_ask()
    pd.testing.assert_frame_equal(found, expected)


def test_a_second_process_takes_a_file_of_its_own(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.duckdb"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from backend.store.cache import Store\n"
        "with Store(sys.argv[2], [('public', sys.argv[3])]) as store:\n"
        "    print(store.path.name, store.sync().n_added, len(store.query('runs')))\n"
    )
    command = [sys.executable, "-c", code, str(PROJECT), str(file), str(root)]
    with Store(file, [("public", root)]) as store:
        store.sync()
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert out.split() == ["store-1.duckdb", "3", "2"]
        assert len(store.query("runs")) == 2
    with Store(file, [("public", root)]) as store:
        assert (store.path, store.sync().n_added) == (file, 0)
    with Store(file, [("public", root)]), Store(file, [("public", root)]) as second:
        assert second.path is not None
        assert (second.path.name, second.sync().n_added) == ("store-1.duckdb", 0)


def test_a_file_that_another_program_has_open_is_left_alone(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "store.duckdb"
    with Store(file, [("public", root)]) as store:
        store.sync()
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(file)], **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.warns(UserWarning, match="another program has it open"):
            store = Store(file, [("public", root)])
        with store:
            assert store.path is None
            assert store.sync().n_added == 3
        other.communicate(b"\n")
    with Store(file, [("public", root)]) as store:
        assert (store.path, store.sync().n_added) == (file, 0)


def test_a_folder_that_cannot_be_written_gives_a_store_in_memory(
    root: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with Store(blocked / "store.duckdb", [("public", root)]) as store:
        assert store.path is None
        store.sync()
        assert len(store.query("tallies", **ASKED))


def test_a_bundle_in_two_roots_counts_once(tmp_path: Path) -> None:
    for name in ("public", "home", "alice"):
        builders.fill_root(tmp_path / name, SERIES)
    with Store(":memory:", [("public", tmp_path / "public")]) as store:
        store.sync()
        expected = store.query("tallies", **ASKED)
    roots = [
        ("public", tmp_path / "public"),
        ("public", tmp_path / "home"),
        ("alice", tmp_path / "alice"),
    ]
    with Store(":memory:", roots) as store:
        store.sync()
        for owner in ("alice", "local"):
            pd.testing.assert_frame_equal(store.query("tallies", owner=owner, **ASKED), expected)
            assert len(store.query("datasets", owner=owner)) == 1
            assert len(store.query("runs", owner=owner)) == 2
        for name in ("public", "home"):
            shutil.rmtree(tmp_path / name)
        store.sync()
        assert store.query("runs").empty
        pd.testing.assert_frame_equal(store.query("tallies", owner="alice", **ASKED), expected)


def test_a_private_run_completes_a_public_series(tmp_path: Path) -> None:
    builders.fill_root(tmp_path / "public", SERIES)
    with Store(":memory:", [("public", tmp_path / "public")]) as store:
        store.sync()
        expected = store.query("tallies", **ASKED)
    run = builders.record(SERIES, 1).run_id
    folder = tmp_path / "public" / "runs" / run
    private = tmp_path / "alice" / "runs"
    private.mkdir(parents=True)
    folder.rename(private / run)
    write_run(tmp_path / "public", builders.record(SERIES, 1, status="failed", reason="no"), None)
    roots = [("public", tmp_path / "public"), ("alice", tmp_path / "alice")]
    with Store(":memory:", roots) as store:
        store.sync()
        mine, theirs = store.query("series", owner="alice"), store.query("series", owner="bob")
        assert (mine["n_folds_done"][0], mine["n_folds_failed"][0]) == (2, 0)
        assert (theirs["n_folds_done"][0], theirs["n_folds_failed"][0]) == (1, 1)
        pd.testing.assert_frame_equal(store.query("tallies", owner="alice", **ASKED), expected)


def test_default_roots_name_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(tmp_path / "shipped"))
    assert default_roots() == [("public", tmp_path / "shipped"), ("public", tmp_path / "home")]
    for name in ("local", "public", "a b", "x" * 65):
        (tmp_path / "home" / "users" / name).mkdir(parents=True)
    assert default_roots()[2:] == [("local", tmp_path / "home" / "users" / "local")]
    builders.fill_root(tmp_path / "shipped", SERIES)
    builders.fill_root(
        tmp_path / "home" / "users" / "local", builders.series(seed=1), dataset=False
    )
    with Store.open_default() as store:
        assert store.path == tmp_path / "home" / "store.duckdb"
        store.sync()
        assert store.query("series")["n_folds_done"].tolist() == [2, 2]
        assert store.query("series", owner="eve")["n_folds_done"].tolist() == [2]
        (tmp_path / "home" / "users" / "eve").mkdir()
        builders.fill_root(
            tmp_path / "home" / "users" / "eve", builders.series(seed=2), dataset=False
        )
        store.sync()
        assert len(store.query("series", owner="eve")) == 2


def test_object_stores_are_roots_too(tmp_path: Path) -> None:
    url = f"memory://store-{tmp_path.name}"
    builders.fill_root(url, SERIES)
    builders.fill_root(tmp_path / "local", SERIES)
    with Store(":memory:", [("public", tmp_path / "local")]) as store:
        store.sync()
        expected = store.query("tallies", **ASKED)
    with Store(":memory:", [("public", url)]) as store:
        assert store.sync().problems == ()
        pd.testing.assert_frame_equal(store.query("tallies", **ASKED), expected)
        run_id = builders.record(SERIES, 0).run_id
        assert probabilities(store, run_id, ["cell0"]).notna().all(axis=None)


def test_probabilities_are_read_on_demand(root: Path) -> None:
    folder = list_runs(root)[0]
    frame = read_predictions(folder).set_index("cell_id")
    ids = [frame.index[3], "nobody", frame.index[0]]
    with Store(":memory:", [("public", root)]) as store:
        store.sync()
        table = probabilities(store, folder.name, ids)
        assert table.index.tolist() == ids
        assert table.columns.tolist() == list(builders.FINE)
        assert table.iloc[0].tolist() == pytest.approx(np.asarray(frame["proba"].iloc[3], float))
        assert table.iloc[1].isna().all()
        with pytest.raises(StoreError, match="No scored run"):
            probabilities(store, "0" * 16, ids)
        shutil.rmtree(folder)
        with pytest.raises(StoreError, match="cannot be read"):
            probabilities(store, folder.name, ids)
    with Store(":memory:", [("alice", root)]) as store:
        store.sync()
        with pytest.raises(StoreError, match="No scored run"):
            probabilities(store, list_runs(root)[0].name, ids)


def test_above_64_classes_the_five_best_are_used(tmp_path: Path) -> None:
    classes = (*(f"type {i:02d}" for i in range(69)), "T-like")
    cells = builders.cells(3).assign(cell_type_fine="T-like", cell_type_lineage="T")
    proba = np.full((3, 70), 0.001)
    proba[:, 69] = 1 - 0.069
    write_dataset(tmp_path, builders.info(), cells)
    run = builders.record(SERIES, 0, classes=classes)
    frame = predictions_frame(cells["cell_id"], ["T-like"] * 3, proba, classes, 0, "test")
    write_run(tmp_path, run, frame)
    with Store(":memory:", [("public", tmp_path)]) as store:
        assert store.sync().problems == ()
        rows = store.query("confusion", **(ASKED | {"label_level": "lineage"}))
        assert rows[["label", "predicted", "n"]].to_numpy().tolist() == [["T", "T", 3]]
        table = probabilities(store, run.run_id, ["cell0"])
        assert (table.loc["cell0"] > 0).sum() == 5


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    from backend.cli import main

    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(tmp_path / "shipped"))
    builders.fill_root(tmp_path / "shipped", SERIES)
    assert main(["store", "sync"]) == 0
    assert "1 datasets, 2 runs (0 failed); 3 bundles added" in capsys.readouterr().out
    assert main(["store", "sync", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_added"] == 0
    assert main(["store", "info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["n_series"], info["n_runs"], info["file"]) == (
        1,
        2,
        str(tmp_path / "home" / "store.duckdb"),
    )
    folder = list_runs(tmp_path / "shipped")[0]
    (folder / "predictions.parquet").write_bytes(b"")
    assert main(["store", "rebuild"]) == 0
    assert "not used: runs/" in capsys.readouterr().out
    assert main(["store", "info"]) == 0
    assert "not used: runs/" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "home").iterdir())
    assert names == ["store.duckdb", "store.duckdb.lock"]
