"""The subset that a plan draws of its dataset: read from the plan, drawn once, kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from backend.data.subset import SUBSET_ROLES, check_shares, describe_subset, write_subset
from backend.errors import InputError
from backend.types import MAX_SEED, is_whole, kind_of, refuse, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from backend.data import DatasetInfo
    from backend.data.roles import Roles

__all__ = [
    "SUBSET_KEYS",
    "Subset",
    "describe",
    "draw",
    "parse_subset",
    "subset_file",
    "subset_note",
]

SUBSET_KEYS: Final = ("by", "shares", "cells", "seed")
"""Keys of a plan's `[subset]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Stated shares of each timepoint, or of another role; see `backend.data.subset`.

    cells : as many as the shares allow, when None
    """

    shares: Mapping[str, float]
    by: str = "timepoint"
    cells: int | None = None
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of the functions that draw it."""
        return {"by": self.by, "n_cells": self.cells, "seed": self.seed}


def parse_subset(table: Any) -> Subset:
    """Read a plan's `[subset]`, its keys checked before.

    Raises
    ------
    InputError
        If a value cannot be had, whatever the data.
    """
    if not isinstance(table, dict):
        msg = f"`subset` is {kind_of(table)}."
        raise InputError(msg, "Write a table: [subset].")
    shares = table.get("shares")
    if not isinstance(shares, dict) or not shares:
        found = "missing" if shares is None else kind_of(shares) if shares != {} else "empty"
        msg = f"`shares` is {found}."
        raise InputError(msg, "Write shares = { Healthy = 0.25, Diagnosis = 0.75 }.")
    for name, share in shares.items():
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not is_number or not 0 < share <= 1:
            refuse(f"shares.{name}", share, "a number above 0, up to 1")
    check_shares(shares)
    by = table.get("by", "timepoint")
    if by not in SUBSET_ROLES:
        refuse("by", by, f"one of: {', '.join(SUBSET_ROLES)}", tuple(SUBSET_ROLES))
    cells, seed = table.get("cells"), table.get("seed", 0)
    if cells is not None and not is_whole(cells, 1):
        refuse("cells", cells, "a whole number from 1, or leave it out for as many as can be")
    if not is_whole(seed, 0, MAX_SEED):
        refuse("seed", seed, f"a whole number from 0 to {MAX_SEED}")
    return Subset(shares=dict(shares), by=by, cells=cells, seed=seed)


def subset_file(folder: Path, source: Path, subset: Subset, roles: Roles | None) -> Path:
    """Return where the subset of a file is kept below `folder`; another file has another place."""
    stat = source.stat()
    facts = {
        "subset": asdict(subset),
        "roles": None if roles is None else roles.to_json(),
        "source": [source.name, stat.st_size, stat.st_mtime_ns],
    }
    return folder / "subsets" / f"{source.stem}-{sha256_of(facts)[:8]}.h5ad"


def draw(
    source: Path, file: Path, subset: Subset, *, roles: Roles | None, any_genes: bool
) -> tuple[str, ...]:
    """Write a subset to its place; return what a reader of the source must know."""
    file.parent.mkdir(parents=True, exist_ok=True)
    report = write_subset(
        source, file, subset.shares, roles=roles, any_genes=any_genes, **subset.options
    )
    return report.notes


def describe(
    source: Path, subset: Subset, *, roles: Roles | None, any_genes: bool
) -> tuple[pd.DataFrame, DatasetInfo, tuple[str, ...]]:
    """Return cells, facts and notes of a subset that is not written."""
    return describe_subset(
        source, subset.shares, roles=roles, any_genes=any_genes, **subset.options
    )


def subset_note(cells: pd.DataFrame, subset: Subset, source: Path) -> str:
    """Say how many cells of each part a subset has."""
    counts = cells[SUBSET_ROLES[subset.by]].astype(str).value_counts()
    parts = ", ".join(
        f"{name} {int(counts[name]):,} ({counts[name] / len(cells):.1%})" for name in subset.shares
    )
    donors = cells["donor"].nunique()
    return (
        f"subset of {source.name} by {subset.by}: {len(cells):,} cells, {donors} donors; {parts}."
    )
