"""Seeded ways to break a valid `.h5ad`: each gives bytes that must be refused."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def mutations(valid: bytes, folder: Path, *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, the broken file); `folder` is for scratch files."""
    rng = np.random.default_rng(seed)
    for number in range(40):
        stop = int(len(valid) * rng.uniform(0.01, 0.97))
        yield f"truncated-{number}", valid[:stop]
    for number in range(25):
        head = rng.bytes(int(rng.integers(4, 96)))
        yield f"head-{number}", head + valid[len(head) :]
    for number in range(12):
        yield f"other-{number}", _other_file(number, valid, rng)
    for name, change, times in _CHANGES:
        for number in range(times):
            yield f"{name}-{number}", _changed(valid, change, rng, folder)


def _changed(valid: bytes, change: Callable, rng: np.random.Generator, folder: Path) -> bytes:
    path = folder / "scratch.h5ad"
    path.write_bytes(valid)
    with h5py.File(path, "r+") as file:
        change(file, rng)
    return path.read_bytes()


def _other_file(number: int, valid: bytes, rng: np.random.Generator) -> bytes:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("../../evil.h5ad", valid[:100])
    kinds = (
        b"cell_id,label,predicted\na,B,B\n",
        zipped.getvalue(),
        b"\x89PNG\r\n\x1a\n" + rng.bytes(500),
        b"\x80\x04\x95" + rng.bytes(300),
        b"<html><script>alert(1)</script></html>",
        rng.bytes(2000),
    )
    return kinds[number % len(kinds)]


def _replace(group: h5py.Group, name: str, values: object, **options: object) -> None:
    del group[name]
    group.create_dataset(name, data=values, **options)


def _shape(file: h5py.File, rng: np.random.Generator) -> None:
    n, g = (int(x) for x in file["X"].attrs["shape"])
    wrong = [(g, n), (n + 1, g), (n, g + 1), (0, g), (n, -g), (n,), (2**40, 2**40), (n, g, 1)]
    file["X"].attrs["shape"] = np.array(wrong[rng.integers(len(wrong))], dtype=np.int64)


def _indptr(file: h5py.File, rng: np.random.Generator) -> None:
    indptr = file["X/indptr"][:].astype(np.int64)
    place = int(rng.integers(1, len(indptr) - 1))
    wrong = [
        lambda p: np.concatenate([[p[-1]], p[1:]]),
        lambda p: np.concatenate([p[:-1], [p[-1] + 1]]),
        lambda p: np.concatenate([p[:place], [-1], p[place + 1 :]]),
        lambda p: np.concatenate([p[:place], [2**60], p[place + 1 :]]),
        lambda p: p[:-1],
        lambda p: np.concatenate([p, p[-1:]]),
        lambda p: p[::-1].copy(),
        lambda p: p.astype(float) + 0.5,
        lambda p: p.reshape(1, -1),
    ]
    _replace(file["X"], "indptr", wrong[rng.integers(len(wrong))](indptr))


def _indices(file: h5py.File, rng: np.random.Generator) -> None:
    indices = file["X/indices"][:].astype(np.int64)
    place = int(rng.integers(len(indices)))
    wrong = [-1, 10**6, 2**40, file["var/_index"].shape[0] if "_index" in file["var"] else 999]
    if rng.random() < 0.3:
        _replace(file["X"], "indices", indices.astype(float) + 0.25)
        return
    indices[place] = wrong[rng.integers(len(wrong))]
    _replace(file["X"], "indices", indices)


def _values(file: h5py.File, rng: np.random.Generator) -> None:
    values = file["X/data"][:].astype(np.float64)
    kind = int(rng.integers(6))
    places = rng.integers(0, len(values), 5)
    if kind < 4:
        values[places] = (np.nan, np.inf, -1.0, 0.5)[kind]
        _replace(file["X"], "data", values)
    elif kind == 4:
        _replace(file["X"], "data", values.astype(complex))
    else:
        _replace(file["X"], "data", values[: -int(rng.integers(1, 9))])


def _link(file: h5py.File, rng: np.random.Generator) -> None:
    place = ("X", "obs", "layers/counts", "uns/faultline", "obs/donor")[rng.integers(5)]
    if place in file:
        del file[place]
    kind = int(rng.integers(3))
    if kind == 0:
        file[place] = h5py.ExternalLink("/etc/passwd", "/")
    elif kind == 1:
        file[place] = h5py.ExternalLink("../../../other.h5ad", "X")
    else:
        layout = h5py.VirtualLayout(shape=(40,), dtype="i4")
        layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(40,))
        file.create_virtual_dataset(place, layout)


def _attribute(file: h5py.File, rng: np.random.Generator) -> None:
    huge = "x" * int(rng.integers(20_000, 60_000))
    kind = int(rng.integers(4))
    if kind == 0:
        file["obs"].attrs["_index"] = huge
        file["obs"].move(_index_of(file["obs"]), "gone")
    elif kind == 1:
        file["X"].attrs["shape"] = np.arange(int(rng.integers(3, 5000)))
    elif kind == 2:
        file["X"].attrs["encoding-type"] = huge
    else:
        file["var"].attrs["_index"] = huge
        file["var"].move(_index_of(file["var"]), "gone")


def _index_of(group: h5py.Group) -> str:
    name = group.attrs["_index"]
    return name if name in group else "_index" if "_index" in group else "cell_id"


def _unicode(file: h5py.File, rng: np.random.Generator) -> None:
    n = len(file["obs"][file["obs"].attrs["_index"]])
    kind = int(rng.integers(4))
    ids = {
        0: [b"\xff\xfe%d\xc3" % i for i in range(n)],
        1: [""] * n,
        2: ["\N{SNOWMAN}"] * n,
        3: [b"ok%d" % i if i else b"\xed\xa0\x80" for i in range(n)],
    }[kind]
    index = file["obs"].attrs["_index"]
    del file["obs"][index]
    file["obs"].create_dataset(index, data=ids, dtype=h5py.string_dtype("utf-8"))


def _column(file: h5py.File, rng: np.random.Generator) -> None:
    group = file["obs/cell_type"]
    codes = group["codes"][:]
    kind = int(rng.integers(5))
    if kind == 0:
        _replace(group, "codes", codes.astype(float) + 0.5)
    elif kind == 1:
        _replace(group, "codes", np.full(len(codes), 99, dtype=np.int8))
    elif kind == 2:
        _replace(group, "codes", codes[: -int(rng.integers(1, 9))])
    elif kind == 3:
        _replace(group, "codes", np.full(len(codes), -1, dtype=np.int8))
    else:
        del group["categories"]


def _missing(file: h5py.File, rng: np.random.Generator) -> None:
    names = ("X", "obs", "var", "X/indptr", "X/data", "X/indices", "obs/cell_type")
    del file[names[rng.integers(len(names))]]


def _genes(file: h5py.File, rng: np.random.Generator) -> None:
    index = file["var"].attrs["_index"]
    n = len(file["var"][index])
    names = [f"feature{rng.integers(10**9)}" for _ in range(n)]
    _replace(file["var"], index, names)


def _filters(file: h5py.File, rng: np.random.Generator) -> None:
    """Store the values so that they inflate more than they may, or with an unknown filter."""
    if rng.random() < 0.5:
        zeros = np.zeros(4 << 20, dtype=np.int64)
        _replace(file["X"], "data", zeros, chunks=(4 << 20,), compression="gzip")
    else:
        _replace(file["X"], "data", file["X/data"][:], chunks=(8,), fletcher32=True)


_CHANGES = (
    ("shape", _shape, 30),
    ("indptr", _indptr, 45),
    ("indices", _indices, 30),
    ("values", _values, 45),
    ("link", _link, 30),
    ("attribute", _attribute, 20),
    ("unicode", _unicode, 25),
    ("column", _column, 25),
    ("missing", _missing, 15),
    ("genes", _genes, 5),
    ("filters", _filters, 8),
)
