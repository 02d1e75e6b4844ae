"""Check whether a file can be used: quickly by samples of it, or fully by reading every value.

Both checks give the same messages. The quick one reads the structure, the types, all row starts,
all cell ids and 64 blocks of values; the full one reads all values as well, in bounded memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.columns import column_names, index_slices, read_column, read_index, table_length
from backend.data.genes import GeneMap, gene_table, map_genes, strip_version
from backend.data.matrix import COUNTS_PLACES, Matrix, ValueSummary, find_matrix
from backend.data.problems import Problem, Refusal, some
from backend.data.roles import PURPOSES, Roles, guess_roles
from backend.data.safety import damage_refused, open_safely
from backend.data.writer import ABOUT_FIELDS
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    import h5py

__all__ = ["CheckReport", "Examined", "check", "examine"]

_SYMBOL_COLUMNS: Final = (
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "feature_name",
    "symbol",
    "hgnc_symbol",
)
_ENSEMBL_COLUMNS: Final = (
    "ensembl",
    "ensembl_id",
    "ensembl_ids",
    "gene_ids",
    "gene_id",
    "feature_id",
)
_LONGEST_FACT: Final = 1_000
_ROLE_WORDS: Final = {"cell_type": "the cell type", "donor": "the donor"}


@dataclass(slots=True)
class Examined:
    """What is known of a file before its bulk is read."""

    n_cells: int
    n_genes_in_file: int
    counts: Matrix
    genes: GeneMap = field(repr=False)
    roles: Roles
    about: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The verdict on a file.

    problems : why it is refused, worst first; empty when it is usable
    notes : what a user should know, though it is usable
    facts : counts of cells, genes, donors and so on, as far as they could be read
    """

    path: Path
    mode: str
    purpose: str
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    facts: dict[str, Any]
    seconds: float

    @property
    def is_usable(self) -> bool:
        """Whether nothing speaks against the file."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `--json`."""
        return {
            "file": self.path.name,
            "check": self.mode,
            "purpose": self.purpose,
            "usable": self.is_usable,
            "problems": [problem.to_json() for problem in self.problems],
            "notes": list(self.notes),
            "facts": self.facts,
            "seconds": round(self.seconds, 3),
        }


def check(
    path: str | Path,
    *,
    quick: bool = False,
    roles: Roles | None = None,
    purpose: str = "train",
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    inspect: Callable[[h5py.File, Examined], None] | None = None,
) -> CheckReport:
    """Say whether a file can be used, and if not, all that is wrong with it.

    Parameters
    ----------
    path
        The `.h5ad`.
    quick
        Look at 64 blocks of values instead of all.
    roles
        Column of each role; guessed when None.
    purpose
        "train" needs a cell type and a donor, "evaluate" a cell type, "predict" nothing.
    seed
        Chooses the blocks.
    progress
        Called with (values read, values in all, what is done).
    inspect
        Called with the opened file and what was found in it, when it is usable so far. A `Refusal`
        that it raises counts as a problem.
    """
    path, started = Path(path), time.perf_counter()
    problems: list[Problem] = []
    notes: list[str] = []
    facts: dict[str, Any] = {}
    try:
        with open_safely(path) as file, damage_refused(path.name):
            found = examine(path, file, roles, purpose=purpose, seed=seed, problems=problems)
            if found is not None:
                facts, notes = _facts(file, found), found.notes
                if inspect is not None:
                    inspect(file, found)
                if not quick:
                    _read_all(found.counts, progress)
    except Refusal as refusal:
        problems.append(refusal.problem)
    return CheckReport(
        path=path,
        mode="quick" if quick else "full",
        purpose=purpose,
        problems=tuple(problems),
        notes=tuple(notes),
        facts=facts,
        seconds=time.perf_counter() - started,
    )


def examine(
    path: Path,
    file: h5py.File,
    roles: Roles | None,
    *,
    purpose: str,
    seed: int,
    problems: list[Problem] | None = None,
    any_genes: bool = False,
) -> Examined | None:
    """Check all but the bulk of the values of an opened file.

    Parameters
    ----------
    any_genes
        See `map_genes`.
    problems
        Collects every reason; with None the first one is raised.

    Returns
    -------
    None when `problems` got an entry.
    """
    if purpose not in PURPOSES:
        msg = f'Unknown purpose "{purpose}".'
        raise Refusal(msg, f"Choose one of: {', '.join(PURPOSES)}.", code="argument")
    n_cells, n_genes = table_length(file, "obs"), table_length(file, "var")
    if not n_cells or not n_genes:
        msg = f'"{path.name}" holds {n_cells:,} cells and {n_genes:,} genes.'
        raise Refusal(msg, "Give a file with at least one cell and one gene.", code="empty")
    found: dict[str, Any] = {}
    steps: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("ids", lambda: _check_ids(file, n_cells)),
        ("orientation", lambda: _check_orientation(file)),
        ("roles", lambda: _find_roles(file, roles, purpose)),
        ("counts", lambda: _find_counts(file, roles, n_cells, n_genes, seed)),
        ("genes", lambda: _map_file_genes(file, found["counts"], any_genes=any_genes)),
    )
    failed: set[str] = set()
    for name, step in steps:
        # Genes of a transposed file, or of an unknown matrix, would only repeat the reason.
        if name == "genes" and failed & {"orientation", "counts"}:
            continue
        try:
            found[name] = step()
        except Refusal as refusal:
            if problems is None:
                raise
            problems.append(refusal.problem)
            failed.add(name)
    if failed:
        return None
    genes: GeneMap = found["genes"]
    return Examined(
        n_cells=n_cells,
        n_genes_in_file=len(genes.target),
        counts=found["counts"],
        genes=genes,
        roles=found["roles"],
        about=_about(path, file),
        notes=_gene_notes(genes),
    )


def _check_ids(file: h5py.File, n_cells: int) -> None:
    """Refuse empty and repeated cell ids; memory is 8 bytes a cell."""
    hashes = np.empty(n_cells, dtype=np.uint64)
    start = 0
    for ids in index_slices(file, "obs"):
        empty = ids == ""
        if empty.any():
            msg = f"{int(empty.sum()):,} cells have an empty id."
            raise Refusal(msg, "Give every cell a name of its own in `obs_names`.", code="empty_id")
        hashes[start : start + len(ids)] = pd.util.hash_array(ids, categorize=False)
        start += len(ids)
    hashes.sort()
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(suspects):
        return
    # Equal hashes are nearly always equal ids; the ids themselves decide.
    seen: set[str] = set()
    repeated: set[str] = set()
    for ids in index_slices(file, "obs"):
        for name in ids[np.isin(pd.util.hash_array(ids, categorize=False), suspects)]:
            (repeated if name in seen else seen).add(name)
    if repeated:
        msg = f"{len(repeated):,} cell ids occur more than once: {some(repeated)}."
        hint = "Put the sample into each id, or call adata.obs_names_make_unique()."
        raise Refusal(msg, hint, code="repeated_id")


def _share_known(names: np.ndarray) -> float:
    table = gene_table()
    known = sum(
        name in table.ensembl_of
        or name in table.current_of
        or strip_version(name) in table.symbol_of
        for name in names
    )
    return known / max(1, len(names))


def _check_orientation(file: h5py.File) -> None:
    """Refuse a file whose cells are named like genes and whose genes are not."""
    cells = read_index(file, "obs", 0, 2_000)
    if _share_known(cells) > 0.5 and _share_known(read_index(file, "var", 0, 2_000)) < 0.05:
        msg = f"The rows are genes and the columns are cells (rows: {some(cells[:5])})."
        hint = "Transpose the data: adata = adata.T, then save it again."
        raise Refusal(msg, hint, code="orientation")


def _find_roles(file: h5py.File, roles: Roles | None, purpose: str) -> Roles:
    columns = column_names(file, "obs")
    given = roles or Roles()
    found = given.columns() if given.columns() else guess_roles(columns).columns()
    strange = sorted(set(found.values()) - set(columns))
    if strange:
        msg = f"`obs` has no column {some(strange)}. Found: {some(columns) or 'no columns'}."
        raise Refusal(msg, "Name columns that the file has.", code="roles")
    missing = [role for role in PURPOSES[purpose] if role not in found]
    if missing:
        words = " or ".join(_ROLE_WORDS[role] for role in missing)
        msg = f"`obs` has no column for {words}. Found: {some(columns) or 'no columns'}."
        hint = f"Rename one to {' or '.join(missing)}, or say which column it is."
        raise Refusal(msg, hint, code="roles")
    for role in PURPOSES[purpose]:
        if not _n_values(file, found[role]):
            msg = f'The column "{found[role]}" for {_ROLE_WORDS[role]} is empty.'
            raise Refusal(msg, "Fill it, or choose another column.", code="roles")
    return Roles(**found, counts=given.counts, timepoints=given.timepoints)


def _n_values(file: h5py.File, column: str) -> int:
    return int(read_column(file, "obs", column).nunique())


def _find_counts(
    file: h5py.File, roles: Roles | None, n_cells: int, n_genes: int, seed: int
) -> Matrix:
    """Return the first matrix with counts, in the order of the data contract."""
    wanted = roles.counts.replace("raw.X", "raw/X") if roles and roles.counts else None
    seen: dict[str, ValueSummary] = {}
    for name in (wanted,) if wanted else COUNTS_PLACES:
        matrix = _matrix(file, name, n_cells, n_genes)
        if matrix is None:
            continue
        seen[name] = _sampled(matrix, seed)
        if seen[name].problem is None:
            return matrix
    if wanted and not seen:
        msg = f'The file has no matrix "{wanted}". Found: {some(_matrix_names(file))}.'
        raise Refusal(msg, "Name one of these.", code="no_counts")
    if not seen:
        msg = "The file has no matrix of values: neither `X`, `layers/counts` nor `raw/X`."
        hint = 'Put raw counts into `X` or `layers["counts"]`.'
        raise Refusal(msg, hint, code="no_counts")
    _refuse_values(seen, _other_counts(file, n_cells, n_genes, seed, seen))
    raise AssertionError


def _matrix(file: h5py.File, name: str, n_cells: int, n_genes: int) -> Matrix | None:
    if name == "raw/X" and name in file:
        n_genes = table_length(file, "raw/var")
    return find_matrix(file, name, (n_cells, n_genes))


def _matrix_names(file: h5py.File) -> list[str]:
    layers = file.get("layers")
    named = [f"layers/{name}" for name in layers] if layers is not None else []
    return [name for name in ("X", "raw/X") if name in file] + named


def _sampled(matrix: Matrix, seed: int) -> ValueSummary:
    summary = ValueSummary()
    for block in matrix.sample(seed):
        summary.add(block)
    return summary


def _other_counts(
    file: h5py.File, n_cells: int, n_genes: int, seed: int, seen: dict[str, ValueSummary]
) -> str | None:
    """Name a layer outside the usual places that holds counts."""
    for name in _matrix_names(file):
        if name not in seen:
            matrix = _matrix(file, name, n_cells, n_genes)
            if matrix is not None and _sampled(matrix, seed).problem is None:
                return name
    return None


def _refuse_values(seen: dict[str, ValueSummary], other: str | None = None) -> None:
    """Raise what is wrong with the values of the matrices that were looked at."""
    parts = []
    for name, summary in seen.items():
        if (problem := summary.problem) is not None:
            log = ", so it looks log-normalised" if summary.looks_log_normalised else ""
            parts.append(f'"{name}" holds {problem[1]}{log}')
    first = next(iter(seen.values()))
    assert first.problem is not None
    code = "log_normalised" if first.looks_log_normalised else first.problem[0]
    if other is not None:
        layer = other.removeprefix("layers/")
        hint = f'`layers["{layer}"]` holds whole numbers: rename it to "counts", or choose it.'
    else:
        hint = (
            'Raw counts are needed: whole numbers from 0 up. Put them into `layers["counts"]` '
            "and save the file again."
        )
    msg = f"{'; '.join(parts)}."
    raise Refusal(msg, hint, code=code)


def _map_file_genes(file: h5py.File, counts: Matrix, *, any_genes: bool) -> GeneMap:
    """Map genes by the index of `var`, or by a column of it where that knows more."""
    table = "raw/var" if counts.name == "raw/X" else "var"
    names = read_index(file, table)
    columns = column_names(file, table)
    ids = _text_column(file, table, _ENSEMBL_COLUMNS, columns)
    symbols = _text_column(file, table, _SYMBOL_COLUMNS, columns)
    if ids is not None and not any(strip_version(name) for name in ids[:200]):
        ids = None
    if symbols is not None:
        index_is_ids = bool(len(names)) and strip_version(names[0]) is not None
        if index_is_ids:
            ids = names if ids is None else ids
        if index_is_ids or _share_known(names) < _share_known(symbols):
            names = np.where(symbols == "", names, symbols)
    return map_genes(list(names), None if ids is None else list(ids), any_genes=any_genes)


def _text_column(
    file: h5py.File, table: str, wanted: tuple[str, ...], columns: list[str]
) -> np.ndarray | None:
    name = next((name for name in wanted if name in columns), None)
    if name is None:
        return None
    values = read_column(file, table, name).astype(object)
    return values.where(values.notna(), "").astype(str).to_numpy(dtype=object)


def _gene_notes(genes: GeneMap) -> list[str]:
    n = len(genes.target)
    notes = []
    if unknown := n - genes.n_matched:
        share = unknown / n
        notes.append(
            f"{unknown:,} of {n:,} genes ({share:.0%}) are not in GENCODE v44 and keep their "
            f"names ({some(genes.unmatched)} …)."
        )
    if genes.n_renamed:
        notes.append(f"{genes.n_renamed:,} genes got their current symbol.")
    if genes.n_summed:
        notes.append(f"{genes.n_summed:,} genes were summed with another of the same symbol.")
    return notes


def _about(path: Path, file: h5py.File) -> dict[str, Any]:
    """Read what the file says about itself: short text and one truth value."""
    import h5py

    about: dict[str, Any] = dict.fromkeys(ABOUT_FIELDS)
    about |= {"name": path.stem, "simulated": False, "source": f"file {path.name}"}
    group = file.get("uns/faultline")
    if not isinstance(group, h5py.Group):
        return about
    for name in ABOUT_FIELDS:
        node = group.get(name)
        if not isinstance(node, h5py.Dataset) or node.shape != ():
            continue
        if name == "simulated":
            about[name] = bool(node[()]) if node.dtype.kind in "biu" else False
        elif h5py.check_string_dtype(node.dtype) is not None:
            text = node[()]
            text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
            about[name] = text[:_LONGEST_FACT] or None
    about["name"] = about["name"] or path.stem
    return about


def _facts(file: h5py.File, found: Examined) -> dict[str, Any]:
    from functools import partial

    from backend.data.layout import standard_obs

    obs = standard_obs(partial(read_column, file, "obs"), found.roles, found.n_cells, found.notes)
    columns = found.roles.columns()
    return {
        "n_cells": found.n_cells,
        "n_genes_in_file": found.n_genes_in_file,
        "n_genes": len(found.genes.symbols),
        "n_genes_matched": found.genes.n_matched,
        "gene_ids": found.genes.id_kind,
        "counts": found.counts.name,
        "stored_as": found.counts.kind,
        "n_values": found.counts.n_stored,
        "roles": columns,
        "n_cell_types": int(obs["cell_type_fine"].nunique()),
        "n_unlabelled": int(obs["cell_type_fine"].isna().sum()),
        "n_donors": int(obs["donor"].nunique()) if "donor" in columns else None,
        "n_studies": int(obs["study"].nunique()) if "study" in columns else None,
        "timepoints": {
            name: int((obs["timepoint"] == name).sum())
            for name in TIMEPOINTS
            if (obs["timepoint"] == name).any()
        },
        "name": found.about["name"],
        "simulated": found.about["simulated"],
    }


def _read_all(counts: Matrix, progress: Callable[[int, int, str], None] | None) -> None:
    """Read every value in bounded memory and refuse the first matrix that is none of counts."""
    summary = ValueSummary()
    done = 0
    for values, positions in counts.slabs():
        if positions is not None:
            counts.check_indices(positions)
        summary.add(values)
        done += len(values)
        if progress is not None:
            progress(done, counts.n_stored, "values")
    if summary.problem is not None:
        _refuse_values({counts.name: summary})
