"""Nearest cells: found, kept beside a dataset's cells, and read back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from backend.cli import main
from backend.data import cells_table, describe, load
from backend.data.cell_map import nearest_cells
from backend.errors import StoreError
from backend.store.bundle import write_dataset
from backend.store.cache import Store
from backend.store.neighbours import NEIGHBOURS_FILE, add_neighbours
from backend.store.per_cell import neighbours_of
from tests.backend.store import builders


def _opened(root, owner="public"):
    store = Store(":memory:", [(owner, root)], threads=1)
    store.sync()
    return store


def test_bundle_is_valid_with_and_without_neighbours(tmp_path):
    cells = builders.cells()
    near = nearest_cells(np.random.default_rng(2).normal(size=(len(cells), 3)))
    write_dataset(tmp_path / "with", builders.info(), cells, neighbours=near)
    write_dataset(tmp_path / "without", builders.info(), cells)
    with _opened(tmp_path / "with") as store:
        np.testing.assert_array_equal(neighbours_of(store, builders.DATASET), near)
        assert neighbours_of(store, "0" * 16) is None
    with _opened(tmp_path / "without") as store:
        assert store.query("datasets")["n_cells"].tolist() == [len(cells)]
        assert neighbours_of(store, builders.DATASET) is None


def test_stranger_gets_no_neighbours(tmp_path):
    cells = builders.cells()
    write_dataset(tmp_path, builders.info(), cells, neighbours=np.zeros((len(cells), 2), int))
    with _opened(tmp_path, "alice") as store:
        assert neighbours_of(store, builders.DATASET, owner="alice") is not None
        assert neighbours_of(store, builders.DATASET, owner="bob") is None


@pytest.mark.parametrize("root", ["local", "memory://neighbours"])
def test_neighbours_are_added_and_replaced(tmp_path, root):
    where = tmp_path if root == "local" else root
    cells = builders.cells()
    write_dataset(where, builders.info(), cells)
    for k in (3, 5):
        near = nearest_cells(np.random.default_rng(k).normal(size=(len(cells), 3)), k=k)
        add_neighbours(where, builders.DATASET, cells["cell_id"].to_numpy(), near)
        with _opened(where) as store:
            np.testing.assert_array_equal(neighbours_of(store, builders.DATASET), near)
    if root == "local":
        names = {path.name for path in (tmp_path / "datasets" / builders.DATASET).iterdir()}
        assert names == {"dataset.json", "cells.parquet", NEIGHBOURS_FILE}


def test_neighbours_of_other_cells_are_refused(tmp_path):
    cells = builders.cells()
    n = len(cells)
    write_dataset(tmp_path, builders.info(), cells)
    ids = cells["cell_id"].to_numpy()
    for given, near, message in (
        (ids[::-1], np.zeros((n, 2), int), "another order"),
        (ids, np.zeros((n - 1, 2), int), f"{n - 1} × 2"),
        (ids, np.zeros((n, 2)), "float64"),
        (ids, np.full((n, 2), n), f"to {n}"),
        (ids, np.full((n, 2), -2), "from -2"),
    ):
        with pytest.raises(StoreError, match=message):
            add_neighbours(tmp_path, builders.DATASET, given, near)
    with pytest.raises(StoreError, match="There is no dataset"):
        add_neighbours(tmp_path, "0" * 16, ids, np.zeros((n, 2), int))
    with pytest.raises(StoreError, match="float64"):
        write_dataset(tmp_path / "new", builders.info(), cells, neighbours=np.zeros((n, 2)))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 nonsense PAR1"])
def test_damaged_neighbours_are_named(tmp_path, content):
    cells = builders.cells()
    folder = write_dataset(tmp_path, builders.info(), cells)
    (folder / NEIGHBOURS_FILE).write_bytes(content)
    with _opened(tmp_path) as store, pytest.raises(StoreError, match="cannot be read"):
        neighbours_of(store, builders.DATASET)


def test_neighbours_for_another_number_of_cells_are_named(tmp_path):
    cells = builders.cells()
    folder = write_dataset(tmp_path / "a", builders.info(), cells)
    few = cells.iloc[:-1]
    near = np.zeros((len(few), 2), int)
    other = write_dataset(tmp_path / "b", builders.info(), few, neighbours=near)
    (folder / NEIGHBOURS_FILE).write_bytes((other / NEIGHBOURS_FILE).read_bytes())
    with _opened(tmp_path / "a") as store, pytest.raises(StoreError, match="neighbours of dataset"):
        neighbours_of(store, builders.DATASET)


def test_command_adds_neighbours_to_results(tmp_path, capsys):
    file, out = tmp_path / "cells.h5ad", tmp_path / "out"
    assert main(["data", "simulate", str(file), "--cells", "200", "--genes", "300"]) == 0
    asked = ["data", "neighbours", "--dataset", str(file), "--out", str(out)]
    assert main(asked) == 2
    assert "There is no dataset" in capsys.readouterr().err
    adata = load(file)
    info = describe(adata).to_json()
    write_dataset(out, info, cells_table(adata))
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_neighbours"] == 15
    assert (out / "datasets" / info["dataset_id"] / NEIGHBOURS_FILE).is_file()
