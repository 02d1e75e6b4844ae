"""Read columns of `obs` and `var` from an open `.h5ad`, without pickles and without surprises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h5py
import numpy as np
import pandas as pd

from backend.data.problems import Refusal, some

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["column_names", "index_slices", "read_column", "read_index", "table_length"]

_SLICE: Final = 131_072
_OLD_FILE: Final = "The file was written by an old anndata: open it with anndata and save it again."


def table_length(file: h5py.File, table: str) -> int:
    """Return the number of rows of `obs`, `var` or `raw/var`.

    Raises
    ------
    Refusal
        If the table is missing or has no index.
    """
    return int(_index(file, table).shape[0])


def column_names(file: h5py.File, table: str) -> list[str]:
    """Return the columns of a table, without its index."""
    group = _group(file, table)
    hidden = {_index_name(group), "__categories"}
    return [name for name in group if name not in hidden]


def index_slices(file: h5py.File, table: str) -> Iterator[np.ndarray]:
    """Yield the row names of a table in pieces, as an object array of str."""
    index = _index(file, table)
    for start in range(0, index.shape[0], _SLICE):
        yield _strings(index, start, start + _SLICE, f"{table} names")


def read_index(file: h5py.File, table: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Read row names as an object array of str."""
    index = _index(file, table)
    return _strings(index, start, index.shape[0] if stop is None else stop, f"{table} names")


def read_column(file: h5py.File, table: str, name: str) -> pd.Series:
    """Read a column: categorical for text, a nullable or plain number type otherwise.

    Raises
    ------
    Refusal
        If the column is missing, has another length than its table, or is stored in a way that
        is not known.
    """
    group = _group(file, table)
    if name not in group or name not in column_names(file, table):
        msg = f'`{table}` has no column "{name}". Found: {some(column_names(file, table))}.'
        raise Refusal(msg, "Name a column that the file has.", code="roles")
    place = f"{table}/{name}"
    node = group[name]
    n = table_length(file, table)
    if isinstance(node, h5py.Group):
        values = _from_group(node, place, n)
    else:
        _check_length(node, n, place)
        old = group.get("__categories")
        if isinstance(old, h5py.Group) and name in old:
            values = _categorical(node, old[name], place)
        elif h5py.check_string_dtype(node.dtype) is not None or node.dtype.kind == "S":
            values = _text_as_categories(node, n, place)
        elif node.dtype.kind in "iufb":
            values = node[:]
        else:
            msg = f'The column "{place}" holds values of type {node.dtype}.'
            raise Refusal(
                msg, "Turn it into text or numbers, and save the file again.", code="column"
            )
    return pd.Series(values, name=name)


def _text_as_categories(node: h5py.Dataset, n: int, place: str) -> pd.Categorical:
    """Read text in pieces, so that memory grows with the number of different words only."""
    known: dict[str, int] = {}
    codes = np.empty(n, dtype=np.int32)
    for start in range(0, n, _SLICE):
        numbers, words = pd.factorize(_strings(node, start, min(n, start + _SLICE), place))
        places = np.array([known.setdefault(word, len(known)) for word in words], dtype=np.int32)
        codes[start : start + len(numbers)] = places[numbers]
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(known), dtype=object))


def _from_group(node: h5py.Group, place: str, n: int) -> object:
    parts = {part: node.get(part) for part in ("codes", "categories", "values", "mask")}
    if isinstance(parts["categories"], h5py.Group):
        # anndata 0.12 may store categories as nullable strings: a group of values and mask.
        parts["categories"] = parts["categories"].get("values")
    if isinstance(parts["codes"], h5py.Dataset) and isinstance(parts["categories"], h5py.Dataset):
        _check_length(parts["codes"], n, place)
        return _categorical(parts["codes"], parts["categories"], place)
    if isinstance(parts["values"], h5py.Dataset) and isinstance(parts["mask"], h5py.Dataset):
        for part in ("values", "mask"):
            _check_length(parts[part], n, place)
        mask = parts["mask"][:].astype(bool)
        if h5py.check_string_dtype(parts["values"].dtype) is not None:
            text = _text_as_categories(parts["values"], n, place)
            codes = np.where(mask, -1, text.codes)
            return pd.Categorical.from_codes(codes, categories=text.categories)
        values = parts["values"][:]
        if values.dtype.kind == "b":
            return pd.arrays.BooleanArray(values, mask)
        if values.dtype.kind in "iu":
            return pd.arrays.IntegerArray(values, mask)
        if values.dtype.kind == "f":
            return np.where(mask, np.nan, values)
    msg = f'The column "{place}" is stored in a way that is not known.'
    raise Refusal(msg, "Turn it into text or numbers, and save the file again.", code="column")


def _categorical(codes: h5py.Dataset, categories: h5py.Dataset, place: str) -> pd.Categorical:
    if codes.dtype.kind not in "iu" or categories.ndim != 1:
        msg = f'The categories of "{place}" are damaged.'
        raise Refusal(msg, "Write the file again with anndata.", code="column")
    if h5py.check_string_dtype(categories.dtype) is not None or categories.dtype.kind == "S":
        names = _strings(categories, 0, len(categories), place)
    else:
        names = np.array([_number_as_text(value) for value in categories[:]], dtype=object)
    numbers = codes[:].astype(np.int64)
    if len(numbers) and (numbers.max() >= len(names) or numbers.min() < -1):
        msg = f'The column "{place}" points to categories that it does not have.'
        raise Refusal(msg, "The file is damaged; write it again with anndata.", code="column")
    if len(set(names)) != len(names):
        lookup = pd.Index(names).unique()
        numbers = np.where(numbers < 0, -1, lookup.get_indexer(names)[numbers])
        names = lookup.to_numpy()
    return pd.Categorical.from_codes(numbers, categories=pd.Index(names, dtype=object))


def _number_as_text(value: object) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _check_length(node: h5py.Dataset, n: int, place: str) -> None:
    if node.ndim != 1 or node.shape[0] != n:
        msg = f'The column "{place}" has shape {node.shape}, but there are {n:,} rows.'
        raise Refusal(msg, "The file is damaged; write it again with anndata.", code="shape")


def _strings(node: h5py.Dataset, start: int, stop: int, place: str) -> np.ndarray:
    """Read text; numbers are written out, because some files number their cells."""
    if node.dtype.kind in "iuf":
        return np.array([_number_as_text(value) for value in node[start:stop]], dtype=object)
    if h5py.check_string_dtype(node.dtype) is None and node.dtype.kind != "S":
        msg = f'"{place}" holds values of type {node.dtype} instead of text.'
        raise Refusal(msg, "Turn it into text, and save the file again.", code="column")
    try:
        words = node[start:stop]
        return np.array([word.decode("utf-8") for word in words], dtype=object)
    except UnicodeDecodeError as error:
        msg = f'"{place}" is not valid UTF-8 text.'
        raise Refusal(
            msg, "Write the names as UTF-8, and save the file again.", code="column"
        ) from error


def _group(file: h5py.File, table: str) -> h5py.Group:
    if table not in file:
        msg = f"The file has no `{table}`. Found: {some(file)}."
        raise Refusal(
            msg, "Give an .h5ad file as written by anndata or scanpy.", code="not_anndata"
        )
    group = file[table]
    if not isinstance(group, h5py.Group):
        msg = f"`{table}` is stored as one block."
        raise Refusal(msg, _OLD_FILE, code="not_anndata")
    return group


def _index_name(group: h5py.Group) -> str:
    stated = group.attrs.get("_index", "_index")
    stated = stated.decode("utf-8", "replace") if isinstance(stated, bytes) else str(stated)
    if stated in group:
        return stated
    return next((name for name in ("_index", "index") if name in group), stated)


def _index(file: h5py.File, table: str) -> h5py.Dataset:
    group = _group(file, table)
    name = _index_name(group)
    node = group.get(name)
    # anndata may store an index of nullable strings as a group of values and mask.
    if isinstance(node, h5py.Group) and isinstance(node.get("values"), h5py.Dataset):
        node = node["values"]
    if not isinstance(node, h5py.Dataset) or node.ndim != 1:
        msg = f'`{table}` has no index (looked for "{name}").'
        raise Refusal(msg, "Write the file again with anndata.", code="not_anndata")
    return node
