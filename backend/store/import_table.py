"""Read and check a table of predictions: what is wrong is named by line and column."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from backend.data.names import LONGEST_LABEL, MOST_NAMES, MOST_TYPES
from backend.data.problems import some
from backend.data.roles import map_timepoint
from backend.data.vocabularies import ABSTAINED, names_no_type
from backend.errors import InputError, first_line
from backend.store.table_text import as_utf8, named_ids, with_decimal_points
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PROBA", "read_table", "template"]

_REQUIRED: Final = ("cell_id", "label", "predicted")
PROBA: Final = "proba_"
"""Before the type in the name of a column of probabilities."""
_MISSING: Final = ("", "NA", "NaN", "nan", "null", "None")
_TEXT: Final = (
    "cell_id", "label", "predicted", "model", "donor", "timepoint", "study", "sample",
    "label_source", "genotype",
)  # fmt: skip
_NUMBERS: Final = ("confidence", "umap_x", "umap_y", "n_counts")
_WHOLE: Final = ("fold", "day", "n_genes")
_OF_CELL: Final = (
    "label", "donor", "timepoint", "study", "sample", "label_source", "genotype", "n_counts",
    "day", "n_genes", "umap_x", "umap_y",
)  # fmt: skip
"""Columns that must agree wherever a cell occurs again under another model."""

_TOLERANCE: Final = 0.02
_LARGEST: Final = 1e30
"""Numbers are kept in single precision, which ends at 3e38."""
_MOST_ROWS: Final = 20_000_000
_MOST_MODELS: Final = 100
_MOST_COLUMNS: Final = MOST_TYPES + 1_000
_LARGEST_HEADER: Final = 1 << 20
_PIECE: Final = 4 << 20


def template() -> str:
    """Return an example table as CSV, with every column that has a meaning."""
    rows = [
        "cell_id,label,predicted,confidence,proba_HSC,proba_Mono,donor,timepoint,fold,model,umap_x,umap_y",
        "P1_AAAC,HSC,HSC,0.91,0.91,0.09,P1,Diagnosis,0,my model,1.5,-0.2",
        "P1_AAAG,Mono,HSC,0.62,0.62,0.38,P1,Diagnosis,0,my model,1.1,0.4",
        "P2_TTTC,,Mono,0.80,0.20,0.80,P2,Relapse,1,my model,-3.0,2.2",
    ]
    return "\n".join(rows) + "\n"


def read_table(path: Path) -> pd.DataFrame:
    """Read and check a table of predictions.

    Returns
    -------
    The columns found, text as str or None, numbers as floats. Labels that name no type are None,
    predictions that name none are `ABSTAINED`. The index holds the line of the file
    (the first line of a CSV is its header), or the row from 1 of a Parquet file.

    Raises
    ------
    InputError
        With line and column of the first thing that is wrong.
    """
    is_parquet = _is_parquet(path)
    if is_parquet:
        table = _read_parquet(path)
    else:
        with as_utf8(path) as plain:
            table = _read_csv(plain, path.name)
    where = "row" if is_parquet else "line"
    names = named_ids([str(name).strip() for name in table.columns])
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        msg = f"The table has the column {some(repeated)} more than once."
        raise InputError(msg, "Give every column a name of its own.")
    table.columns = pd.Index(names)
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        msg = f"The table has no column {', '.join(missing)}. Found: {some(names)}."
        raise InputError(msg, "Name the columns as in the template: cell_id, label, predicted, ….")
    if not len(table):
        msg = f'"{path.name}" has a header and no row.'
        raise InputError(msg, "Give one row a cell.")
    known = [n for n in names if n in (*_TEXT, *_NUMBERS, *_WHOLE) or n.startswith(PROBA)]
    table = table[known].copy()
    table.index = pd.RangeIndex(1 if is_parquet else 2, len(table) + (1 if is_parquet else 2))
    probabilities = [name for name in known if name.startswith(PROBA)]
    _refuse_many("proba_ columns", len(probabilities), MOST_TYPES)
    for name in known:
        if name in _TEXT:
            table[name] = _as_text(table[name])
            if name == "label":
                table[name] = table[name].where(~_names_no_type(table[name]), None)
            if name == "predicted":
                table[name] = table[name].where(~_names_no_type(table[name]), ABSTAINED)
            _check_words(table[name], where)
        elif not name.startswith(PROBA):
            table[name] = _as_numbers(table[name], where)
    if probabilities:
        table = _with_numbers(table, probabilities, where)
    _check(table, where)
    return table


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > _MOST_ROWS:
            msg = f"The table has {file.metadata.num_rows:,} rows."
            raise InputError(msg, f"Import at most {_MOST_ROWS:,} rows at once.")
        _refuse_many("columns", file.metadata.num_columns, _MOST_COLUMNS)
        nested = [item.name for item in file.schema_arrow if pa.types.is_nested(item.type)]
        plain = [item.name for item in file.schema_arrow if item.name not in nested]
        # What pandas wrote about its own types is no part of the table, and can be wrong.
        read = file.read(columns=plain, use_pandas_metadata=False)
        return read.replace_schema_metadata(None).to_pandas(ignore_metadata=True)
    except (
        pa.ArrowException,
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        msg = f'"{path.name}" cannot be read as Parquet ({type(error).__name__}).'
        raise InputError(msg, "Write it again, or as CSV.") from error


def _names_no_type(words: pd.Series) -> pd.Series:
    """Say of each word whether it names no type; nothing is one of these words."""
    empty = {word: names_no_type(word) for word in words.dropna().unique()}
    return words.map(lambda word: True if word is None else empty[word]).astype(bool)


def _read_csv(path: Path, name: str) -> pd.DataFrame:
    with path.open("rb") as file:
        head = file.read(_LARGEST_HEADER)
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        msg = f'"{name}" is empty.'
        raise InputError(msg, "Give a CSV table with a header line.")
    if b"\0" in head:
        msg = f'"{name}" is neither text nor Parquet.'
        raise InputError(msg, "Give a CSV or Parquet table; cells with counts go in an .h5ad.")
    lines = head.decode("utf-8", errors="replace").lstrip("\ufeff").splitlines()
    first = next(line for line in lines if line.strip())
    try:
        mark = csv.Sniffer().sniff(first, delimiters=",;\t").delimiter
    except csv.Error:
        mark = ","
    try:
        names = [name.strip() for name in next(csv.reader(io.StringIO(first), delimiter=mark))]
    except csv.Error:
        msg = (
            f'The header of "{name}" holds a name of more than {csv.field_size_limit():,} letters.'
        )
        raise InputError(msg, "Give a CSV table with a header line.") from None
    _refuse_many("columns", len(names), _MOST_COLUMNS)
    _check_utf8(path, name)
    bad: list[str] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        bad.append(
            f"{row.actual_columns} values instead of {row.expected_columns}: {row.text[:60]}"
        )
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=mark, invalid_row_handler=refuse),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=list(_MISSING),
            ),
        )
        frame = table.to_pandas()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = first_line(error)[:200]
        msg = f'"{name}" cannot be read as CSV: {reason}'
        raise InputError(msg, "Write it as UTF-8 text with a header line.") from error
    if bad:
        msg = f"{len(bad):,} lines have another number of columns; the first has {bad[0]}."
        raise InputError(msg, "Quote texts that hold the separator.")
    return frame


def _as_text(values: pd.Series) -> pd.Series:
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    words = [
        None if v is None or v is pd.NA or v != v else _plain(v).strip()
        for v in values.astype(object)
    ]
    return pd.Series([None if w in _MISSING else w for w in words], values.index, dtype=object)


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if is_whole else str(value)  # type: ignore[call-overload]


def _check_utf8(path: Path, name: str) -> None:
    """Refuse a file that is not text, before the reader of CSV meets a line that it cannot name."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        try:
            while piece := file.read(_PIECE):
                decoder.decode(piece)
                done += len(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            msg = f'"{name}" cannot be read as CSV: it is not UTF-8 at byte {done + error.start:,}.'
            raise InputError(msg, "Write it as UTF-8 text with a header line.") from None


def _refuse_many(what: str, n: int, most: int) -> None:
    if n > most:
        msg = f"The table has {n:,} {what}."
        raise InputError(msg, f"Import at most {most:,}.")


def _check_words(words: pd.Series, where: str) -> None:
    """Refuse texts that are too long, and names of which there are too many."""
    name = str(words.name)
    _refuse_first(
        words.str.len() > LONGEST_LABEL, words.str.slice(0, 40), where,
        f"begins a text of more than {LONGEST_LABEL} characters", "Shorten it.",
    )  # fmt: skip
    _refuse_first(
        words.str.contains("\0", regex=False, na=False), words, where, "holds a zero byte",
        "Give plain text.",
    )  # fmt: skip
    if name in ("label", "predicted"):
        _refuse_many(f"different values of `{name}`", words.nunique(), MOST_TYPES)
    elif name in ("donor", "study", "sample"):
        _refuse_many(f"different values of `{name}`", words.nunique(), MOST_NAMES)


def _with_numbers(table: pd.DataFrame, names: list[str], where: str) -> pd.DataFrame:
    """Return the table with columns of numbers, read as one block."""
    raw = table[names].apply(with_decimal_points).to_numpy(dtype=object)
    block = pd.to_numeric(raw.ravel(), errors="coerce").astype(float).reshape(raw.shape)
    is_bad = ~np.isfinite(block) & ~pd.isna(raw)
    if is_bad.any():
        name = names[int(is_bad.any(axis=0).argmax())]
        _as_numbers(table[name], where)
    numbers = pd.DataFrame(block, index=table.index, columns=pd.Index(names))
    return pd.concat([table.drop(columns=names), numbers], axis=1)


def _as_numbers(values: pd.Series, where: str) -> pd.Series:
    numbers = pd.to_numeric(with_decimal_points(values), errors="coerce").astype(float)
    _refuse_first(
        values.notna() & ~np.isfinite(numbers), values, where, "is not a number", "Give numbers."
    )
    return numbers


def _refuse_first(is_bad: pd.Series, values: pd.Series, where: str, what: str, hint: str) -> None:
    """Raise about the first bad value of a column, and say how many there are."""
    if not is_bad.any():
        return
    line = is_bad.index[is_bad.to_numpy()][0]
    n = int(is_bad.sum())
    more = f" ({n:,} such {where}s)" if n > 1 else ""
    shown = values.loc[line]
    shown = "the empty value" if shown is None or shown != shown else f'"{str(shown)[:60]}"'
    msg = f"Column `{values.name}`, {where} {line}: {shown} {what}{more}."
    raise InputError(msg, hint)


def _check(table: pd.DataFrame, where: str) -> None:
    _refuse_first(
        table["cell_id"].isna(), table["cell_id"], where, "names nothing", "Every row needs a cell."
    )
    if "confidence" in table:
        values = table["confidence"]
        _refuse_first(
            ~values.between(0, 1), values, where, "is not between 0 and 1", "Give probabilities."
        )
    for name in _NUMBERS:
        if name in table:
            is_bad = table[name].abs() > _LARGEST
            _refuse_first(is_bad, table[name], where, "is too large", "Give smaller numbers.")
    for name in _WHOLE:
        if name in table:
            values = table[name]
            is_bad = values.notna() & ((values != np.rint(values)) | (values.abs() > 1e6))
            _refuse_first(is_bad, values, where, "is not a whole number", "Give whole numbers.")
    for name in ("n_counts", "n_genes"):
        if name in table:
            is_bad = table[name] < 0
            _refuse_first(is_bad, table[name], where, "is below zero", "Give counts.")
    if "fold" in table:
        _refuse_first(
            ~(table["fold"] >= 0), table["fold"], where, "is no fold", "Folds are numbers from 0."
        )
    if "timepoint" in table:
        known = table["timepoint"].map(lambda v: v is None or map_timepoint(v) is not None)
        _refuse_first(
            ~known.astype(bool), table["timepoint"], where, "is not a known timepoint",
            f"Use {', '.join(TIMEPOINTS)}, or leave it empty.",
        )  # fmt: skip
    _check_proba(table, where)
    _check_cells(table, where)


def _check_proba(table: pd.DataFrame, where: str) -> None:
    names = [name for name in table if str(name).startswith(PROBA)]
    if not names:
        return
    for name in names:
        _refuse_first(
            ~table[name].between(0, 1), table[name], where, "is not between 0 and 1",
            "Give probabilities; every proba_ column in every row.",
        )  # fmt: skip
    types = [name.removeprefix(PROBA) for name in names]
    if "" in types:
        msg = f"A column `{PROBA}` names no type."
        raise InputError(msg, f"Write the type after `{PROBA}`.")
    is_called = table["predicted"] != ABSTAINED
    strange = is_called & ~table["predicted"].isin(types)
    _refuse_first(
        strange, table["predicted"], where, "has no proba_ column",
        "Give a proba_ column for every type that is predicted, or none at all.",
    )  # fmt: skip
    sums = table[names].sum(axis=1).rename("proba_…")
    _refuse_first(
        (sums - 1).abs() > _TOLERANCE, sums.round(3), where, "is the sum of the probabilities",
        "The probabilities of a cell must sum to 1.",
    )  # fmt: skip
    best = table[names].to_numpy().max(axis=1)
    own = table[names].to_numpy()[
        np.arange(len(table)), [types.index(t) if t in types else 0 for t in table["predicted"]]
    ]
    is_lower = pd.Series(own < best - 1e-6, table.index) & is_called
    _refuse_first(
        is_lower, table["predicted"], where, "is not the most probable type of its row",
        "Predict the type of the highest probability, or leave out the proba_ columns.",
    )  # fmt: skip


def _check_cells(table: pd.DataFrame, where: str) -> None:
    keys = ["cell_id", *(["model"] if "model" in table else [])]
    _refuse_first(
        table.duplicated(keys), table["cell_id"], where, "occurs twice",
        "Give one row a cell and model; put the sample into the ids of cells.",
    )  # fmt: skip
    if "model" not in table:
        return
    if (n := table["model"].nunique(dropna=False)) > _MOST_MODELS:
        msg = f"The column `model` has {n:,} values."
        raise InputError(msg, f"Import at most {_MOST_MODELS} models at once.")
    first = table.drop_duplicates("cell_id").set_index("cell_id")
    for name in _OF_CELL:
        if name in table:
            other = table["cell_id"].map(first[name])
            same = (table[name] == other) | (table[name].isna() & other.isna())
            _refuse_first(
                ~same, table[name], where, "differs from an earlier row of the same cell",
                "A cell has one label, donor and place, whatever the model.",
            )  # fmt: skip
