from __future__ import annotations

import io
import json
import os

import pytest

from backend.data import uploads
from backend.data.check import check
from backend.data.example import bring_example
from backend.data.inspect_upload import inspect_upload
from backend.data.uploads import (
    delete_upload,
    find_own_file,
    find_server_file,
    find_upload,
    keep_mapping,
    kept_mapping,
    list_uploads,
    save_upload,
    server_files,
    shown_name,
)
from backend.errors import InputError
from tests.conftest import build_adata


def save(home, content=b"some bytes", name="a.h5ad", owner="me", kind="cells"):
    return save_upload(home, owner, io.BytesIO(content), name=name, kind=kind)


def test_names_of_users_never_become_paths(tmp_path):
    upload = save(tmp_path, name="../../../etc/x\n<b>y</b>.h5ad")
    assert upload.name == "b>.h5ad"
    assert upload.path.relative_to(tmp_path).parts == (
        "users", "me", "uploads", upload.upload_id, "cells.h5ad",
    )  # fmt: skip
    assert upload.path.read_bytes() == b"some bytes"
    assert upload.path.parent.stat().st_mode & 0o777 == 0o700
    assert shown_name("C:\\data\\mine.h5ad") == "mine.h5ad"
    assert shown_name("\u202e\x00") == "unnamed file"
    assert len(shown_name("x" * 500)) == 80


def test_uploads_belong_to_their_owner(tmp_path):
    mine, other = save(tmp_path), save(tmp_path, owner="other")
    assert [u.upload_id for u in list_uploads(tmp_path, "me")] == [mine.upload_id]
    for upload_id in (other.upload_id, "0" * 16, "../x", ""):
        with pytest.raises(InputError, match=r"^Upload not found\."):
            find_upload(tmp_path, "me", upload_id)
    for owner in ("", "../other", "a/b", "x" * 65):
        with pytest.raises(InputError, match="owner"):
            find_upload(tmp_path, owner, mine.upload_id)
    delete_upload(tmp_path, "me", other.upload_id)
    delete_upload(tmp_path, "me", "../../other")
    assert find_upload(tmp_path, "other", other.upload_id) == other
    delete_upload(tmp_path, "me", mine.upload_id)
    assert list_uploads(tmp_path, "me") == []


def test_a_broken_transfer_leaves_nothing(tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise ConnectionResetError
            return super().read(4)

    with pytest.raises(ConnectionResetError):
        save_upload(tmp_path, "me", Broken(b"12345678"), name="a", kind="cells")
    with pytest.raises(InputError, match="is empty"):
        save(tmp_path, b"")
    assert list((tmp_path / "users/me/uploads").iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match="disk is full"):
        save(tmp_path)
    assert list((tmp_path / "users/me/uploads").iterdir()) == []


def test_server_files_are_found_by_real_path_only(tmp_path, monkeypatch):
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    (allowed / "deep").mkdir(parents=True)
    secret.mkdir()
    for path in (allowed / "a.h5ad", allowed / "deep" / "b.h5ad", secret / "c.h5ad"):
        path.write_bytes(b"x")
    (allowed / "link.h5ad").symlink_to(secret / "c.h5ad")
    (allowed / "folder").symlink_to(secret)
    (allowed / "notes.txt").write_text("x")
    monkeypatch.setenv("FAULTLINE_DATA_DIRS", f"{allowed}{os.pathsep}{tmp_path / 'none'}")
    assert server_files() == ["allowed/a.h5ad", "allowed/deep/b.h5ad"]
    assert find_server_file("allowed/deep/b.h5ad") == (allowed / "deep/b.h5ad").resolve()
    for name in (
        "allowed/link.h5ad", "allowed/folder/c.h5ad", "allowed/../secret/c.h5ad",
        str(secret / "c.h5ad"), "https://example.org/a.h5ad", "file:///etc/passwd", "",
    ):  # fmt: skip
        with pytest.raises(InputError, match="not among those"):
            find_server_file(name)
    monkeypatch.delenv("FAULTLINE_DATA_DIRS")
    assert server_files() == []


def test_folders_of_the_same_name_keep_their_files_apart(tmp_path, monkeypatch):
    places = [tmp_path / where / "data" for where in ("one", "two", "two/data")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / "a.h5ad").write_text(str(place))
    listed = [*places, tmp_path / "one" / "." / "data"]
    for order in (listed, listed[::-1]):
        monkeypatch.setenv("FAULTLINE_DATA_DIRS", os.pathsep.join(map(str, order)))
        names = server_files()
        assert len(set(names)) == len(names)
        for where, shown in (("one", "one"), ("two", "two"), ("two/data", "data")):
            (name,) = [name for name in names if name.startswith(f"data ({shown})/a")]
            assert find_server_file(name).read_text() == str(tmp_path / where / "data")
        with pytest.raises(InputError, match="not among those"):
            find_server_file("data/a.h5ad")


def test_a_quick_look_tells_what_a_person_decides_on(tmp_path):
    adata = build_adata(60)
    adata.obs["stage"] = ["weird", "D0"] * 30
    path = tmp_path / "x.h5ad"
    adata.write_h5ad(path)
    (tmp_path / "genes.json").write_text(json.dumps(["CD34", "LYZ", "NOTHERE"]))
    (tmp_path / "state.json").write_text(
        json.dumps({"size": 3, "vocabulary": {"LYZ": 0, "x": 1, "ENSG00000174059": 2}})
    )
    found = inspect_upload(
        path,
        roles={"cell_type": "cell_type_fine", "timepoint": "stage"},
        gene_files={"one": str(tmp_path / "genes.json"), "two": str(tmp_path / "state.json")},
    )
    assert found["problems"] == []
    assert found["labels"] == {"HSC-like": 20, "Mono": 20, "T": 20}
    assert found["timepoints"] == {"D0": 30, "weird": 30}
    assert found["genes"] == {
        "one": {"n_known": 2, "n_model": 3}, "two": {"n_known": 2, "n_model": 3},
    }  # fmt: skip
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["cell_type_fine"]["examples"] == ["HSC-like", "Mono", "T"]
    assert columns["n_counts"]["n_values"] is None
    roles = found["facts"]["roles"]
    assert (roles["cell_type"], roles["timepoint"], roles["donor"]) == (
        "cell_type_fine", "stage", "donor",
    )  # fmt: skip
    assert set(found["donors"]) == {"AML1", "AML2", "AML3", "AML4"}


def test_choices_of_labels_are_kept_with_the_upload(tmp_path):
    upload = save_upload(tmp_path, "local", io.BytesIO(b"x"), name="x.h5ad", kind="cells")
    assert kept_mapping(tmp_path, "local", upload.upload_id) == {}
    keep_mapping(tmp_path, "local", upload.upload_id, {"T cells": "T", "other": None})
    assert kept_mapping(tmp_path, "local", upload.upload_id) == {"T cells": "T", "other": None}
    delete_upload(tmp_path, "local", upload.upload_id)
    with pytest.raises(InputError, match="not found"):
        kept_mapping(tmp_path, "local", upload.upload_id)


def test_a_path_of_ones_own_machine(tmp_path):
    (tmp_path / "x.h5ad").write_bytes(b"x")
    (tmp_path / "x.txt").write_bytes(b"x")
    assert find_own_file(f' "{tmp_path}/x.h5ad" ') == (tmp_path / "x.h5ad").resolve()
    for text in (f"{tmp_path}/x.txt", f"{tmp_path}/none.h5ad", "x.h5ad", str(tmp_path), ""):
        with pytest.raises(InputError, match="There is no"):
            find_own_file(text)


def test_the_example_is_simulated_and_usable(tmp_path):
    upload = bring_example(tmp_path, "local")
    report = check(upload.path, quick=True, purpose="evaluate")
    assert report.is_usable
    assert report.facts["simulated"]
    assert report.facts["n_donors"] == 2
    assert "simulated" in upload.name
