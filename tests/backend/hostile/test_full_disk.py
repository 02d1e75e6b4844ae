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
from backend.store.bundle import list_runs
from backend.store.seals import verify
from tests.backend.data.test_geo import write_sample
from tests.backend.hostile.forks import Forks
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


def every_command(disk: Path, data: Path, table: Path, models: Path, plan: Path, checkpoint: Path):
    """Return a call of every verb and action that may write, and of those that read, by name."""
    home = disk / "home"
    (final,) = [folder.name for folder in list_runs(models)]
    fit = ["--dataset", data, "--protocol", "random", "--folds", "2"]
    (known,) = [folder.name for folder in (models / "datasets").iterdir()]
    new = ["--run", final, "--models", models, "--dataset", data, "--donor-names", "other"]
    return {
        "data simulate": ["data", "simulate", "--cells", "4000", disk / "s.h5ad"],
        "data simulate --like": ["data", "simulate", "--like", "ennis2023", disk / "l.h5ad"],
        "data subset": [
            "data", "subset", data, disk / "u.h5ad", "--by", "timepoint", "--shares", "Diagnosis=1",
        ],
        "data check": ["data", "check", data],
        "data import-geo": ["data", "import-geo", table.parent / "geo", disk / "geo.h5ad"],
        "data neighbours": ["data", "neighbours", "--dataset", data, "--out", home],
        "data attach": ["data", "attach", data, "--dataset", known],
        "data profiles": ["data", "profiles"],
        "split": ["split", data, "--out", disk / "splits", "--protocols", "random", "--folds", "5"],
        "run": ["run", *fit, "--model", "majority", "--out", home],
        "pretrain": [
            "pretrain", *fit, "--model", "geneformer", "--name", "mine", "--set", "max_steps=2", "--out", home,
        ],
        "sweep": ["sweep", plan, "--jobs", "1", "--out", home],
        "predict": ["predict", *new, "--out", home],
        "evaluate": ["evaluate", *new, "--out", home],
        "import-predictions": ["import-predictions", table, "--name", "x", "--out", home],
        "checkpoints list": ["checkpoints", "list"],
        "checkpoints add": ["checkpoints", "add", "geneformer", checkpoint],
        "checkpoints verify": ["checkpoints", "verify", "geneformer", checkpoint],
        "store sync": ["store", "sync"],
        "store rebuild": ["store", "rebuild"],
        "store info": ["store", "info"],
        "store verify": ["store", "verify"],
        "store seal": ["store", "seal", models],
        "runs list": ["runs", "list", models],
        "runs index": ["runs", "index", home],
        "score": ["score", "--json"],
        "genes": ["genes", "--run", final, "--label", "T", "--predicted", "Mono"],
        "jobs list": ["jobs", "list"],
        "jobs show": ["jobs", "show", "0" * 16],
        "jobs cancel": ["jobs", "cancel", "0" * 16],
        "jobs retry": ["jobs", "retry", "0" * 16],
        "jobs delete": ["jobs", "delete", "0" * 16],
        "worker": ["worker", "--once"],
        "clean": ["clean", "--out", home],
    }  # fmt: skip


@pytest.mark.slow
def test_every_command_says_that_the_disk_is_full(tiny_disk, tmp_path):
    """Of a disk of 64 MiB nothing is free, then so little that some begin to write."""
    data, table, plan = tmp_path / "x.h5ad", tmp_path / "t.csv", tmp_path / "plan.toml"
    build_adata(120).write_h5ad(data)
    table.write_text("cell_id,label,predicted\n" + "".join(f"c{i},T,T\n" for i in range(40_000)))
    plan.write_text(
        f'dataset = "{data}"\n[[run]]\nmodel = "majority"\nprotocol = ["random"]\nfolds = 2\n'
    )
    (tmp_path / "geo").mkdir()
    write_sample(tmp_path / "geo", "BM1")
    checkpoint, models = tmp_path / "checkpoint", tmp_path / "models"
    checkpoint.mkdir()
    home = tiny_disk / "home"
    told: dict[str, list[str]] = {}
    with Forks(tmp_path, FAULTLINE_HOME=str(home), FAULTLINE_PRECOMPUTED=str(models)) as forks:
        code, said = forks.run(
            "run", "--dataset", data, "--model", "majority", "--protocol", "random", "--folds", "2",
            "--fold", "final", "--out", models,
        )  # fmt: skip
        assert code == 0, said
        for leave in (0, 512 << 10):
            fill(tiny_disk, leave)
            for name, words in every_command(
                tiny_disk, data, table, models, plan, checkpoint
            ).items():
                code, said = forks.run(*words)
                assert "Traceback" not in said, (name, leave, said[-3000:])
                assert code in (0, 1, 2), (name, leave, code, said[-1000:])
                if code == 2:
                    assert "error: " in said, (name, leave, said)
                    assert "usage: " not in said, (name, said)
                is_full = "disk is full" in said or "No space left" in said
                told.setdefault(name, []).append(f"{code}{' full' if is_full else ''}")
            assert not list(tiny_disk.rglob("*.h5ad"))
            assert not any(verify(home).values()) if home.is_dir() else True
            shutil.rmtree(home, ignore_errors=True)
            (tiny_disk / "filler").unlink()
    print(f"\n{len(told)} commands, 2 times each: {told}")
    writers = ("run", "sweep", "predict", "evaluate", "import-predictions", "data attach")
    for name in ("data simulate", "data simulate --like", *writers):
        # Tiny files of samples fit into what a disk leaves, so `data import-geo` need not say it.
        assert told[name][0] != "0", name
        assert "full" in told[name][0], name


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
