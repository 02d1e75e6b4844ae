"""Find the matrix of counts in a file, or say what the others hold instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.columns import table_length
from backend.data.matrix import COUNTS_PLACES, Matrix, ValueSummary, find_matrix
from backend.data.problems import Refusal, some

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import h5py

    from backend.data.roles import Roles

__all__ = ["find_counts", "note_empty_cells", "read_all", "scale_of"]

_ROWS: Final = 64
_WHOLE_ENOUGH: Final = 0.02
"""How far a ratio may be from a whole number: float32 logarithms bring this error near 1,000."""


def find_counts(
    file: h5py.File,
    roles: Roles | None,
    shape: tuple[int, int],
    *,
    seed: int,
    n_genes_known: Callable[[str], int],
) -> tuple[Matrix, list[str]]:
    """Return the matrix of counts, and notes on the choice.

    Parameters
    ----------
    shape
        Cells and genes of the file.
    seed
        Chooses the values that are looked at.
    n_genes_known
        Returns how many known genes a table of genes ("var" or "raw/var") has.

    Notes
    -----
    The first of `X`, `layers/counts` and `raw/X` that holds counts is taken, but for `raw/X` where
    that holds counts of more known genes: then the first is cut to some genes.
    """
    wanted = roles.counts.replace("raw.X", "raw/X") if roles and roles.counts else None
    is_rounded = bool(roles and roles.is_rounded)
    seen: dict[str, ValueSummary] = {}
    scales: dict[str, str] = {}
    for name in (wanted,) if wanted else COUNTS_PLACES:
        matrix = _matrix(file, name, shape)
        if matrix is None:
            continue
        matrix.is_rounded = is_rounded
        seen[name] = _sampled(matrix, seed)
        scales[name] = seen[name].scale = scale_of(matrix, seen[name])
        if seen[name].problem is None:
            notes = _rounded(matrix, seen[name]) if is_rounded else []
            if wanted or name == "raw/X":
                return matrix, notes
            more = _more_genes(file, shape, seed, n_genes_known)
            return (more[0], [*notes, more[1]]) if more else (matrix, notes)
    if wanted and not seen:
        msg = f'The file has no matrix "{wanted}". Found: {some(_matrix_names(file))}.'
        raise Refusal(msg, "Name one of these.", code="no_counts")
    if not seen:
        msg = "The file has no matrix of values: neither `X`, `layers/counts` nor `raw/X`."
        hint = 'Put raw counts into `X` or `layers["counts"]`.'
        raise Refusal(msg, hint, code="no_counts")
    raise _refusal(seen, scales, _other_counts(file, shape, seed, seen))


def read_all(
    counts: Matrix, progress: Callable[[int, int, str], None] | None
) -> tuple[int, ValueSummary]:
    """Read every value in bounded memory; refuse what are no counts.

    Returns
    -------
    The number of cells without a count, and what was seen.
    """
    summary = ValueSummary(is_rounded=counts.is_rounded)
    done = 0
    for values, positions in counts.slabs():
        if positions is not None:
            counts.check_indices(positions)
        summary.add(values)
        done += len(values)
        if progress is not None:
            progress(done, counts.n_stored, "values")
    summary.scale = scale_of(counts, summary)
    if summary.problem is not None:
        raise _refusal({counts.name: summary}, {counts.name: summary.scale})
    return counts.n_empty_cells, summary


def note_empty_cells(counts: Matrix, notes: list[str]) -> None:
    """Say how many cells have no count: no model can name them."""
    if n := counts.n_empty_cells:
        notes.append(f"{n:,} cells have no counts: they get no call and no score.")


def scale_of(matrix: Matrix, summary: ValueSummary) -> str:
    """Say what values that are not whole are: "log_normalised", "normalised", or "" for neither.

    In a cell that was scaled all values are multiples of the one of a single count; after a
    logarithm their exponentials are. Counts that lost a share of ambient RNA are neither.
    """
    if not summary.n_fractional or summary.n_negative or summary.n_nan or summary.n_infinite:
        return ""
    if summary.furthest < _WHOLE_ENOUGH:
        return ""
    if matrix.kind == "csc":
        return "log_normalised" if summary.largest < 30 else ""
    rows = matrix.rows(0, _ROWS, as_stored=True)
    for scale, undo in (("normalised", lambda v: v), ("log_normalised", np.expm1)):
        whole = []
        for number in range(rows.shape[0]):
            values = rows.data[rows.indptr[number] : rows.indptr[number + 1]].astype(np.float64)
            if len(values) < 5 or (values.max() > 80 and scale == "log_normalised"):
                continue
            plain = undo(values)
            ratios = plain / plain.min()
            near = np.abs(ratios - np.rint(ratios)) < _WHOLE_ENOUGH
            whole.append(near.mean() if ratios.max() > 1.5 else 0.0)
        if whole and float(np.median(whole)) > 0.9:
            return scale
    return ""


def _rounded(matrix: Matrix, summary: ValueSummary) -> list[str]:
    if not summary.n_fractional:
        return []
    return [
        (
            f'The values of "{matrix.name}" were rounded to whole numbers, as asked for: '
            f"{summary.how_far()}."
        )
    ]


def _more_genes(
    file: h5py.File,
    shape: tuple[int, int],
    seed: int,
    n_genes_known: Callable[[str], int],
) -> tuple[Matrix, str] | None:
    """Return `raw/X` where it holds counts of more known genes than `X`, and the note on it."""
    if "raw/X" not in file or "raw/var" not in file:
        return None
    if table_length(file, "raw/var") <= shape[1]:
        return None
    raw = _matrix(file, "raw/X", shape)
    if raw is None or _sampled(raw, seed).problem is not None:
        return None
    own, more = n_genes_known("var"), n_genes_known("raw/var")
    if more <= own:
        return None
    note = (
        f'Counts were taken from "raw.X" with {more:,} known genes: "X" is cut to {own:,} of them, '
        "and models need the others. counts=X takes it all the same."
    )
    return raw, note


def _matrix(file: h5py.File, name: str, shape: tuple[int, int]) -> Matrix | None:
    """Return a matrix; None where the file has none, or only an empty place for one."""
    n_cells, n_genes = shape
    if name == "raw/X" and name in file:
        n_genes = table_length(file, "raw/var")
    if name in file and _is_null(file[name]):
        return None
    return find_matrix(file, name, (n_cells, n_genes))


def _is_null(node: h5py.Group | h5py.Dataset) -> bool:
    """Say whether anndata wrote None here."""
    encoding = node.attrs.get("encoding-type", "")
    return encoding in ("null", b"null") or getattr(node, "shape", ()) is None


def _matrix_names(file: h5py.File) -> list[str]:
    layers = file.get("layers")
    named = [f"layers/{name}" for name in layers] if layers is not None else []
    return [name for name in ("X", "raw/X") if name in file] + named


def _sampled(matrix: Matrix, seed: int) -> ValueSummary:
    summary = ValueSummary(is_rounded=matrix.is_rounded)
    for block in matrix.sample(seed):
        summary.add(block)
    return summary


def _other_counts(
    file: h5py.File, shape: tuple[int, int], seed: int, seen: Mapping[str, ValueSummary]
) -> str | None:
    """Name a layer outside the usual places that holds counts."""
    for name in _matrix_names(file):
        if name not in seen:
            matrix = _matrix(file, name, shape)
            if matrix is not None and _sampled(matrix, seed).problem is None:
                return name
    return None


def _refusal(
    seen: Mapping[str, ValueSummary], scales: Mapping[str, str], other: str | None = None
) -> Refusal:
    """Return what is wrong with the values of the matrices that were looked at."""
    words = {
        "log_normalised": ", so it looks log-normalised",
        "normalised": ", so it looks normalised: each cell is scaled to one total",
    }
    parts = []
    for name, summary in seen.items():
        if (problem := summary.problem) is not None:
            parts.append(f'"{name}" holds {problem[1]}{words.get(scales.get(name, ""), "")}')
    name, first = next(iter(seen.items()))
    assert first.problem is not None
    code = scales.get(name) or first.problem[0]
    if code == "normalised":
        code = "not_counts"
    if other is not None:
        layer = other.removeprefix("layers/")
        hint = (
            f'`layers["{layer}"]` holds whole numbers: rename it to "counts", or choose it with '
            f"counts={other}."
        )
    elif first.problem[0] == "not_counts" and first.n_fractional and not scales.get(name):
        hint = (
            "Programs that take off ambient RNA leave such values, and so do round trips through a "
            "logarithm. Rounding to whole numbers is offered: --round on the command line, "
            '"Round to whole numbers" on the page. Raw counts in `layers["counts"]` are better.'
        )
    else:
        hint = (
            'Raw counts are needed: whole numbers from 0 up. Put them into `layers["counts"]` '
            "and save the file again."
        )
    return Refusal(f"{'; '.join(parts)}.", hint, code=code)
