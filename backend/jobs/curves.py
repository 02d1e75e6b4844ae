"""How the fits of a training job go, while they do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from backend.jobs.directory import job_folder, read_status

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__all__ = ["CURVE", "live_curves"]

CURVE: Final = "curve.jsonl"
"""Below the job's folder: one line for every step that a fit told of."""


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a curve; the last one may still be written."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def live_curves(home: Path, job_id: str, *, owner: str) -> pd.DataFrame:
    """Return what the fits of a job told so far: fold, epoch, step, measure, value."""
    import pandas as pd

    from backend.evaluation.views.runs import MEASURES

    read_status(home, job_id, owner=owner)
    found = []
    for row in _rows(job_folder(home, job_id) / CURVE):
        for name, measure in MEASURES.items():
            if row.get(name) is not None:
                found.append(
                    {
                        "fold": str(row["fold"]),
                        "epoch": row["epoch"],
                        "step": row["step"],
                        "measure": measure,
                        "value": float(row[name]),
                    }
                )
    columns = ["fold", "epoch", "step", "measure", "value"]
    frame = pd.DataFrame(found, columns=columns)
    # An epoch that a resumed fit told again counts once.
    return frame.drop_duplicates(["fold", "epoch", "measure"], keep="last").reset_index(drop=True)
