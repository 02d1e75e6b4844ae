"""Read tables of counts as GEO offers them: one line a gene, one column a cell, as text.

More than 90 % of such a text is zeros, so only the other numbers are turned into values.
"""

from __future__ import annotations

import gzip
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

    from scipy.sparse import csr_matrix

__all__ = ["read_counts", "reading"]

_BLOCK_BYTES: Final = 4 << 20
_LONGEST_LINE: Final = 64 << 20
_ZERO, _NINE, _TAB, _NEWLINE = (ord(char) for char in "09\t\n")


@contextmanager
def reading(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """Open a file, unpacked where its name ends in .gz.

    Raises
    ------
    InputError
        If it may not be read, or turns out damaged while it is.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f'"{path.name}" is cut off or damaged ({error}).'
        raise InputError(msg, "Download it again from GEO.") from error
    except OSError as error:
        msg = f'"{path.name}" cannot be read ({error.strerror or error}).'
        raise InputError(msg, "Give yourself the right to read it, or copy it again.") from error


def read_counts(path: Path) -> tuple[np.ndarray, list[str], csr_matrix]:
    """Read one counts file.

    Returns
    -------
    Cell ids, gene names, and cells × genes counts (int32).
    """
    from scipy.sparse import csr_matrix

    lines = _line_blocks(path)
    head, *body = next(lines, [b""])
    cells = head.rstrip(b"\r").split(b"\t")[1:]
    cell_ids = np.array([_text(cell, path) for cell in cells], dtype=object)
    if not cells or len(set(cells)) != len(cells) or b"" in cells:
        msg = f'The first line of "{path.name}" does not name each cell once.'
        raise InputError(msg, "It must read Gene, then one cell id per column, split by tabs.")
    first = _text(head.partition(b"\t")[0], path)
    if first != "Gene":
        msg = f'The first line of "{path.name}" begins with "{first[:60]}", not with "Gene".'
        raise InputError(msg, "Use the .dem.txt.gz files of GSE116256 as they are on GEO.")
    genes: list[str] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while True:
        if body:
            parts.append(_parse_block(body, len(cells), len(genes), path))
            genes.extend(_text(line.partition(b"\t")[0], path) for line in body)
        following = next(lines, None)
        if following is None:
            break
        body = following
    if not genes:
        msg = f'"{path.name}" names no gene.'
        raise InputError(msg, "The file may be cut off: download it again.")
    if len(set(genes)) != len(genes) or "" in genes:
        msg = f'"{path.name}" names a gene twice, or not at all.'
        raise InputError(msg, "Download the file again from GEO.")
    rows, columns, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    counts = csr_matrix((values, (columns, rows)), shape=(len(cells), len(genes)), dtype=np.int32)
    return cell_ids, genes, counts


def _line_blocks(path: Path) -> Iterator[list[bytes]]:
    """Yield complete, non-empty lines in blocks of some megabytes."""
    rest = b""
    with reading(path) as file:
        while block := file.read(_BLOCK_BYTES):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > _LONGEST_LINE:
                msg = f'"{path.name}" has a line longer than 64 MiB.'
                raise InputError(msg, "It is not a table of counts.")
            if lines := [line for line in lines if line]:
                yield lines
    if rest:
        yield [rest]


def _parse_block(
    lines: list[bytes], n_cells: int, first_row: int, path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, column, value) of the numbers that are not 0 in some lines of a table.

    A number other than 0 starts with a digit above 0 right after a separator; its column is the
    number of separators before it.
    """
    numbers = b"\n".join(line.partition(b"\t")[2].rstrip(b"\r") for line in lines) + b"\n"
    text = np.frombuffer(numbers, dtype=np.uint8)
    ends_line = text == _NEWLINE
    is_separator = ends_line | (text == _TAB)
    is_digit = (text >= _ZERO) & (text <= _NINE)
    separators = np.flatnonzero(is_separator)
    last = np.flatnonzero(ends_line[separators])
    if not np.array_equal(last, np.arange(1, len(lines) + 1) * n_cells - 1):
        widths = np.diff(last, prepend=-1)
        row = int(np.flatnonzero(widths != n_cells)[0])
        gene = _text(lines[row].partition(b"\t")[0], path)
        msg = (
            f'"{path.name}" has {widths[row]:,} values for gene "{gene}", '
            f"but names {n_cells:,} cells."
        )
        raise InputError(msg, "The file may be cut off: download it again from GEO.")
    after_separator = np.empty(len(text), dtype=bool)
    after_separator[0] = True
    after_separator[1:] = is_separator[:-1]
    is_wrong = ~(is_digit | is_separator) | (after_separator & is_separator)
    # A 0 that starts a longer number is refused as well: it is not how counts are written.
    is_wrong[:-1] |= after_separator[:-1] & (text[:-1] == _ZERO) & is_digit[1:]
    if is_wrong.any():
        row = int(ends_line[: int(np.argmax(is_wrong))].sum())
        gene = _text(lines[row].partition(b"\t")[0], path)
        msg = f'"{path.name}" holds something else than whole counts in the line of gene "{gene}".'
        raise InputError(msg, "Use the .dem.txt.gz files of GSE116256 as they are on GEO.")
    starts = np.flatnonzero(after_separator & (text > _ZERO) & is_digit)
    cell_number = np.searchsorted(separators, starts)
    values = np.zeros(len(starts), dtype=np.int64)
    at, open_numbers = starts.copy(), np.arange(len(starts))
    for _ in range(10):
        values[open_numbers] = values[open_numbers] * 10 + (text[at] - _ZERO)
        at = at + 1
        goes_on = is_digit[at]
        at, open_numbers = at[goes_on], open_numbers[goes_on]
        if not len(at):
            break
    if len(at) or (len(values) and values.max() > np.iinfo(np.int32).max):
        msg = f'"{path.name}" holds a count above 2,147,483,647.'
        raise InputError(msg, "Use the .dem.txt.gz files of GSE116256 as they are on GEO.")
    rows, columns = np.divmod(cell_number, n_cells)
    return (
        (rows + first_row).astype(np.int32),
        columns.astype(np.int32),
        values.astype(np.int32),
    )


def _text(value: bytes, path: Path) -> str:
    try:
        return value.decode("utf-8").strip('" ')
    except UnicodeDecodeError as error:
        msg = f'"{path.name}" is not text.'
        raise InputError(msg, "Download it again from GEO.") from error
