"""`python -m backend data`: exit codes, JSON on stdout, and nothing half-written."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.cli import main
from backend.data import isolated
from backend.data.isolated import check_isolated
from backend.errors import InputError
from backend.files import complete_or_absent
from backend.processes import Limits
from tests.helpers import ask_here

ROOT = Path(__file__).parents[3]


@pytest.fixture
def here(monkeypatch):
    """Check in this process; that a child does it is seen by the other tests."""
    monkeypatch.setattr(isolated, "ask_child", ask_here)


def test_check_of_a_usable_file(upload, saved, capsys):
    path = saved(upload)
    assert main(["data", "check", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "usable to train (full check" in printed
    assert "40 cells, 30 genes" in printed
    assert "Diagnosis 20, Post-treatment 20" in printed


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_check_as_json(upload, saved, capsys, here, quick):
    assert main(["data", "check", str(saved(upload)), "--json", *quick]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is True
    assert report["check"] == ("quick" if quick else "full")
    assert report["facts"]["n_cells"] == 40


def test_check_of_a_refused_file(upload, saved, capsys, here):
    upload.X.data[:] = np.log1p(upload.X.data)
    path = saved(upload)
    assert main(["data", "check", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error:" in captured.err
    assert "log-normalised" in captured.err
    assert "hint:" in captured.err
    assert main(["data", "check", str(path), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is False
    assert report["problems"][0]["code"] == "log_normalised"


def test_check_with_named_roles(upload, saved, capsys, here):
    upload.obs["cluster"] = upload.obs.pop("celltype")
    path = saved(upload)
    assert (
        main(["data", "check", str(path), "--role", "cell_type=cluster", "--role", "donor=patient"])
        == 0
    )
    assert main(["data", "check", str(path), "--for", "predict"]) == 0
    assert main(["data", "check", str(path), "--role", "colour=cluster"]) == 2
    assert "Roles are" in capsys.readouterr().err


def test_check_leaves_no_temporary_file(upload, saved, here):
    path = saved(upload)
    main(["data", "check", str(path)])
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def verdict_on(upload, saved, monkeypatch):
    """Return a function that checks a file with a bad reader; gives the problem and the progress."""

    def verdict_on(reader, **limits):
        monkeypatch.setattr(isolated, "_TARGET", f"tests.backend.data.bad_readers:{reader}")
        monkeypatch.setattr(isolated, "_LIMITS", Limits(**limits))
        seen = []
        report = check_isolated(
            saved(upload), progress=contextlib.nullcontext(lambda *words: seen.append(words))
        )
        assert not report.is_usable
        assert report.problems[0].code == "damaged"
        return report.problems[0].message, seen

    return verdict_on


def test_a_crash_of_the_reader_is_a_verdict(verdict_on):
    assert "SIGKILL" in verdict_on("die")[0]


def test_a_reader_without_end_is_stopped(verdict_on):
    message, seen = verdict_on("hang", silence=2.0)
    assert "no end" in message
    assert seen == [(1, 2, "Reading values")]


def test_memory_without_bounds_is_refused(verdict_on, capfd):
    assert "exit code 1" in verdict_on("hog", spare_space=64 << 20)[0]
    assert capfd.readouterr().err == ""


def test_simulate_and_check(tmp_path, capsys, here):
    out = tmp_path / "sim.h5ad"
    words = ["data", "simulate", str(out), "--cells", "300", "--genes", "300", "--seed", "2"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["simulated"] is True
    assert main(["data", "check", str(out)]) == 0
    assert main(["data", "simulate", str(tmp_path / "no" / "x.h5ad"), "--cells", "300"]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_module_runs_as_a_program(tmp_path):
    path = tmp_path / "x.h5ad"
    path.write_text("not a file of this kind")
    done = subprocess.run(
        [sys.executable, "-m", "backend", "data", "check", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not an HDF5 file" in done.stderr
    assert "Traceback" not in done.stderr


# Complete or absent.


def test_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "x.txt"
    with complete_or_absent(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("earlier")

    def write_half():
        with complete_or_absent(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_writer_failure_leaves_nothing(tmp_path, monkeypatch):
    from backend.data.simulate import write_simulated

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("backend.data.writer.stack_frames", fail)
    with pytest.raises(KeyboardInterrupt):
        write_simulated(tmp_path / "x.h5ad", 300, n_genes=300)
    assert list(tmp_path.iterdir()) == []


def test_folder_as_a_target_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"), complete_or_absent(tmp_path):
        pass
