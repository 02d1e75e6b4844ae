"""Check whether a file can be used: quickly by samples of it, or fully by reading every value.

Both checks give the same messages. The quick one reads the structure, the types, all row starts,
all cell ids and 64 blocks of values; the full one reads all values as well, in bounded memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.columns import index_slices, read_column, read_index, table_length
from backend.data.containers import opened
from backend.data.counts import find_counts, note_empty_cells, read_all
from backend.data.file_genes import map_file_genes, n_known_genes, share_known
from backend.data.problems import Problem, Refusal, some
from backend.data.profiles import profile_of
from backend.data.role_columns import column_candidates, find_roles
from backend.data.roles import PURPOSES, Roles
from backend.data.safety import damage_refused
from backend.data.writer import ABOUT_FIELDS
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    import h5py

    from backend.data.genes import GeneMap
    from backend.data.matrix import Matrix
    from backend.data.profiles import Profile

__all__ = ["CheckReport", "Examined", "check", "examine"]

_LONGEST_FACT: Final = 1_000


@dataclass(slots=True)
class Examined:
    """What is known of a file before its bulk is read."""

    n_cells: int
    n_genes_in_file: int
    counts: Matrix
    genes: GeneMap = field(repr=False)
    roles: Roles
    about: dict[str, Any]
    profile: Profile | None = None
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
        with opened(path) as (file, told), damage_refused(path.name):
            found = examine(path, file, roles, purpose=purpose, seed=seed, problems=problems)
            if found is not None:
                found.notes[:0] = told
                facts, notes = _facts(file, found), found.notes
                if inspect is not None:
                    inspect(file, found)
                if not quick:
                    read_all(found.counts, progress)
                note_empty_cells(found.counts, notes)
                facts["n_empty_cells"] = found.counts.n_empty_cells
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
    notes: list[str] = []

    def roles_of_counts() -> Roles | None:
        profile = found.get("profile")
        if profile is None or (roles is not None and roles.counts):
            return roles
        return replace(roles or Roles(), counts=profile.form.counts(file))

    steps: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("ids", lambda: _check_ids(file, n_cells)),
        ("orientation", lambda: _check_orientation(file)),
        ("profile", lambda: profile_of(file, roles.profile if roles else None)),
        ("roles", lambda: find_roles(file, roles, purpose, notes, found.get("profile"))),
        ("counts", lambda: _find_counts(file, roles_of_counts(), (n_cells, n_genes), seed, notes)),
        ("genes", lambda: map_file_genes(file, found["counts"], notes, any_genes=any_genes)),
    )
    failed: set[str] = set()
    for name, step in steps:
        # Genes of a transposed file, or of an unknown matrix, would only repeat the reason.
        if name == "genes" and failed & {"orientation", "counts"}:
            continue
        try:
            found[name] = step()
        except Refusal as error:
            refusal, profile = error, found.get("profile")
            if profile is not None:
                refusal = profile.form.explain(error, file, roles)
            if problems is None:
                raise refusal from error
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
        about=_about(path, file, found["profile"]),
        profile=found["profile"],
        notes=notes,
    )


def _find_counts(
    file: h5py.File, roles: Roles | None, shape: tuple[int, int], seed: int, notes: list[str]
) -> Matrix:
    counts, told = find_counts(
        file, roles, shape, seed=seed, n_genes_known=lambda table: n_known_genes(file, table)
    )
    notes += told
    return counts


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


def _check_orientation(file: h5py.File) -> None:
    """Refuse a file whose cells are named like genes and whose genes are not."""
    cells = read_index(file, "obs", 0, 2_000)
    if share_known(cells) > 0.5 and share_known(read_index(file, "var", 0, 2_000)) < 0.05:
        msg = f"The rows are genes and the columns are cells (rows: {some(cells[:5])})."
        hint = "Transpose the data: adata = adata.T, then save it again."
        raise Refusal(msg, hint, code="orientation")


def _about(path: Path, file: h5py.File, profile: Profile | None) -> dict[str, Any]:
    """Read what the file says about itself: short text and one truth value.

    Where it says nothing, what is known of the data set that it was recognised as.
    """
    import h5py

    about: dict[str, Any] = dict.fromkeys(ABOUT_FIELDS)
    about |= {"name": path.stem, "simulated": False, "source": f"file {path.name}"}
    group = file.get("uns/faultline")
    if not isinstance(group, h5py.Group):
        return about if profile is None else about | dict(profile.about)
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
        "timepoint_words": dict(found.roles.timepoints),
        "profile": found.profile.key if found.profile else None,
        "candidates": column_candidates(file, columns),
        "n_left_out": found.n_genes_in_file - found.genes.n_genes_in,
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
