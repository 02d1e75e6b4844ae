"""The list of runs: complete, in order, the same from the command and in the file."""

from __future__ import annotations

import json

import pandas as pd

from backend.cli import main
from backend.store.bundle import list_runs, write_run
from backend.store.index import COLUMNS, INDEX, index_of, write_index
from tests.backend.store import builders


def test_an_index_lists_every_run_in_order(tmp_path):
    for model in ("majority", "logreg"):
        builders.fill_root(tmp_path, builders.series(model=model, folds=11))
    final = builders.record(builders.series(model="majority", folds=11), "final")
    write_run(tmp_path, final, None)
    index = index_of(tmp_path)
    assert tuple(index.columns) == COLUMNS
    assert index["model"].tolist() == ["logreg"] * 11 + ["majority"] * 12
    assert index["fold"].tolist() == [*range(11), *range(11), "final"]
    assert set(index["run_id"]) == {folder.name for folder in list_runs(tmp_path)}


def test_the_command_prints_what_the_file_holds(tmp_path, capsys):
    builders.fill_root(tmp_path, builders.series())
    assert main(["runs", "index", str(tmp_path)]) == 0
    capsys.readouterr()
    text = (tmp_path / INDEX).read_text()
    assert main(["runs", "list", str(tmp_path), "--csv"]) == 0
    assert capsys.readouterr().out == text
    assert main(["runs", "list", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["run_id"] for row in rows] == pd.read_csv(tmp_path / INDEX)["run_id"].tolist()
    assert main(["runs", "list", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(row["run_id"] in printed for row in rows)
    assert "2 runs of 1 series" in printed
    before = (tmp_path / INDEX).read_bytes()
    write_index(tmp_path)
    assert (tmp_path / INDEX).read_bytes() == before


def test_a_damaged_run_is_named_and_left_out(tmp_path, capsys):
    builders.fill_root(tmp_path, builders.series())
    damaged = list_runs(tmp_path)[0]
    (damaged / "run.json").write_text("{")
    assert main(["runs", "list", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "1 runs of 1 series" in printed.out
    assert f"not listed: `run.json` of {damaged.name} is damaged" in printed.err


def test_what_cannot_be_listed_is_refused(tmp_path, capsys):
    assert main(["runs", "list", str(tmp_path)]) == 2
    assert f'There are no runs in "{tmp_path}"' in capsys.readouterr().err
    assert main(["runs", "index", f"file://{tmp_path}"]) == 2
    assert "--csv" in capsys.readouterr().err
