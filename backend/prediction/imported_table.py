"""What is known of a table of predictions before it counts: its words, its cells, its donors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from backend.data.vocabularies import ABSTAINED
from backend.errors import FaultlineError, LabelError
from backend.evaluation.mapping import match_labels
from backend.processes import ChildEnded, Limits, ask_child
from backend.store.import_table import read_table
from backend.store.known_cells import KnownDataset, find_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from backend.evaluation.mapping import LabelMatch
    from backend.processes import Channel
    from backend.store.roots import Location

__all__ = ["TableCheck", "check_in_child", "check_table", "check_words", "inspect_table"]

_OFFERED: Final = ("exact", "spelling", "vocabulary", "synonym", "narrower term")
"""Ways of a match that are offered. A type of ours that no label names (Pre-B where labels say B) is
never found as the one above it, and a malignant state never as its normal counterpart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """What a table holds.

    n_abstained : rows whose prediction names no type
    words : predicted names that are no label, with the label that they may mean; empty where both
        are of one vocabulary
    types : labels of the table
    n_shared : predicted names that are labels
    known : datasets that hold its cells
    """

    n_cells: int
    n_rows: int
    n_unlabelled: int
    n_abstained: int
    n_donors: int
    words: tuple[LabelMatch, ...]
    types: tuple[str, ...]
    n_shared: int
    known: tuple[KnownDataset, ...]

    @property
    def suggested(self) -> dict[str, str]:
        """Predicted name → label, for those that are the same type in other words."""
        return {match.label: match.cell_type for match in self.words if match.cell_type is not None}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def check_table(path: Path, roots: Sequence[Location] = ()) -> TableCheck:
    """Read a table and say what a person must decide on.

    Parameters
    ----------
    path
        CSV or Parquet.
    roots
        Where datasets are looked for that hold the same cells.

    Raises
    ------
    InputError
        If the table is wrong, with line and column.
    """
    table = read_table(path)
    first = table.drop_duplicates("cell_id")
    types = sorted(first["label"].dropna().unique())
    counts = table["predicted"].value_counts()
    strange = {
        str(name): int(n) for name, n in counts.items() if name not in types and name != ABSTAINED
    }
    words = match_labels(strange, types) if types else ()
    return TableCheck(
        n_cells=len(first),
        n_rows=len(table),
        n_unlabelled=int(first["label"].isna().sum()),
        n_abstained=int((table["predicted"] == ABSTAINED).sum()),
        n_donors=int(first["donor"].nunique()) if "donor" in first else 0,
        words=tuple(match for match in words if match.how in _OFFERED),
        types=tuple(types),
        n_shared=len(set(counts.index) & set(types)),
        known=find_known(first["cell_id"], roots),
    )


def check_words(
    found: TableCheck, given: Mapping[str, str], *, is_accepted: bool, is_as_written: bool
) -> dict[str, str]:
    """Return predicted name → label as a person wants it.

    Raises
    ------
    LabelError
        If labels and predictions are of two vocabularies and nobody said what they mean, or a
        label is none of the table.
    """
    if strange := sorted(set(given.values()) - set(found.types)):
        msg = f'The table has no label "{strange[0]}".'
        raise LabelError(msg, "Map predictions to labels of the table.")
    suggested = found.suggested
    if is_accepted:
        return suggested | dict(given)
    open_words = {name: label for name, label in suggested.items() if name not in given}
    if open_words and not is_as_written:
        told = "; ".join(f"{name} → {label}" for name, label in sorted(open_words.items())[:25])
        msg = (
            f"Labels and predictions are written in two ways: {len(open_words)} predicted names are "
            f"no label of the table but seem to mean one ({told}). As they stand, each counts as "
            "wrong."
        )
        raise LabelError(
            msg,
            "Take these with --accept-mapping, change some with --map NAME=LABEL, or keep the names "
            "apart with --as-written.",
        )
    if found.types and not found.n_shared and not given and not is_as_written:
        msg = "No predicted name is a label of the table, and none seems to mean one."
        hint = "Say what they mean with --map NAME=LABEL, or keep them apart with --as-written."
        raise LabelError(msg, hint)
    return dict(given)


def inspect_table(path: Path, roots: Sequence[Location]) -> dict[str, Any]:
    """Do what `check_table` does in a process of its own, for a page; return plain values.

    Returns
    -------
    The fields of `TableCheck` and `suggested`, or `problem` (message and hint) where the table is
    refused.
    """
    try:
        found: dict[str, Any] = ask_child(
            "backend.prediction.imported_table:check_in_child", path, list(roots),
            limits=Limits(seconds=120.0, spare_space=4 << 30), is_quiet=True,
        )  # fmt: skip
    except ChildEnded as end:
        hint = "Give fewer columns, or Parquet; or import it on the command line."
        return {"problem": (f"The table could not be read: the process {end}.", hint)}
    return found


def check_in_child(channel: Channel, path: Path, roots: list[Location]) -> dict[str, Any]:
    """Answer `inspect_table`."""
    try:
        found = check_table(path, roots)
    except FaultlineError as error:
        return {"problem": (error.message, error.hint)}
    return found.to_json() | {"suggested": found.suggested}
