"""A full disk, a folder without permission, no home: one sentence and exit 2, nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from backend.cli import main
from backend.config import environment, project_root
from backend.errors import FaultlineError
from backend.files import DiskFull, check_room, explained
from tests.conftest import build_adata

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "The disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y"), "The disk is full"),
        (OSError("[Errno 28] Error writing bytes: No space left on device"), "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "`/x/y` may not be used"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "Read-only file system"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x/y"), "Not a directory"),
    ],
)
def test_what_the_system_refuses_is_explained(error, words):
    meant = explained(error)
    assert isinstance(meant, FaultlineError)
    assert words in meant.message
    assert meant.hint


def test_what_is_not_known_stays_a_fault():
    assert explained(OSError("something else")) is None


def test_room_is_looked_at_before_a_library_writes(tmp_path):
    check_room(tmp_path, 1, "x")
    with pytest.raises(DiskFull, match="may need"):
        check_room(tmp_path, 1 << 60, "x")


def test_refusals_of_the_system_end_in_2(monkeypatch, capsys, tmp_path):
    from backend.cli import store

    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))

    monkeypatch.setattr(store, "run", refuse)
    assert main(["store", "info"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said


def test_a_reader_that_leaves_early_is_no_fault(tmp_path):
    code = "import sys; sys.path.insert(0, '.'); from backend.cli import main; sys.exit(main())"
    command = f'{sys.executable} -c "{code}" runs --help | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], cwd=project_root(), env=environment(FAULTLINE_HOME=str(tmp_path)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() in ("0", "141")


@pytest.fixture
def tiny_disk(tmp_path):
    """Give a disk of 64 MiB; only root may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave: int) -> None:
    size = shutil.disk_usage(disk).free - leave
    with (disk / "filler").open("wb") as file:
        for _ in range(max(0, size) >> 16):
            file.write(b"\0" * (1 << 16))


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 256 << 10])
def test_every_command_says_that_the_disk_is_full(tiny_disk, tmp_path, leave):
    data = tmp_path / "x.h5ad"
    build_adata(120).write_h5ad(data)
    table = tmp_path / "t.csv"
    table.write_text("cell_id,label,predicted\n" + "".join(f"c{i},T,T\n" for i in range(40_000)))
    home = tiny_disk / "home"
    fill(tiny_disk, leave)
    out = str(home)
    commands = {
        "simulate": ["data", "simulate", "--cells", "20000", str(tiny_disk / "s.h5ad")],
        "subset": [
            "data", "subset", str(data), str(tiny_disk / "u.h5ad"),
            "--by", "timepoint", "--shares", "Diagnosis=1",
        ],
        "run": ["run", "--dataset", str(data), "--model", "majority", "--protocol", "random", "--folds", "2", "--out", out],
        "import": ["import-predictions", str(table), "--name", "x", "--out", out],
        "sync": ["store", "sync"],
        "score": ["score", "--json"],
        "jobs": ["jobs", "list", "--owner", "local"],
        "worker": ["worker", "--once"],
        "clean": ["clean", "--out", out],
    }  # fmt: skip
    told = {}
    for name, words in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", "backend", *words],
            cwd=project_root(),
            env=environment(FAULTLINE_HOME=out, FAULTLINE_PRECOMPUTED=str(tmp_path / "none")),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        told[name] = (done.returncode, done.stderr.strip()[-300:])
        assert "Traceback" not in done.stderr, (name, done.stderr[-2000:])
        assert done.returncode in (0, 1, 2), told[name]
    print(told)
    assert told["simulate"][0] == 2
    left = [path for path in tiny_disk.rglob("*") if path.suffix in (".h5ad", ".tmp")]
    assert not left
    assert not list(tiny_disk.rglob("run.json"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    (tmp_path / "home").mkdir(mode=0o500)
    done = subprocess.run(
        [sys.executable, "-m", "backend", "data", "simulate", "--cells", "500", str(tmp_path / "home" / "x.h5ad")],
        cwd=project_root(), env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
