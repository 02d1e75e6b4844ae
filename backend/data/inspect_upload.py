"""Look at a file in a process of its own, for a page that must answer within seconds.

That process does the quick check under limits of memory and time, and reads what a person decides
on: columns, labels and timepoints. A file made to crash or hang the HDF5 library ends it, not the
caller.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.data.roles import ROLE_NAMES, Roles
from backend.processes import ChildEnded, Limits, ask_child

if TYPE_CHECKING:
    import h5py

    from backend.data.check import Examined
    from backend.data.genes import GeneMap
    from backend.processes import Channel

__all__ = ["inspect_upload", "roles_from"]

_LIMITS: Final = Limits(seconds=120.0, spare_space=4 << 30)
_MOST_COLUMNS: Final = 200
_MOST_VALUES: Final = 300
_EXAMPLES: Final = 4


def roles_from(values: dict[str, Any] | None) -> Roles | None:
    """Return roles from plain values, None for none; unknown names are left out."""
    if not values:
        return None
    known = {name: values[name] for name in (*ROLE_NAMES, "counts") if values.get(name)}
    return Roles(**known, timepoints=values.get("timepoints") or {})


def inspect_upload(
    path: Path, *, roles: dict[str, Any] | None = None, gene_files: dict[str, str] | None = None
) -> dict[str, Any]:
    """Check a file quickly and say what is in it.

    Parameters
    ----------
    path
        The `.h5ad`.
    roles
        Column of each role as plain values; guessed when None.
    gene_files
        Name → `genes.json` of a stored model, to count the genes that it knows.

    Returns
    -------
    `problems` (list of {code, message, hint}), `notes`, `facts` as the check gives them, `columns`
    (list of {name, n_values, examples}), `labels` and `timepoints` (value → cells), `genes` (name →
    {n_known, n_model}). Of a file that cannot be used only `problems` is filled.
    """
    try:
        found: dict[str, Any] = ask_child(
            "backend.data.inspect_upload:inspect_in_child", path, roles, gene_files or {},
            limits=_LIMITS, env={"OMP_NUM_THREADS": "1"}, is_quiet=True,
        )  # fmt: skip
    except ChildEnded as end:
        how = f"the process that read it {end}"
        if end.exceeded:
            how = f"reading it came to no end (stopped after {_LIMITS.seconds:g} s)"
        problem = {
            "code": "damaged",
            "message": f"The file is damaged: {how}.",
            "hint": "Copy or download the file again.",
        }
        return _empty() | {"problems": [problem]}
    return found


def _empty() -> dict[str, Any]:
    return {
        "problems": [], "notes": [], "facts": {}, "columns": [], "labels": {}, "timepoints": {},
        "genes": {},
    }  # fmt: skip


def inspect_in_child(
    channel: Channel, path: Path, given: dict[str, Any] | None, gene_files: dict[str, str]
) -> dict[str, Any]:
    """Do what `inspect_upload` does, in this process; the file is opened and examined once."""
    from backend.data.check import check
    from backend.data.columns import column_names, read_column

    seen: dict[str, Any] = {}

    def read(file: h5py.File, found: Examined) -> None:
        names = column_names(file, "obs")[:_MOST_COLUMNS]
        seen["columns"] = [_column(file, name) for name in names]
        used = found.roles.columns()
        for role, place in (("cell_type", "labels"), ("timepoint", "timepoints")):
            if role in used:
                values = read_column(file, "obs", used[role]).astype(object).dropna()
                counts = values.astype(str).str.strip().value_counts()[:_MOST_VALUES]
                seen[place] = {str(name): int(n) for name, n in counts.items() if name}
        seen["genes"] = _known_genes(found.genes, gene_files)

    roles = roles_from(given)
    report = check(path, quick=True, roles=roles, purpose="predict", inspect=read)
    about = {
        "problems": [problem.to_json() for problem in report.problems],
        "notes": list(report.notes),
        "facts": report.facts | {"seconds": round(report.seconds, 2)},
    }
    found = _empty() | about | (seen if report.is_usable else {})
    # Numbers of numpy become plain ones.
    plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False, default=str))
    return plain


def _column(file: h5py.File, name: str) -> dict[str, Any]:
    """Describe one column of obs without reading its rows."""
    import h5py

    from backend.data.columns import read_column

    node = file["obs"].get(name)
    values: list[str] | None = None
    if isinstance(node, h5py.Group) and isinstance(node.get("categories"), h5py.Dataset):
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
