"""What was run, with what, and whether it is healthy: rows and cards of the Runs page."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from backend.errors import StoreError
from backend.evaluation.wording import plural
from backend.store.bundle import parse_run
from backend.store.roots import Location, check_id, open_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.evaluation.views.series import Reader
    from backend.store.bundle import RunRecord

__all__ = [
    "MEASURES",
    "RunCard",
    "RunsOverview",
    "curves_of",
    "find_card",
    "runs_overview",
]

MEASURES: Final = {
    "train_loss": "Training loss",
    "valid_loss": "Validation loss",
    "macro_f1": "Validation macro-F1",
}
"""Columns of a history that are drawn, and what they are called."""

_FINAL: Final = -1
"""`fold` of a run on all cells, as the store has it."""
_ORDER: Final = (
    "simulated",
    "dataset",
    "display_name",
    "protocol",
    "label_level",
    "seed",
    "series_id",
)


@dataclass(frozen=True)
class RunsOverview:
    """All runs that an owner may see.

    sentence : how many there are, and how they ended
    series   : a row a series
    runs     : a row a run, failed and final ones too; `is_superseded` marks what a newer split,
               checkpoint or recipe has replaced
    """

    sentence: str
    series: pd.DataFrame
    runs: pd.DataFrame


@dataclass(frozen=True)
class RunCard:
    """One run as its bundle tells it.

    record  : what `run.json` says
    load    : what `load_report.json` says, or None
    history : a row an epoch, empty for a model without epochs
    log     : what `log.txt` says
    """

    record: RunRecord
    load: dict[str, Any] | None
    history: pd.DataFrame
    log: str


def _fold_name(fold: int) -> str:
    return "final" if fold == _FINAL else str(fold)


def runs_overview(store: Reader, owner: str, roots: Sequence[Location] = ()) -> RunsOverview:
    """Return all runs, and their series in one row each.

    Columns of `series`: series_id, dataset_id, dataset, simulated, display_name, configuration,
    protocol, label_level, budget, init (with the checkpoint; None for a baseline), genes_matched
    and share_loaded (text, from a run's load report), fraction, seed, status_text ("5 of 5 folds,
    final"), n_failed, n_train_min, n_train_max, wall_seconds (all folds), peak_memory_mib, device,
    created_at (latest).
    """
    runs = store.query("runs", owner=owner)
    # Fits on all donors speak for themselves; an older edition of a fold does not count any more.
    runs["is_superseded"] = ~runs["is_current"].astype(bool) & (runs["fold"] != _FINAL)
    names = store.query("datasets", owner=owner).drop_duplicates("dataset_id")
    names = names.set_index("dataset_id")
    runs["dataset"] = runs["dataset_id"].map(names["name"]).fillna(runs["dataset_id"])
    runs["simulated"] = runs["dataset_id"].map(names["simulated"]).fillna(value=False).astype(bool)
    runs["fold_name"] = [_fold_name(int(fold)) for fold in runs["fold"]]
    rows = [_series_row(part, roots) for _, part in runs.groupby("series_id", sort=False)]
    series = pd.DataFrame(rows)
    if rows:
        series = series.sort_values(list(_ORDER)).reset_index(drop=True)
    n_failed = int((runs["status"] == "failed").sum())
    n_datasets = runs["dataset_id"].nunique()
    sentence = (
        f"{plural(len(runs), 'run')} of {len(rows):,} series on "
        f"{plural(n_datasets, 'dataset')}: {len(runs) - n_failed:,} done, {n_failed:,} failed."
    )
    return RunsOverview(sentence, series, runs.reset_index(drop=True))


def _read(roots: Sequence[Location], run_id: str, file: str) -> bytes | None:
    """Return a file of a run's bundle from the last of the roots that has it."""
    for location in reversed(roots):
        found = open_root(location).read_bytes("runs", run_id, file)
        if found is not None:
            return found
    return None


def _load_texts(roots: Sequence[Location], run_id: str, init: str) -> dict[str, str | None]:
    """Return what share of genes and of the backbone a fit had, in words."""
    found = _read(roots, run_id, "load_report.json")
    report = {} if found is None else json.loads(found)
    genes = report.get("genes")
    matched = genes and f"{genes['n_matched'] / max(1, genes['n_genes']):.0%}"
    loaded = None if init == "scratch" or not report else f"{report['share_loaded']:.0%}"
    return {"genes_matched": matched, "share_loaded": loaded}


def _series_row(part: pd.DataFrame, roots: Sequence[Location]) -> dict[str, Any]:
    n_superseded = int(part["is_superseded"].sum())
    part = part[~part["is_superseded"]] if n_superseded < len(part) else part
    first = part.iloc[0]
    is_done = part["status"] == "done"
    is_fold = part["fold"] != _FINAL
    status = f"{int((is_done & is_fold).sum())} of {int(first['folds'])} folds"
    if (is_done & ~is_fold).any():
        status += ", final"
    n_failed = int((~is_done).sum())
    if n_failed:
        status += f", {n_failed} failed"
    if n_superseded:
        status += f", {n_superseded} superseded"
    init = str(first["init"]) if pd.notna(first["preset"]) else None
    if init and pd.notna(first["checkpoint"]):
        init += f" from {first['checkpoint']}"
    return {
        "series_id": first["series_id"],
        **{name: first[name] for name in ("dataset_id", "dataset", "simulated", "configuration")},
        "display_name": part.sort_values("created_at")["display_name"].iloc[-1],
        **{name: first[name] for name in ("protocol", "label_level", "budget")},
        "init": init,
        **(
            _load_texts(roots, part.loc[is_done, "run_id"].iloc[0], str(first["init"]))
            if init and is_done.any()
            else {"genes_matched": None, "share_loaded": None}
        ),
        "fraction": float(first["fraction"]),
        "seed": int(first["seed"]),
        "status_text": status,
        "n_failed": n_failed,
        "n_train_min": part.loc[is_done, "n_train"].min(),
        "n_train_max": part.loc[is_done, "n_train"].max(),
        "wall_seconds": round(float(part["wall_seconds"].sum())),
        "peak_memory_mib": part["peak_memory_mib"].max().round(),
        "device": ", ".join(sorted(part["device"].dropna().astype(str).unique())),
        "created_at": str(part["created_at"].max()),
    }


def find_card(roots: Sequence[Location], run_id: str) -> RunCard:
    """Read the bundle of a run from the last of some roots that has it.

    Raises
    ------
    StoreError
        If none has it, or it cannot be read.
    """
    check_id(run_id, "Run")
    for location in reversed(roots):
        root = open_root(location)
        head = root.read_bytes("runs", run_id, "run.json")
        if head is None:
            continue
        load = root.read_bytes("runs", run_id, "load_report.json")
        history = root.read_bytes("runs", run_id, "history.parquet")
        log = root.read_bytes("runs", run_id, "log.txt") or b""
        return RunCard(
            record=parse_run(head, run_id),
            load=None if load is None else json.loads(load),
            history=pd.DataFrame() if history is None else pd.read_parquet(io.BytesIO(history)),
            log=log.decode("utf-8", errors="replace"),
        )
    msg = "Run not found."
    raise StoreError(msg, "It may have expired or been deleted.")


def curves_of(cards: Sequence[RunCard]) -> pd.DataFrame:
    """Return the histories of some runs as rows of fold, epoch, step, measure and value."""
    parts = []
    for card in cards:
        known = [name for name in MEASURES if name in card.history.columns]
        if not known or "epoch" not in card.history.columns:
            continue
        long = card.history.melt(["epoch", "step"], known, "measure", "value").dropna()
        long["measure"] = long["measure"].map(MEASURES)
        parts.append(long.assign(fold=str(card.record.fold), n_train=card.record.n_train))
    columns = ["fold", "epoch", "step", "measure", "value", "n_train"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
