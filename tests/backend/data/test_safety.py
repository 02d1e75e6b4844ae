"""Hostile HDF5 structures are refused before anything reads them, each with its own message."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from backend.data.check import check
from backend.data.h5ad import load
from backend.data.problems import Refusal
from backend.data.safety import open_safely

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def path(upload, saved) -> Path:
    return saved(upload)


def refused(path: Path) -> Refusal:
    """Every way in refuses the file with the same code."""
    with pytest.raises(Refusal) as caught:
        open_safely(path).close()
    report = check(path)
    assert [problem.code for problem in report.problems] == [caught.value.code]
    assert report.problems[0].message
    assert report.problems[0].hint
    with pytest.raises(Refusal) as from_load:
        load(path)
    assert from_load.value.code == caught.value.code
    return caught.value


def edit(path: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def test_plain_file_is_opened(path):
    with open_safely(path) as file:
        assert "X" in file


def test_missing_file(tmp_path):
    assert refused(tmp_path / "absent.h5ad").code == "no_file"


def test_folder_is_no_file(tmp_path):
    assert "not a file" in refused(tmp_path).message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (b"gene,cell1,cell2\nCD34,0,1\n", "text"),
        (gzip.compress(b"x" * 100, mtime=0), "gzip"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x80\x04\x95pickle", "pickle"),
        (b"\xff\xfe\x00\x01", "unknown"),
    ],
    ids=["empty", "text", "gzip", "zip", "pickle", "unknown"],
)
def test_not_hdf5(tmp_path, content, named):
    path = tmp_path / "x.h5ad"
    path.write_bytes(content)
    error = refused(path)
    assert error.code == "not_hdf5"
    assert named in error.message


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refused(path).code == "truncated"


def test_every_truncation_is_refused_and_never_crashes(path):
    content = path.read_bytes()
    for size in np.linspace(0, len(content) - 1, 25).astype(int):
        path.write_bytes(content[:size])
        assert not check(path).is_usable


def test_flipped_bytes_never_crash(path):
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        report = check(path)
        assert report.is_usable or report.problems[0].message


def test_external_link(path, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["X"] = np.ones((40, 30))

    def change(file):
        del file["X"]
        file["X"] = h5py.ExternalLink("secret.h5", "/X")

    edit(path, change)
    error = refused(path)
    assert error.code == "external_link"
    assert "secret.h5" in error.message


def test_external_link_anywhere_in_the_file(path):
    edit(path, lambda file: file["uns"].create_group("deep").__setitem__(
        "hidden", h5py.ExternalLink("/etc/passwd", "/")
    ))  # fmt: skip
    assert refused(path).code == "external_link"


def test_soft_link_through_an_external_link_is_never_followed(path, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["X"] = np.ones((40, 30))

    def change(file):
        file["a_soft"] = h5py.SoftLink("/uns/z_out/X")
        file["uns"]["z_out"] = h5py.ExternalLink("secret.h5", "/")

    edit(path, change)
    assert refused(path).code == "external_link"


def test_soft_link_that_leads_nowhere(path):
    edit(path, lambda file: file.__setitem__("layers/counts", h5py.SoftLink("/absent")))
    error = refused(path)
    assert error.code == "soft_link"
    assert "/absent" in error.message


def test_soft_link_inside_the_file_is_fine(path):
    edit(path, lambda file: file.__setitem__("layers/counts", h5py.SoftLink("/X")))
    assert check(path).is_usable


def test_links_in_a_circle_end(path):
    edit(path, lambda file: file["uns"].__setitem__("loop", file["/"]))
    assert check(path).is_usable


def test_virtual_dataset(path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = np.ones((40, 30), dtype="f4")

    def change(file):
        layout = h5py.VirtualLayout(shape=(40, 30), dtype="f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "X", shape=(40, 30))
        del file["X"]
        file.create_virtual_dataset("X", layout)

    edit(path, change)
    assert refused(path).code == "virtual_dataset"


def test_values_in_another_file(path, tmp_path):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"\0" * 4800)

    def change(file):
        del file["X"]
        file.create_dataset("X", (40, 30), "f4", external=[(str(outside), 0, 4800)])

    edit(path, change)
    error = refused(path)
    assert error.code == "external_storage"
    assert "outside.bin" in error.message


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda g: g.create_dataset("x", data=np.void(b"cos\nsystem\n(S'ls'\ntR.")), "opaque"),
        (lambda g: g.create_dataset("x", (40,), dtype=h5py.vlen_dtype("i4")), "varying length"),
        (lambda g: g.create_dataset("x", (40,), dtype=h5py.ref_dtype), "references"),
        (
            lambda g: g.create_dataset("x", (2,), dtype=np.dtype([("a", "i4"), ("b", "V8")])),
            "opaque",
        ),
    ],
)
@pytest.mark.parametrize("place", ["obs", "uns", "var"])
def test_object_columns(path, make, named, place):
    edit(path, lambda file: make(file[place]))
    error = refused(path)
    assert error.code == "object_column"
    assert f'"/{place}/x"' in error.message
    assert named in error.message


def test_tables_of_plain_fields_are_fine(path):
    kind = np.dtype([("name", h5py.string_dtype()), ("score", "f4")])
    edit(path, lambda file: file["uns"].create_dataset("ranked", (3,), dtype=kind))
    assert check(path).is_usable


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fletcher32": True}, "fletcher32"),
        ({"scaleoffset": 4, "dtype": "i4"}, "scaleoffset"),
    ],
)
def test_exotic_filters(path, options, named):
    edit(
        path,
        lambda file: file["uns"].create_dataset(
            "x", data=np.arange(1000) % 7, chunks=(100,), **options
        ),
    )
    error = refused(path)
    assert error.code == "filter"
    assert named in error.message


def test_unknown_filter_is_named_by_number(path):
    def change(file):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((10,))
        h5py.h5d.create(file["uns"].id, b"x", h5py.h5t.NATIVE_INT32, space, plist)

    edit(path, change)
    assert "zstd" in refused(path).message


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "lzf"}])
def test_allowed_filters(upload, saved, options):
    assert check(saved(upload, **options)).is_usable


def test_huge_chunks(path):
    edit(
        path,
        lambda file: file["uns"].create_dataset("x", (20_000_000,), "f8", chunks=(20_000_000,)),
    )
    assert refused(path).code in ("chunk_size", "inflation")


def test_chunk_limit_has_its_own_message(path):
    def change(file):
        data = np.random.default_rng(0).integers(0, 256, 65 << 20, dtype=np.uint8)
        file["uns"].create_dataset("x", data=data, chunks=(65 << 20,))

    edit(path, change)
    error = refused(path)
    assert error.code == "chunk_size"
    assert "65 MiB" in error.message


def test_inflating_chunks(path):
    def change(file):
        zeros = np.zeros((4000, 1000), "f4")
        file["uns"].create_dataset("x", data=zeros, compression="gzip", compression_opts=9)

    edit(path, change)
    assert refused(path).code == "inflation"


def test_a_matrix_that_shrinks_much_is_read_in_pieces(path):
    """Dense counts of eight bytes are mostly zeros; what matters is how much is read at once."""

    def change(file):
        counts = np.zeros(file["X"].attrs["shape"], "i8")
        counts[:, 0] = 1
        del file["X"]
        file.create_dataset("X", data=counts, compression="gzip", compression_opts=9)
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    edit(path, change)
    assert check(path).is_usable


def test_dataset_that_claims_more_than_it_stores(path):
    def change(file):
        del file["X"]
        file.create_dataset("X", (40_000_000, 30_000), "f4", chunks=(100, 1000))

    edit(path, change)
    error = refused(path)
    assert error.code == "inflation"
    assert "csr_matrix" in error.hint


def test_constant_columns_of_a_large_table_are_fine(path):
    constant = np.zeros(900_000, dtype=np.int8)
    edit(path, lambda file: file["obs"].create_dataset("x", data=constant, compression="gzip"))
    with open_safely(path) as file:
        assert "x" in file["obs"]


def test_one_inflating_chunk_among_good_ones(path):
    def change(file):
        data = np.random.default_rng(0).integers(0, 1 << 30, 2 << 20).astype("i4")
        data[: 1 << 20] = 0
        file["uns"].create_dataset("x", data=data, chunks=(1 << 20,), compression="gzip")

    edit(path, change)
    assert refused(path).code == "inflation"


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"}]
)
def test_rows_that_share_one_huge_text(path, options):
    """The column and the file stay small, because all rows point to the same text."""

    def change(file):
        text = file["obs"].create_dataset("x", (40,), h5py.string_dtype(), chunks=(40,), **options)
        text[:] = "a" * 100_000

    edit(path, change)
    error = refused(path)
    assert error.code == "text"
    assert "100,000 bytes" in error.message


def test_long_text_that_is_never_read_is_fine(path):
    edit(path, lambda file: file["uns"].__setitem__("log", "a" * 100_000))
    assert check(path).is_usable


def test_deep_nesting(path):
    edit(path, lambda file: file["uns"].create_group("/".join("abcdefghijklmnopqrst")))
    assert refused(path).code == "structure"


def test_very_many_objects(path, monkeypatch):
    monkeypatch.setattr("backend.data.safety._MOST_OBJECTS", 10)
    assert refused(path).code == "structure"


def test_more_categories_than_any_column_has(path, monkeypatch):
    monkeypatch.setattr("backend.data.safety._MOST_CATEGORIES", 2)
    with h5py.File(path) as file:
        assert any("categories" in node for node in file["obs"].values())
    refusal = refused(path)
    assert refusal.code == "text"
    assert "remove_unused_categories" in refusal.hint


@pytest.mark.parametrize("place", ["obs/donor", "X", "layers/spliced"])
def test_a_bare_data_type_where_values_belong(path, place):
    def change(file):
        if place in file:
            del file[place]
        file[place] = np.dtype("f8")

    edit(path, change)
    assert refused(path).code == "structure"


def test_a_bare_data_type_that_is_never_read_is_fine(path):
    edit(path, lambda file: file["uns"].__setitem__("type", np.dtype("f8")))
    open_safely(path).close()


def test_names_that_are_not_text(path):
    edit(path, lambda file: h5py.h5g.create(file["obs"].id, b"\xff\xfe"))
    assert refused(path).code == "structure"
