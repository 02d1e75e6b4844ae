"""Names of files that are no text, and terminals that lack letters, never end in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backend.config import data_dirs, environment, home, project_root
from backend.data.uploads import find_server_file, server_files
from backend.errors import InputError, is_utf8

BYTES = os.fsdecode(b"x\xff\xfe")


def command(*words, **env):
    """Run a command with a terminal that refuses what it cannot write."""
    return subprocess.run(
        [sys.executable, "-m", "backend", *words],
        cwd=project_root(), env=environment(**{"PYTHONIOENCODING": "utf-8:strict"} | env),
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("data", "simulate", "{}.h5ad"),
        ("import-predictions", "t.csv", "--name", "{}", "--out", "o"),
        ("store", "sync", "--home", "{}"),
    ],
    ids=lambda words: words[0],
)
def test_an_argument_that_is_no_text_is_refused(words, tmp_path):
    done = command(*(word.format(BYTES) for word in words), FAULTLINE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(r"error: The argument `x\udcff\udcfe")
    assert "Traceback" not in done.stderr


def test_a_terminal_without_the_letters_gets_escapes(tmp_path):
    path = tmp_path / "Ergebnis-é-细胞.h5ad"
    done = command("data", "simulate", str(path), "--cells", "200", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert r"Ergebnis-\xe9-\u7ec6\u80de.h5ad" in done.stdout
    assert path.is_file()


@pytest.mark.parametrize(
    ("name", "read"), [("FAULTLINE_HOME", home), ("FAULTLINE_DATA_DIRS", data_dirs)]
)
def test_a_folder_that_is_no_text_is_refused(name, read, monkeypatch):
    monkeypatch.setenv(name, f"/{BYTES}")
    with pytest.raises(InputError, match=f"{name}.*is not valid UTF-8") as caught:
        read()
    assert is_utf8(str(caught.value))


def test_only_files_that_a_page_can_name_are_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTLINE_DATA_DIRS", str(tmp_path))
    for name in ("good.h5ad", f"{BYTES}.h5ad"):
        (tmp_path / name).touch()
    (tmp_path / "round.h5ad").symlink_to("round.h5ad")
    (tmp_path / "nowhere.h5ad").symlink_to("gone")
    assert server_files() == [f"{tmp_path.name}/good.h5ad"]
    with pytest.raises(InputError):
        find_server_file(f"{tmp_path.name}/{BYTES}.h5ad")
