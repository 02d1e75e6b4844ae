"""Tokens on disk: made once per dataset and vocabulary, then read through the memory map.

A folder of tokens is complete or absent. Two processes that start together both write, and the
second takes what the first left.
"""

from __future__ import annotations

import json
import mmap
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pandas as pd
from numpy.lib import format as npy

from backend import __version__
from backend.errors import InputError
from backend.files import published
from backend.models.base import TokenBatch, TokenStore
from backend.types import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from anndata import AnnData

    from backend.models.base import FoundationModel

__all__ = [
    "AnyTokens",
    "MappedTokens",
    "TokenCache",
    "Tokens",
    "chunks_of",
    "lengths_of",
    "tokens_key",
]

FORMAT: Final = 1
CHUNK: Final = 4096
_HEAD: Final = "tokens.json"
_CELLS_PER_RELEASE: Final = 8
"""After so many cells the pages read leave this process; the system keeps them cached.

A page that is touched may bring a megabyte of its neighbours along."""


class Tokens(Protocol):
    """What training needs of tokens, wherever they lie."""

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each cell."""

    def __len__(self) -> int:
        """Return the number of cells."""

    def take(self, rows: np.ndarray) -> TokenBatch:
        """Return the tokens of some cells, in the order of `rows`."""


AnyTokens = Tokens | TokenStore


def chunks_of(adata: AnnData, size: int = CHUNK) -> Iterator[AnnData]:
    """Cut cells in memory into chunks."""
    for start in range(0, adata.n_obs, size):
        yield adata[start : start + size]


def lengths_of(tokens: AnyTokens) -> np.ndarray:
    """Return the (n_cells,) number of tokens of each cell."""
    return np.diff(tokens.indptr) if isinstance(tokens, TokenStore) else tokens.lengths


def tokens_key(
    dataset_id: str, model: FoundationModel, *, seed: int, draw: int
) -> tuple[str, dict[str, Any]]:
    """Return the name of the folder of some tokens, and what it stands for.

    All that tokens depend on is hashed: the cells, the model's vocabulary, panel and sizes
    (`state`), and the random numbers where the model draws any.
    """
    # Medians of a vocabulary may be missing (NaN), which canonical JSON refuses.
    state = json.dumps(model.state(), sort_keys=True)
    about: dict[str, Any] = {
        "format": FORMAT,
        "faultline": __version__,
        "dataset_id": dataset_id,
        "model": model.key,
        "state_sha256": sha256_of(state),
        "random": [seed, draw] if model.has_random_tokens else None,
    }
    return sha256_of(about)[:32], about


@dataclass(frozen=True, slots=True)
class _Map:
    """One .npy file as an array whose pages are read when they are needed."""

    array: np.ndarray
    pages: mmap.mmap | None

    @classmethod
    def open(cls, path: Path) -> _Map:
        with path.open("rb") as file:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            if not shape[0]:
                return cls(np.empty(shape, dtype), None)
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            array = np.frombuffer(pages, dtype, count=shape[0], offset=file.tell())
        return cls(array, pages)

    def release(self) -> None:
        # Absent on Windows, where the system decides alone.
        if self.pages is not None and hasattr(self.pages, "madvise"):
            self.pages.madvise(mmap.MADV_DONTNEED)


class MappedTokens:
    """Some cells of a folder of tokens, in any order.

    Memory is that of a few numbers a cell: tokens are read when a batch takes them.
    """

    def __init__(self, folder: Path, rows: np.ndarray | None = None) -> None:
        about = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
        self._ids, self._values = _Map.open(folder / "ids.npy"), _Map.open(folder / "values.npy")
        indptr = np.load(folder / "indptr.npy", allow_pickle=False)
        found = (len(indptr) - 1, len(self._ids.array), len(self._values.array))
        if found != (about["n_cells"], about["n_tokens"], about["n_tokens"]):
            msg = f"{folder.name} holds {found[0]:,} cells, but names {about['n_cells']:,}."
            raise ValueError(msg)
        extra = {
            name: np.load(folder / f"extra_{name}.npy", allow_pickle=False)
            for name in about["extra"]
        }
        self._store = TokenStore(indptr, self._ids.array, self._values.array, extra)
        self._rows = np.arange(len(self._store)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each cell."""
        indptr = self._store.indptr
        lengths: np.ndarray = indptr[self._rows + 1] - indptr[self._rows]
        return lengths

    def take(self, rows: np.ndarray) -> TokenBatch:
        """Return the tokens of some cells, in the order of `rows`."""
        own = self._rows[rows]
        ids: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for start in range(0, len(own), _CELLS_PER_RELEASE):
            part = self._store.take(own[start : start + _CELLS_PER_RELEASE])
            ids += [of_cell.copy() for of_cell in part.ids]
            values += [of_cell.copy() for of_cell in part.values]  # noqa: PD011
            self._ids.release()
            self._values.release()
        extra = {name: array[own] for name, array in self._store.extra.items()}
        return TokenBatch(ids=ids, values=values, extra=extra)


class TokenCache:
    """The tokens of one dataset, made on disk when a model first asks for them.

    Parameters
    ----------
    folder
        Holds a folder for each vocabulary; made when it is needed.
    dataset_id
        Of the cells.
    cell_ids, chunks
        Every cell of the dataset, and a function that gives them in chunks in this order: cells
        in memory (`chunks_of`) or a file (`backend.data.read_chunks`).
    """

    def __init__(
        self,
        folder: Path,
        dataset_id: str,
        cell_ids: Sequence[str] | pd.Index,
        chunks: Callable[[], Iterable[AnnData]],
    ) -> None:
        self.folder, self.dataset_id = folder, dataset_id
        self._index = pd.Index(cell_ids)
        self._chunks = chunks

    @classmethod
    def of(cls, folder: Path, dataset_id: str, adata: AnnData) -> TokenCache:
        """Return the cache of a dataset in memory."""
        return cls(folder, dataset_id, adata.obs_names, lambda: chunks_of(adata))

    def tokens(
        self,
        model: FoundationModel,
        cell_ids: Sequence[str] | pd.Index,
        *,
        seed: int,
        draw: int = 0,
    ) -> MappedTokens:
        """Return the tokens of some cells of the dataset, in the order of `cell_ids`.

        Raises
        ------
        InputError
            If a cell is not in the dataset.
        JobFailed
            If there is no room on the disk; nothing is left behind.
        """
        asked = pd.Index(cell_ids)
        if asked.equals(self._index):
            # Without the table that looking up needs.
            rows = np.arange(len(asked))
        else:
            rows = self._index.get_indexer(asked)
        if (rows < 0).any():
            msg = f"{int((rows < 0).sum()):,} of {len(rows):,} cells are not in the dataset."
            raise InputError(msg, "Take cells of the dataset that the tokens were made from.")
        name, about = tokens_key(self.dataset_id, model, seed=seed, draw=draw)
        target = self.folder / name
        if not _is_complete(target):
            options = {"draw": draw} if model.has_random_tokens else {}
            made = (model.tokenise([each], seed=seed, **options) for each in self._chunks())
            self._write(target, made, about)
        return MappedTokens(target, rows)

    def _write(self, target: Path, stores: Iterable[TokenStore], about: Mapping[str, Any]) -> None:
        what = "the tokens of the cells"
        with published(target, keep=_is_complete, what=what) as folder:
            n_cells = _write_arrays(folder, stores, about)
            if n_cells != len(self._index):
                msg = f"{n_cells:,} cells were read, but the dataset has {len(self._index):,}."
                raise InputError(msg, "Use the dataset that the run names.")


def _is_complete(folder: Path) -> bool:
    try:
        MappedTokens(folder)
    except (OSError, ValueError, KeyError, IndexError):
        return False
    return True


class _Column:
    """A .npy file that grows; the first axis counts its rows."""

    def __init__(self, file: BinaryIO, like: np.ndarray) -> None:
        self._file, self._dtype, self._tail = file, like.dtype, like.shape[1:]
        self._n = 0
        self._write_header()

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first number of a shape to grow.
        head = {
            "descr": self._dtype.str,
            "fortran_order": False,
            "shape": (self._n, *self._tail),
        }
        npy.write_array_header_1_0(self._file, head)

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._n += len(values)

    def finish(self) -> int:
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._n


def _write_arrays(folder: Path, stores: Iterable[TokenStore], about: Mapping[str, Any]) -> int:
    """Write tokens as they come, and return the number of cells."""
    columns: dict[str, _Column] = {}
    n_tokens = 0
    with ExitStack() as files:

        def append(name: str, values: np.ndarray) -> None:
            if name not in columns:
                file = files.enter_context((folder / f"{name}.npy").open("wb"))
                columns[name] = _Column(file, values)
            columns[name].append(values)

        append("indptr", np.zeros(1, np.int64))
        append("ids", np.empty(0, np.int32))
        append("values", np.empty(0, np.float32))
        for store in stores:
            append("ids", store.ids)
            append("values", store.values)
            append("indptr", store.indptr[1:] + n_tokens)
            for name, values in store.extra.items():
                append(f"extra_{name}", values)
            n_tokens += len(store.ids)
        lengths = {name: column.finish() for name, column in columns.items()}
    n_cells = lengths["indptr"] - 1
    extra = [name.removeprefix("extra_") for name in columns if name.startswith("extra_")]
    head = {**about, "n_cells": n_cells, "n_tokens": n_tokens, "extra": extra}
    (folder / _HEAD).write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    return n_cells
