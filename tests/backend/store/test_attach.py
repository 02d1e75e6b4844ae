"""Counts by gene are attached to the dataset that they belong to, and to no other."""

from __future__ import annotations

import pytest

from backend.cli import main
from backend.data import cells_table, describe, load
from backend.errors import InputError
from backend.store.attach import attach_expression, find_expression
from backend.store.bundle import write_dataset
from backend.store.seals import verify


@pytest.fixture
def known(tiny, tmp_path):
    """Give the file of a dataset with results, its id and the folder that holds these."""
    path, shipped = tmp_path / "cells.h5ad", tmp_path / "shipped"
    tiny.write_h5ad(path)
    loaded = load(path)
    info = describe(loaded)
    write_dataset(shipped, info.to_json(), cells_table(loaded))
    return path, info.dataset_id, shipped


def test_counts_are_found_after_they_were_attached(known, tiny, tmp_path):
    path, dataset_id, shipped = known
    home = tmp_path / "home"
    assert find_expression([shipped, home], dataset_id) is None
    n = attach_expression(path, dataset_id, roots=[shipped], home=home)
    assert n == tiny.n_obs
    found = find_expression([shipped, home], dataset_id)
    gene = tiny.var_names[0]
    assert found.counts_of(gene).sum() == tiny[:, gene].X.sum()
    assert not (shipped / "datasets" / dataset_id / "expression").exists()


def test_another_file_is_refused(known, tiny, tmp_path):
    _, dataset_id, shipped = known
    home, other = tmp_path / "home", tmp_path / "other.h5ad"
    changed = tiny.copy()
    changed.X[0, 0] += 1
    for wrong, what in (
        (tiny[:20].copy(), "20 of the 40"),
        (tiny[::-1].copy(), "another order"),
        (changed, "other counts"),
    ):
        wrong.write_h5ad(other)
        with pytest.raises(InputError, match=what):
            attach_expression(other, dataset_id, roots=[shipped], home=home)
        assert find_expression([home], dataset_id) is None
    with pytest.raises(InputError, match="no dataset"):
        attach_expression(other, "0" * 16, roots=[shipped], home=home)
    with pytest.raises(InputError, match="no dataset") as error:
        attach_expression(other, "../mistyped", roots=[shipped], home=home)
    assert "runs list" in error.value.hint


def test_the_command_attaches(known, tmp_path, monkeypatch, capsys):
    path, dataset_id, shipped = known
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(shipped))
    assert main(["data", "attach", str(path), "--dataset", dataset_id]) == 0
    assert "40 cells" in capsys.readouterr().out
    assert find_expression([tmp_path / "home"], dataset_id) is not None


def test_counts_that_changed_are_found_by_verify(known):
    path, dataset_id, shipped = known
    attach_expression(path, dataset_id, roots=[shipped], home=shipped)
    assert verify(shipped) == {f"datasets/{dataset_id}": []}
    # A writer that was killed leaves this; nothing reads it.
    (shipped / "datasets" / dataset_id / ".tmp-expression-1-2").mkdir()
    (shipped / "datasets" / dataset_id / ".tmp-expression-1-2" / "counts.bin").touch()
    assert verify(shipped) == {f"datasets/{dataset_id}": []}
    counts = shipped / "datasets" / dataset_id / "expression" / "counts.bin"
    content = counts.read_bytes()
    counts.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert verify(shipped) == {f"datasets/{dataset_id}": ["`expression` has changed"]}
    counts.write_bytes(content[:-1])
    assert "not whole" in verify(shipped)[f"datasets/{dataset_id}"][0]
