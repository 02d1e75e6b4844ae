"""Whatever name leads to it, what is read of a file is short, and looking at it takes little."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from backend.config import environment, project_root
from backend.data.h5ad import check
from backend.data.inspect_upload import inspect_upload
from backend.errors import InputError
from tests.conftest import build_adata

HUGE = "a" * 2_000_000


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.h5ad"
    build_adata(40).write_h5ad(path)
    return path


def text(file, place, values, **options):
    return file.create_dataset(
        place, data=np.array(values, dtype=object), dtype=h5py.string_dtype(), **options
    )


def compact(file, place, n):
    """Write references of variable length into the header of a dataset."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    kind = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
    space = h5py.h5s.create_simple((n,))
    made = h5py.h5d.create(file.id, place.encode(), kind, space, plist)
    values = np.array([HUGE] * n, dtype=object)
    made.write(space, space, values, kind)


def hard_link(file):
    text(file, "uns/x", [HUGE] * 40)
    file["obs/x"] = file["uns/x"]


def soft_link(file):
    text(file, "uns/x", [HUGE] * 40)
    file["obs/x"] = h5py.SoftLink("/uns/x")


def linked_group(file):
    group = file.create_group("uns/g")
    text(group, "categories", [HUGE])
    group["codes"] = np.zeros(40, dtype=np.int8)
    file["obs/x"] = group


def compact_text(file):
    compact(file["obs"], "x", 40)


def fixed_length(file):
    file["obs"].create_dataset("x", data=np.array([b"a" * 100_000] * 40))


def index_attribute(file):
    del file["obs"].attrs["_index"]
    file["obs"].attrs.create("_index", HUGE, dtype=h5py.string_dtype())


def encoding_attribute(file):
    file["X"].attrs.create("encoding-type", HUGE, dtype=h5py.string_dtype())


def long_name(file):
    file.create_group("uns/" + "n" * 5_000)


def one_long_label(file):
    del file["obs/cell_type_fine/categories"]
    text(file, "obs/cell_type_fine/categories", ["HSC-like", "Mono", "T" * 3_000])


def many_attributes(file):
    for i in range(1_500):
        file["uns"].attrs[f"a{i}"] = i


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (hard_link, "text"), (soft_link, "text"), (linked_group, "text"), (compact_text, "text"),
        (fixed_length, "text"), (index_attribute, "text"), (encoding_attribute, "text"),
        (long_name, "structure"), (one_long_label, "names"), (many_attributes, "text"),
    ],
)  # fmt: skip
def test_long_texts_are_refused_by_whatever_name(path, harm, code):
    with h5py.File(path, "a") as file:
        harm(file)
    report = check(path, quick=True)
    assert [problem.code for problem in report.problems] == [code]
    (problem,) = report.problems
    assert len(problem.message) < 500
    assert HUGE[:1000] not in problem.message


def test_more_types_than_anybody_scores_are_refused(path):
    adata = build_adata(1_200)
    adata.obs["cell_type_fine"] = [f"type {i}" for i in range(1_200)]
    adata.write_h5ad(path)
    (problem,) = check(path, quick=True).problems
    assert "1,200 different values; at most 1,000" in problem.message


def test_donor_names_are_held_once(path, monkeypatch):
    """A column of long names costs its categories, not one text a cell."""
    adata = build_adata(40)
    adata.obs["donor"] = ["d" * 299 + str(i % 4) for i in range(40)]
    adata.write_h5ad(path)
    assert check(path, quick=True).is_usable
    assert inspect_upload(path)["problems"] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one label", "one attribute", "many texts", "dense counts"])
def test_looking_at_a_file_of_200_mb_takes_half_a_gibibyte(tmp_path, kind):
    path = tmp_path / "x.h5ad"
    n = 100_000
    if kind == "dense counts":
        adata = build_adata(40)
        adata.write_h5ad(path)
        with h5py.File(path, "a") as file:
            file.create_dataset("layers/big", data=np.ones((40, 1_200_000), dtype=np.float32))
    else:
        build_adata(n if kind == "many texts" else 40).write_h5ad(path)
        with h5py.File(path, "a") as file:
            if kind == "one label":
                text(file, "obs/x", ["b" * 190_000_000] + ["c"] * 39)
            elif kind == "one attribute":
                file["obs"].attrs.create("_index", "d" * 190_000_000, dtype=h5py.string_dtype())
            else:
                for i in range(4):
                    text(file, f"obs/t{i}", [f"{j:0450d}" for j in range(n)])
    assert path.stat().st_size < 230 << 20
    # From a small process: a child begins with the peak of its parent.
    code = """
import json, resource, sys
from pathlib import Path
from backend.data.inspect_upload import inspect_upload
problems = inspect_upload(Path(sys.argv[1]))["problems"]
print(json.dumps([problems, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=project_root(), env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    problems, peak_mib = json.loads(done.stdout)
    print(f"{kind}: {path.stat().st_size / 2**20:.0f} MiB, peak {peak_mib:.0f} MiB", problems)
    assert peak_mib < 512
    assert bool(problems) == (kind in ("one label", "one attribute"))


def test_as_many_files_as_may_be_are_looked_at_at_once(path, monkeypatch):
    from backend.data import inspect_upload as module

    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    for _ in range(2):
        assert module._AT_ONCE.acquire(blocking=False)
    try:
        with pytest.raises(InputError, match="looking at other files"):
            inspect_upload(path)
    finally:
        for _ in range(2):
            module._AT_ONCE.release()
