"""What looks at a file in a process of its own: see `inspect_upload`.

All that it needs is imported first, because its memory is limited from then on.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np

from backend.data.check import check
from backend.data.columns import column_names, read_column
from backend.data.inspect_upload import empty, roles_from
from backend.data.names import LONGEST_LABEL
from backend.data.vocabularies import names_no_type

if TYPE_CHECKING:
    import pandas as pd

    from backend.data.check import Examined
    from backend.data.genes import GeneMap
    from backend.processes import Channel

__all__ = ["inspect_in_child"]

_COUNTED: Final = (("cell_type", "labels"), ("timepoint", "timepoints"), ("donor", "donors"))
_MOST_COLUMNS: Final = 200
_MOST_VALUES: Final = 300
_EXAMPLES: Final = 4


def inspect_in_child(
    channel: Channel, path: Path, given: dict[str, Any] | None, gene_files: dict[str, str]
) -> dict[str, Any]:
    """Do what `inspect_upload` does, in this process; the file is opened and examined once."""
    seen: dict[str, Any] = {}

    def read(file: h5py.File, found: Examined) -> None:
        names = column_names(file, "obs")[:_MOST_COLUMNS]
        seen["columns"] = [_column(file, name) for name in names]
        used = found.roles.columns()
        for role, place in _COUNTED:
            if role in used:
                seen[place] = _counted(read_column(file, "obs", used[role]))
        # Words that name no type are no labels.
        labels = seen.get("labels", {})
        seen["labels"] = {name: n for name, n in labels.items() if not names_no_type(name)}
        # What has no word at all is asked for under one, where the file's profile understands it.
        if found.profile is not None and found.profile.form is not None and "timepoint" in used:
            values = read_column(file, "obs", used["timepoint"])
            if n_missing := int(values.isna().sum()):
                seen["timepoints"][found.profile.form.missing] = n_missing
        seen["genes"] = _known_genes(found.genes, gene_files)

    roles = roles_from(given)
    report = check(path, quick=True, roles=roles, purpose="predict", inspect=read)
    about = {
        "problems": [problem.to_json() for problem in report.problems],
        "notes": list(report.notes),
        "facts": report.facts | {"seconds": round(report.seconds, 2)},
    }
    found = empty() | about | (seen if report.is_usable else {})
    # Numbers of numpy become plain ones.
    plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False, default=str))
    return plain


def _counted(values: pd.Series) -> dict[str, int]:
    """Return the most frequent values as text with their cells; long texts are held once."""
    kinds = values.astype("category").cat
    counts: Counter[str] = Counter()
    for name, n in zip(
        kinds.categories, np.bincount(kinds.codes[kinds.codes >= 0], minlength=1), strict=False
    ):
        counts[str(name).strip()[:LONGEST_LABEL]] += int(n)
    return {name: n for name, n in counts.most_common(_MOST_VALUES) if name and n}


def _column(file: h5py.File, name: str) -> dict[str, Any]:
    """Describe one column of obs without reading its rows."""
    node = file["obs"].get(name)
    values: list[str] | None = None
    is_old = name in file["obs"].get("__categories", ())
    if is_old or (
        isinstance(node, h5py.Group) and isinstance(node.get("categories"), h5py.Dataset)
    ):
        values = [str(value) for value in read_column(file, "obs", name).cat.categories]
    return {
        "name": name,
        "n_values": None if values is None else len(values),
        "examples": [value[:40] for value in (values or [])[:_EXAMPLES]],
    }


def _known_genes(found: GeneMap, gene_files: dict[str, str]) -> dict[str, Any]:
    # Geneformer's vocabulary is of Ensembl ids, the others' of symbols.
    own, counted = {*found.symbols, *found.ensembl} - {""}, {}
    for name, path in gene_files.items():
        genes = _longest_names(json.loads(Path(path).read_text(encoding="utf-8")))
        counted[name] = {"n_known": len(own & genes), "n_model": len(genes)}
    return counted


def _longest_names(value: Any) -> set[str]:
    """Return the longest list of names, or names of a dict, anywhere in the state of a model."""
    best: set[str] = set()
    if isinstance(value, dict):
        best = set(value)
        for part in value.values():
            best = max(best, _longest_names(part), key=len)
    elif isinstance(value, list):
        best = {part for part in value if isinstance(part, str)}
        for part in value:
            if isinstance(part, list | dict):
                best = max(best, _longest_names(part), key=len)
    return best
