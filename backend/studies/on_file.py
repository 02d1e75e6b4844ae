"""Whether training can work on a file, from its columns alone, before it is queued.

Runs in a process of its own under limits: the file may be hostile. What it needs is imported first,
because its memory is limited from then on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backend.data.check import check
from backend.data.h5ad import OpenDataset
from backend.data.inspect_upload import roles_from
from backend.errors import FaultlineError
from backend.splits import make_split
from backend.splits.learnable import fold_gaps, most_folds

if TYPE_CHECKING:
    import h5py

    from backend.data.check import Examined
    from backend.processes import Channel
    from backend.studies.plan import Plan

__all__ = ["look_in_child", "splits_of"]

_OF_SPLIT = ("protocol", "folds", "split_seed", "budget")


def splits_of(plan: Plan) -> list[dict[str, Any]]:
    """Return the splits that a plan needs as plain values, each once, with who trains on them."""
    found = []
    for row in (*plan.rows, *plan.pretrainings):
        series = row.series
        values = {name: getattr(series, name) for name in (*_OF_SPLIT, "label_level")}
        values |= {
            "is_foundation": series.preset is not None,
            "is_final_only": list(row.folds) == ["final"],
        }
        if values not in found:
            found.append(values)
    return found


def look_in_child(
    channel: Channel, path: Path, roles: dict[str, Any], splits: list[dict[str, Any]]
) -> dict[str, Any]:
    """Say what splits of a file cannot have.

    Parameters
    ----------
    roles
        See `roles_from`.
    splits
        See `splits_of`.

    Returns
    -------
    `gaps`: sentences about timepoints with fewer donors than folds; `folds`: the number of folds
    without such gaps, or None where there are none. Of what cannot be made or learned at all
    `message` and `hint`, which says what would work.
    """
    seen: dict[str, pd.DataFrame] = {}
    given = roles_from(roles)

    def read(file: h5py.File, found: Examined) -> None:
        seen["cells"] = OpenDataset(Path(path), file, found).obs()

    report = check(path, quick=True, roles=given, purpose="train", inspect=read)
    if report.problems:
        return {"message": report.problems[0].message, "hint": report.problems[0].hint}
    cells = seen["cells"]
    cells.index = pd.Index(np.arange(len(cells)).astype(str), dtype=object)
    gaps: list[str] = []
    folds: list[int] = []
    for split in splits:
        try:
            said, possible = _look_at_split(cells, split)
        except FaultlineError as error:
            return {"message": error.message, "hint": error.hint}
        gaps += [text for text in said if text not in gaps]
        if said and possible is not None:
            folds.append(possible)
    return {"gaps": gaps, "folds": min(folds, default=None)}


def _look_at_split(cells: pd.DataFrame, wanted: dict[str, Any]) -> tuple[list[str], int | None]:
    """Return what the folds of a split lack at some timepoint, and how many would lack nothing."""
    protocol = str(wanted["protocol"])
    n_possible = most_folds(cells, protocol)
    split = make_split(
        cells, protocol, dataset_id="0" * 16, folds=int(wanted["folds"]),
        seed=int(wanted["split_seed"]), budget=str(wanted["budget"]),
    )  # fmt: skip
    labels = cells[f"cell_type_{wanted['label_level']}"].astype(object)
    if not wanted["is_final_only"]:
        for fold in range(split.folds):
            fold_gaps(
                split, fold, labels, is_foundation=wanted["is_foundation"], n_possible=n_possible
            )
    too_many = n_possible is not None and split.folds > n_possible
    if not too_many or wanted["is_final_only"]:
        return [], None
    return [text for text in split.warnings if " folds test no " in text], n_possible
