"""Tables as people save them: compressed, in UTF-16, with a decimal comma, with unnamed ids."""

from __future__ import annotations

import codecs
import gzip
import re
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

__all__ = ["as_utf8", "named_ids", "with_decimal_points"]

_PIECE: Final = 4 << 20
_LARGEST: Final = 8 << 30
"""Bytes that a compressed table may unpack to."""
_COMMA: Final = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
_NUMBER: Final = re.compile(r"[-+]?\d+(?:[eE][-+]?\d+)?")
_UNNAMED: Final = ("", "Unnamed: 0", "__index_level_0__", "index", "...1")


@contextmanager
def as_utf8(path: Path) -> Iterator[Path]:
    """Give the path of a table as plain UTF-8: itself, or a copy without gzip and UTF-16.

    Raises
    ------
    InputError
        If it is a workbook, or unpacks to more than 8 GiB, or is damaged.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        msg = f'"{path.name}" is a workbook of a spreadsheet (.xlsx, .xls) or a zip archive.'
        raise InputError(msg, 'Save the sheet as "CSV UTF-8", and give that.')
    is_packed = head.startswith(b"\x1f\x8b")
    if is_packed:
        with gzip.open(path) as packed:
            try:
                start = packed.read(4)
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(path) from error
    else:
        start = head
    is_wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not is_packed and not is_wide:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="faultline-") as folder:
        plain = Path(folder) / "table"
        _unpack(path, plain, is_packed=is_packed, is_wide=is_wide)
        yield plain


def _unpack(path: Path, plain: Path, *, is_packed: bool, is_wide: bool) -> None:
    decoder = codecs.getincrementaldecoder("utf-16")() if is_wide else None
    size = 0
    try:
        with gzip.open(path) if is_packed else path.open("rb") as source, plain.open("wb") as out:
            while piece := source.read(_PIECE):
                size += len(piece)
                if size > _LARGEST:
                    msg = f'"{path.name}" unpacks to more than {_LARGEST >> 30} GiB.'
                    raise InputError(msg, "Give fewer columns, or Parquet.")
                out.write(decoder.decode(piece).encode("utf-8") if decoder else piece)
            if decoder:
                out.write(decoder.decode(b"", final=True).encode("utf-8"))
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(f'"{path.name}" is damaged: it cannot be unpacked.', "Copy the file again.")


def named_ids(names: list[str]) -> list[str]:
    """Return the names of columns, with `cell_id` for the index that a program left unnamed."""
    if "cell_id" in names:
        return names
    for place, name in enumerate(names):
        if name in _UNNAMED and (place == 0 or name == "__index_level_0__"):
            return [*names[:place], "cell_id", *names[place + 1 :]]
    return names


def with_decimal_points(values: pd.Series) -> pd.Series:
    """Return a column of numbers in text with points, where all its fractions have a comma."""
    texts = values.dropna()
    if not len(texts) or not isinstance(texts.iloc[0], str):
        return values
    words = texts.astype(str).str.strip()
    has_comma = words.map(lambda word: _COMMA.fullmatch(word) is not None)
    is_number = has_comma | words.map(lambda word: _NUMBER.fullmatch(word) is not None)
    if not has_comma.any() or not is_number.all():
        return values
    return values.map(lambda word: word.replace(",", ".") if isinstance(word, str) else word)
