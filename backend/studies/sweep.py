"""A plan on its data: which runs it means, which are done, and the tasks for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from backend.config import home
from backend.errors import InputError, ModelUnavailable, SplitError
from backend.splits import TEST, TRAIN, VALID
from backend.splits.stored import split_name, stored_split
from backend.store.bundle import write_dataset
from backend.store.roots import is_url, open_root
from backend.studies.costs import bytes_at_work, bytes_of_checkpoint, bytes_of_run
from backend.studies.executors.common import Outcome
from backend.studies.planned_runs import (
    PlannedCheckpoint,
    PlannedRun,
    checkpoint_key,
    checkpoint_sha256,
    identified,
)
from backend.types import Series, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.splits import Split
    from backend.store.roots import Location
    from backend.studies.executors.common import Executor, Task, TaskEvent
    from backend.studies.plan import Plan, Pretraining
    from backend.training.runs import Fold

__all__ = ["Sweep", "local_folder", "prepare"]


@dataclass
class Sweep:
    """Everything that a plan asks for, on its data.

    warnings   : what the splits cannot have, in sentences
    n_repeated : fits that the plan names more than once
    """

    plan: Plan
    out: Location
    runs: list[PlannedRun] = field(default_factory=list)
    checkpoints: list[PlannedCheckpoint] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    n_repeated: int = 0
    n_cells: int = 0

    def waiting(self) -> list[PlannedRun]:
        """Return the runs that are not done."""
        return [run for run in self.runs if not run.is_done]

    def bytes_needed(self, *, jobs: int) -> int:
        """Return what the runs that are not done are likely to need on disk."""
        waiting = self.waiting()
        bundles = sum(
            bytes_of_run(run.cost_key, run.n_predicted, is_final=run.fold == "final")
            for run in waiting
        )
        made = sum(
            bytes_of_checkpoint(each.made.preset) for each in self.checkpoints if not each.is_done
        )
        keys = [run.series.preset for run in waiting if run.series.preset]
        return bundles + made + bytes_at_work(keys, self.n_cells, jobs=jobs)

    def execute(
        self, executor: Executor, tell: Callable[[TaskEvent | Outcome], None]
    ) -> list[Outcome]:
        """Make the missing checkpoints, then run what is not done; a failure stops nothing.

        A `final` fit comes after the folds of its series, whose best epochs it takes.

        Returns
        -------
        One outcome a checkpoint or run that was not done: checkpoints first, then folds.
        """
        any_genes = self.plan.any_genes
        missing = [each.task(any_genes=any_genes) for each in self.checkpoints if not each.is_done]
        outcomes = executor.run(missing, tell) if missing else []
        lost = {each.key: each.reason for each in outcomes if each.status == "failed"}
        folds: list[Task] = []
        finals: list[Task] = []
        for run in self.waiting():
            if run.checkpoint in lost:
                reason = f"Its checkpoint was not made: {lost[run.checkpoint]}"
                outcomes.append(Outcome(run.key, "failed", reason))
                tell(outcomes[-1])
                continue
            known = identified(run, self.out)
            if known.is_done:
                outcomes.append(Outcome(run.key, "skipped"))
                tell(outcomes[-1])
                continue
            task = known.task(self.out, any_genes=any_genes)
            (finals if run.fold == "final" else folds).append(task)
        for tasks in (folds, finals):
            outcomes += executor.run(tasks, tell) if tasks else []
        return outcomes


def local_folder(out: Location) -> Path:
    """Return where a sweep keeps its lock and splits: `out`, if it is local.

    For a URL it is a folder below FAULTLINE_HOME.
    """
    if is_url(out):
        return home() / "sweeps" / sha256_of(str(out).rstrip("/"))[:16]
    return Path(out)


def prepare(
    plan: Plan, out: Location, *, is_written: bool, say: Callable[[str], None] = lambda _: None
) -> Sweep:
    """Read the data of a plan and work out its runs and their states.

    Parameters
    ----------
    is_written
        Whether splits and the bundles of datasets are written where they are missing.
    say
        Told what takes time.

    Raises
    ------
    InputError, SplitError, ModelUnavailable
        If the plan cannot be had on this data; no run was started.
    """
    sweep = Sweep(plan, out)
    for path in plan.datasets:
        _Preparation(sweep, path, is_written=is_written, say=say).add()
    if not sweep.runs:
        msg = f"{plan.path.name} names no run."
        raise InputError(msg, "Add a [[run]] table with a model.")
    return sweep


class _Preparation:
    """One dataset of a plan."""

    def __init__(
        self, sweep: Sweep, path: Path, *, is_written: bool, say: Callable[[str], None]
    ) -> None:
        from backend.data import describe, load

        say(f"Reading {path.name}")
        self.sweep, self.path, self.say, self.is_written = sweep, path, say, is_written
        self.adata = load(path, any_genes=sweep.plan.any_genes)
        self.info = describe(self.adata)
        self.splits: dict[tuple[Any, ...], tuple[Split, Path]] = {}
        self.checked: set[tuple[Any, ...]] = set()

    def add(self) -> None:
        """Add checkpoints and runs of this dataset to the sweep."""
        plan, sweep = self.sweep.plan, self.sweep
        sweep.n_cells = max(sweep.n_cells, self.info.n_cells)
        made = {each.key for each in sweep.checkpoints}
        for pretraining in plan.pretrainings:
            for each in self._checkpoints(pretraining):
                if each.key not in made:
                    made.add(each.key)
                    sweep.checkpoints.append(each)
        known = {run.key for run in sweep.runs}
        for grid in plan.grids:
            for fields in grid:
                split, file = self._split(fields)
                folds = list(range(split.folds)) if grid.folds == "all" else list(grid.folds)
                fields |= {"folds": split.folds, "dataset_id": self.info.dataset_id}
                series = Series(**fields)
                for fold in folds:
                    key = f"{series.series_id}-{fold}"
                    if key in known:
                        sweep.n_repeated += 1
                        continue
                    known.add(key)
                    sweep.runs.append(self._run(key, series, fold, split, file, grid.place))
        if self.is_written:
            self._write_dataset()

    def _split(self, fields: dict[str, Any]) -> tuple[Split, Path]:
        names = ("protocol", "folds", "split_seed", "budget")
        key = tuple(fields[name] for name in names)
        if key not in self.splits:
            protocol, folds, seed, budget = key
            folder = local_folder(self.sweep.out) / "splits"
            self.say(f"Splitting by {protocol}")
            split = stored_split(
                folder,
                self.adata.obs,
                protocol,
                dataset_id=self.info.dataset_id,
                folds=folds,
                seed=seed,
                budget=budget,
                is_written=self.is_written,
            )
            name = split_name(self.info.dataset_id, protocol, folds=folds, seed=seed, budget=budget)
            self.splits[key] = (split, (folder / name).resolve())
            self.sweep.warnings += [f"{protocol}: {text}" for text in split.warnings]
        return self.splits[key]

    def _checkpoints(self, made: Pretraining) -> list[PlannedCheckpoint]:
        fields = {
            name: getattr(made, name) for name in ("protocol", "folds", "split_seed", "budget")
        }
        split, file = self._split(fields)
        folds = range(split.folds) if made.fold == "all" else made.fold
        return [
            PlannedCheckpoint(
                key=checkpoint_key(made.model, made.name, split.sha256, fold),
                text=f"{made.preset} {made.name} · {split.protocol} · fold {fold}",
                made=made,
                fold=fold,
                dataset=self.path,
                split=file,
                is_done=checkpoint_sha256(made.model, made.name, split.sha256, fold) is not None,
                n_train=_n_train(split, fold),
            )
            for fold in folds
        ]

    def _run(
        self, key: str, series: Series, fold: Fold, split: Split, file: Path, place: str
    ) -> PlannedRun:
        from backend.training.runs import build_typer, display_name

        if fold == "final" and series.preset is not None and is_url(self.sweep.out):
            msg = f"{place}: a final fit reads the histories of its folds, which are at a URL."
            raise InputError(msg, "Give --out as a folder, or leave out the fold final.")
        checkpoint = self._needed(series, fold, split, place)
        recipe_version = build_typer(series).recipe_version
        self._check_fold(series, fold, split)
        planned = PlannedRun(
            key=key,
            text=f"{series.configuration} · {series.protocol} · fold {fold}",
            series=series,
            fold=fold,
            dataset=self.path,
            split=file,
            display_name=display_name(series),
            checkpoint=checkpoint,
            identity={"split_sha256": split.sha256, "recipe_version": recipe_version},
            run_id=None,
            state="to do",
            reason=None,
            n_train=round(_n_train(split, fold) * series.fraction),
            n_predicted=_n_predicted(split, fold),
        )
        return identified(planned, self.sweep.out)

    def _needed(self, series: Series, fold: Fold, split: Split, place: str) -> str | None:
        """Return the key of the planned checkpoint that a run starts from, or None."""
        if series.checkpoint is None:
            return None
        key = checkpoint_key(series.model, series.checkpoint, split.sha256, fold)
        planned = {each.key: each for each in self.sweep.checkpoints}
        if key in planned:
            found = planned[key].made.preset
            if found != series.preset:
                msg = f'{place}: the checkpoint "{series.checkpoint}" is {found}, not {series.preset}.'
                raise InputError(msg, "Name the preset that the [[pretrain]] table makes.")
            return key
        if checkpoint_sha256(series.model, series.checkpoint, split.sha256, fold) is None:
            msg = (
                f'{place}: no [[pretrain]] table makes the checkpoint "{series.checkpoint}" of '
                f"{series.model} for fold {fold} of the {split.protocol} split."
            )
            hint = "Give the table the same protocol, folds, split_seed, budget and fold."
            raise ModelUnavailable(msg, hint)
        return None

    def _check_fold(self, series: Series, fold: Fold, split: Split) -> None:
        """Say which types a fold cannot learn; refuse one from which nothing can be learned."""
        is_foundation = series.preset is not None
        key = (split.sha256, fold, series.label_level, is_foundation)
        if fold == "final" or key in self.checked:
            return
        self.checked.add(key)
        labels = self.adata.obs[f"cell_type_{series.label_level}"].astype(object)
        labels = labels.reindex(pd.Index(split.cell_ids))
        counts = {
            role: labels[split.cells(fold, role)].value_counts() for role in (TRAIN, VALID, TEST)
        }
        where = f"{split.protocol}, fold {fold}"
        if len(counts[TRAIN]) < 2:
            found = ", ".join(map(str, counts[TRAIN].index)) or "none"
            msg = f"{where}: the training cells have one type at most ({found})."
            raise SplitError(msg, "Use fewer folds, another protocol, or cells of more donors.")
        lacking = counts[TEST].drop(counts[TRAIN].index, errors="ignore")
        if len(lacking):
            names = ", ".join(f"{name} ({n:,} test cells)" for name, n in lacking.items())
            self._warn(f"{where}: no training cell is {names}; no model can predict it.")
        if is_foundation and not len(counts[VALID]):
            self._warn(f"{where}: there is no validation cell, so the last epoch is kept.")

    def _warn(self, text: str) -> None:
        if text not in self.sweep.warnings:
            self.sweep.warnings.append(text)

    def _write_dataset(self) -> None:
        """Write the dataset's bundle, unless it is there."""
        from backend.data import cells_and_neighbours

        out, name = self.sweep.out, self.info.dataset_id
        if open_root(out).read_bytes("datasets", name, "dataset.json") is None:
            self.say("Placing cells on a map")
            cells, neighbours = cells_and_neighbours(self.adata)
            write_dataset(str(out), self.info.to_json(), cells, neighbours=neighbours)


def _n_train(split: Split, fold: Fold) -> int:
    return len(split.cell_ids) if fold == "final" else int(split.cells(fold, TRAIN).sum())


def _n_predicted(split: Split, fold: Fold) -> int:
    if fold == "final":
        return 0
    return int(split.cells(fold, VALID).sum() + split.cells(fold, TEST).sum())
