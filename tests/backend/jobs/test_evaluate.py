from __future__ import annotations

import io
import shutil

import pytest

from backend.data.inspect_upload import inspect_upload
from backend.data.uploads import list_uploads, save_upload, user_folder
from backend.errors import FaultlineError, InputError
from backend.jobs.evaluate import run
from backend.store.bundle import read_dataset
from tests.backend.jobs.mutations import mutations
from tests.backend.prediction.conftest import (  # noqa: F401 - fixtures
    run_of,
    trained_file,
    trained_home,
)
from tests.backend.prediction.test_evaluate import new_cells

pytestmark = pytest.mark.usefixtures("plain_umap")


class Context:
    """What a handler gets, without a worker."""

    def __init__(self, home, owner="local"):
        self.folder, self.home, self.owner = home / "job", home, owner
        self.lines, self.shares = [], []

    def progress(self, share, message=""):
        self.shares.append(share)

    def log(self, text):
        self.lines.append(text)


@pytest.fixture(scope="session")
def valid(tmp_path_factory):
    path = tmp_path_factory.mktemp("valid") / "valid.h5ad"
    new_cells(40).write_h5ad(path)
    return path.read_bytes()


@pytest.fixture
def context(tmp_path, trained_home, monkeypatch):  # noqa: F811
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(trained_home))
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Context(tmp_path / "home")


def save(context, content, name="mine.h5ad", kind="cells", owner=None):
    stream = io.BytesIO(content)
    return save_upload(context.home, owner or context.owner, stream, name=name, kind=kind)


def test_an_upload_becomes_a_dataset_of_its_owner(context, valid, trained_home):  # noqa: F811
    upload = save(context, valid, name="../../my <b>cells.h5ad")
    request = {
        "action": "evaluate",
        "upload": upload.upload_id,
        "runs": [run_of(trained_home, "logreg")],
        "labels": {"T cells": None},
        "roles": {"cell_type": "cell_type", "donor": "donor"},
    }
    result = run(request, context)
    assert (result["n_cells"], result["n_unmapped"], result["n_scored"]) == (40, 13, 27)
    assert context.shares[-1] == 1
    own = user_folder(context.home, "local")
    info, _ = read_dataset(own / "datasets" / result["dataset_id"])
    assert info["name"] == "my <b>cells.h5ad"
    assert info["uploaded"] is True
    assert info["expires_at"] > upload.created_at
    assert not (context.home / "datasets").exists()


def test_a_table_becomes_a_dataset(context):
    from backend.store.imports import template

    upload = save(context, template().encode(), name="t.csv", kind="table")
    result = run({"action": "import", "upload": upload.upload_id, "name": "Theirs"}, context)
    assert result["n_cells"] == 3
    assert result["models"] == ["my model"]


def test_a_wrong_table_is_removed(context):
    upload = save(context, b"cell_id,label\na,B\n", name="t.csv", kind="table")
    with pytest.raises(InputError, match="no column predicted"):
        run({"action": "import", "upload": upload.upload_id}, context)
    assert list_uploads(context.home, "local") == []


def test_the_upload_of_another_is_not_found(context, valid, trained_home):  # noqa: F811
    upload = save(context, valid, owner="somebody")
    request = {"action": "evaluate", "upload": upload.upload_id, "runs": []}
    with pytest.raises(InputError, match="Upload not found"):
        run(request, context)
    assert len(list_uploads(context.home, "somebody")) == 1
    with pytest.raises(InputError, match="no action"):
        run({"action": "erase"}, context)
    with pytest.raises(InputError, match="not among those that this server offers"):
        run({"action": "evaluate", "server_file": "../../etc/passwd"}, context)


def test_a_wrong_choice_keeps_the_file(context, valid, trained_home):  # noqa: F811
    upload = save(context, valid)
    request = {
        "action": "evaluate",
        "upload": upload.upload_id,
        "runs": [run_of(trained_home, "logreg")],
        "labels": {"T cells": "Stroma"},
    }
    with pytest.raises(FaultlineError, match="cannot output Stroma"):
        run(request, context)
    assert len(list_uploads(context.home, "local")) == 1


@pytest.mark.slow
def test_broken_files_end_in_a_message_and_leave_nothing(context, valid, trained_home, tmp_path):  # noqa: F811
    runs = [run_of(trained_home, "logreg")]
    crashed, accepted, silent, left, n = [], [], [], [], 0
    for name, content in mutations(valid, tmp_path):
        n += 1
        upload = save(context, content, name=f"{name}.h5ad")
        request = {"action": "evaluate", "upload": upload.upload_id, "runs": runs}
        try:
            run(request, context)
            accepted.append(name)
        except FaultlineError as error:
            if not error.message or not error.hint or str(tmp_path) in str(error):
                silent.append((name, str(error)))
        except Exception as error:  # noqa: BLE001 - any other end is what this test looks for
            crashed.append((name, repr(error)))
        if any(user_folder(context.home, "local").glob("uploads/*")):
            left.append(name)
            shutil.rmtree(user_folder(context.home, "local") / "uploads")
    assert n >= 300
    assert (crashed, accepted, silent, left) == ([], [], [], [])
    assert not (user_folder(context.home, "local") / "runs").exists()


@pytest.mark.slow
def test_the_page_looks_at_broken_files_in_a_process_of_its_own(valid, tmp_path):
    path = tmp_path / "looked.h5ad"
    wanted = ("truncated-3", "head-3", "other-3", "shape-3", "indptr-3", "link-3", "unicode-3")
    for name, content in mutations(valid, tmp_path):
        if name in wanted:
            path.write_bytes(content)
            (problem, *_) = inspect_upload(path)["problems"]
            assert problem["message"], name
            assert str(tmp_path) not in problem["message"]
    path.write_bytes(valid)
    assert inspect_upload(path)["labels"] == {
        "HSC-like": 14,
        "T cells": 13,
        "classical monocyte": 13,
    }
