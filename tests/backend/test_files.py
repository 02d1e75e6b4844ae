"""What is written is complete or absent, whoever writes beside and whatever fails."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend import files
from backend.files import DiskFull, link_first, locked, published, remove_folder, replaced


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_or_stays(tmp_path):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")
    with pytest.raises(TypeError), replaced(path) as draft:
        draft.write_bytes("half")
    assert path.read_text() == "old"
    with replaced(path, is_durable=True) as draft:
        draft.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("write", [replaced, published])
def test_a_full_disk_is_told_with_what_it_was_for(tmp_path, write):
    with (
        pytest.raises(DiskFull, match="no room for the tokens"),
        write(tmp_path / "x", what="the tokens"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []


def test_a_folder_is_published_as_a_whole(tmp_path):
    target = tmp_path / "a" / "b"
    with published(target, is_durable=True, mode=0o700) as folder:
        (folder / "x").write_text("1")
        assert not target.exists()
    assert target.stat().st_mode & 0o777 == 0o700
    with published(target, keep=lambda there: (there / "x").exists()) as folder:
        (folder / "x").write_text("2")
    assert (target / "x").read_text() == "1"
    with published(target) as folder:
        (folder / "y").write_text("3")
    assert names(target) == ["y"]
    assert names(tmp_path / "a") == ["b"]


def test_what_killed_writers_left_goes_when_it_is_old(tmp_path):
    for name in (".tmp-x-1-a", ".old-x-1-b", ".tmp-y-2-c"):
        (tmp_path / name).mkdir()
    for name in (".tmp-x-1-a", ".old-x-1-b"):
        os.utime(tmp_path / name, (time.time() - 2 * 24 * 3600,) * 2)
    with published(tmp_path / "z"):
        pass
    assert names(tmp_path) == [".tmp-y-2-c", "z"]


def test_of_many_one_makes_the_link(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: link_first(tmp_path / "x", str(number)), range(40)))
    assert sum(won) == 1
    assert (tmp_path / "x").read_text() == str(won.index(True))
    assert names(tmp_path) == ["x"]
    assert not link_first(tmp_path / "gone" / "x", "")


def test_one_at_a_time_holds_a_folder(tmp_path):
    inside = []

    def hold(_):
        with locked(tmp_path):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.005)
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(20)))
    assert names(tmp_path) == []


def test_a_folder_that_is_gone_is_removed_already(tmp_path):
    (tmp_path / "x").mkdir()
    remove_folder(tmp_path / "x")
    remove_folder(tmp_path / "x")
    assert names(tmp_path) == []
