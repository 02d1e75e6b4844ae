"""A plan on its data: which runs it means, which are done, and what the rest needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from backend.config import home
from backend.errors import InputError, ModelUnavailable, SplitError
from backend.files import full_disk_explained
from backend.models.catalogue import find_checkpoint
from backend.splits import TEST, TRAIN, VALID, Split, is_within_budget
from backend.splits.learnable import fold_gaps, missing_strata, most_folds
from backend.splits.stored import split_name, stored_split
from backend.store.bundle import write_dataset
from backend.store.roots import is_url, open_root
from backend.studies import subsets
from backend.studies.costs import bytes_at_work, bytes_of_checkpoint, bytes_of_run
from backend.studies.executors.common import InProcess, read_dataset
from backend.studies.plan import OF_SPLIT
from backend.studies.planned_runs import (
    PlannedCheckpoint,
    PlannedRun,
    checkpoint_key,
    checkpoint_sha256,
)
from backend.training.progress import Outcome
from backend.training.runs import build_typer, display_name, run_key
from backend.types import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData

    from backend.data import DatasetInfo
    from backend.store.roots import Location
    from backend.studies.executors.common import Executor
    from backend.studies.plan import Plan, Pretraining, Row
    from backend.training.progress import Fold, ProgressEvent
    from backend.types import Series

__all__ = ["Study", "ensure_dataset", "ensure_split", "local_folder", "prepare"]


def ensure_dataset(
    adata: AnnData,
    info: DatasetInfo,
    out: Location,
    *,
    facts: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the bundle of a dataset, with map, nearest cells and counts by gene, unless it is there.

    Parameters
    ----------
    adata, info
        In the layout that `backend.data.load` returns, and `backend.data.describe(adata)`.
    facts
        Takes the place of facts of `info`, and adds others.
    """
    if open_root(out).read_bytes("datasets", info.dataset_id, "dataset.json") is not None:
        return
    from backend.data import cells_and_neighbours
    from backend.data.expression import write_expression

    def fill_expression(folder: Path) -> None:
        say("Writing counts by gene")
        write_expression(folder, adata.var_names, [adata.X])

    say("Placing cells on a map")
    cells, neighbours = cells_and_neighbours(adata, progress=lambda _, step: say(step))
    with full_disk_explained("the table of cells"):
        values = info.to_json() | dict(facts or {})
        write_dataset(
            str(out), values, cells, neighbours=neighbours, fill_expression=fill_expression
        )


def ensure_split(
    cells: pd.DataFrame,
    dataset_id: str,
    folder: Path,
    *,
    protocol: str,
    folds: int,
    split_seed: int,
    budget: str,
    frozen: Path | None = None,
    is_written: bool = True,
) -> tuple[Split, Path]:
    """Return a split and the file that it lies in, or would lie in.

    Parameters
    ----------
    cells
        See `backend.splits.make_splits`.
    folder
        Where splits are kept; one that is missing is made, and written there if `is_written`.
    frozen
        A split that was made elsewhere, to be used and kept.
    """
    if frozen is None:
        name = split_name(dataset_id, protocol, folds=folds, seed=split_seed, budget=budget)
        split = stored_split(
            folder,
            cells,
            protocol,
            dataset_id=dataset_id,
            folds=folds,
            seed=split_seed,
            budget=budget,
            is_written=is_written,
        )
        return split, (folder / name).resolve()
    split = Split.load(frozen)
    if split.dataset_id != dataset_id:
        msg = f"The split was made from dataset {split.dataset_id}; this one is {dataset_id}."
        raise SplitError(msg, "Use the dataset that the split was made from.")
    kept = folder / f"{split.sha256[:16]}.parquet"
    if is_written and not kept.exists():
        split.save(kept)
    return split, frozen.resolve()


@dataclass
class Study:
    """Everything that a plan asks for, on its data.

    facts      : of the datasets, beside those that they state themselves
    notes      : what a reader of the files must know, in sentences
    warnings   : what the splits cannot have, in sentences
    gaps       : types at timepoints that folds lack, a sentence each fold
    n_repeated : fits that the plan names more than once
    """

    plan: Plan
    out: Location
    runs: list[PlannedRun] = field(default_factory=list)
    checkpoints: list[PlannedCheckpoint] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
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
            bytes_of_checkpoint(each.cost_key) for each in self.checkpoints if not each.is_done
        )
        keys = [run.series.preset for run in waiting if run.series.preset]
        return bundles + made + bytes_at_work(keys, self.n_cells, jobs=jobs)

    def execute(
        self, executor: Executor, tell: Callable[[ProgressEvent | Outcome], None]
    ) -> list[Outcome]:
        """Make the missing checkpoints, then run what is not done; a failure stops nothing.

        A `final` fit comes after the folds of its series, whose best epochs it takes.

        Returns
        -------
        One outcome a checkpoint or run that was not done: checkpoints first, then folds.
        """
        if not isinstance(executor, InProcess):
            # Workers read for themselves; this process holds no cells meanwhile.
            read_dataset.cache_clear()
        missing = [each for each in self.checkpoints if not each.is_done]
        outcomes = executor.run(missing, tell) if missing else []
        lost = {each.key: each.reason for each in outcomes if each.status == "failed"}
        folds: list[PlannedRun] = []
        finals: list[PlannedRun] = []
        for run in self.waiting():
            if run.checkpoint in lost:
                reason = f"Its checkpoint was not made: {lost[run.checkpoint]}"
                outcomes.append(Outcome(run.key, "failed", reason))
                tell(outcomes[-1])
                continue
            known = run.identified()
            if known.is_done:
                outcomes.append(Outcome(run.key, "skipped"))
                tell(outcomes[-1])
                continue
            (finals if run.fold == "final" else folds).append(known)
        for tasks in (folds, finals):
            outcomes += executor.run(tasks, tell) if tasks else []
        return outcomes

    def results(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return how each run of the plan stands after `execute`; those done before are skipped."""
        ended = {each.key: each for each in outcomes}
        return [
            replace(
                ended.get(run.key, Outcome(run.key, "skipped")), fold=run.fold, run_id=run.run_id
            )
            for run in self.runs
        ]


def local_folder(out: Location) -> Path:
    """Return where a sweep keeps its lock and splits: `out`, if it is local.

    For a URL it is a folder below FAULTLINE_HOME.
    """
    if is_url(out):
        return home() / "sweeps" / sha256_of(str(out).rstrip("/"))[:16]
    return Path(out)


def prepare(
    plan: Plan,
    out: Location,
    *,
    is_written: bool,
    facts: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Study:
    """Read the data of a plan and work out its runs and their states.

    Parameters
    ----------
    is_written
        Whether splits and the bundles of datasets are written where they are missing.
    facts
        See `ensure_dataset`.
    say
        Told what takes time.

    Raises
    ------
    InputError, SplitError, ModelUnavailable
        If the plan cannot be had on this data; no run was started.
    """
    # What lies at a path may have changed since.
    read_dataset.cache_clear()
    study = Study(plan, out, facts=dict(facts or {}))
    for path in plan.datasets:
        _Preparation(study, path, is_written=is_written, say=say).add()
    if not study.runs:
        msg = f"{plan.name} names no run."
        raise InputError(msg, "Add a [[run]] table with a model.")
    return study


class _Preparation:
    """One dataset of a plan."""

    def __init__(
        self, study: Study, path: Path, *, is_written: bool, say: Callable[[str], None]
    ) -> None:
        self.study, self.path, self.say, self.is_written = study, path, say, is_written
        self.roles = study.plan.roles
        self.adata: AnnData | None = None
        self.cells, self.info, notes = self._read() if study.plan.subset is None else self._draw()
        study.notes += [note for note in notes if note not in study.notes]
        self.splits: dict[tuple[Any, ...], tuple[Split, Path]] = {}
        self.checked: set[tuple[Any, ...]] = set()

    def _read(self) -> tuple[pd.DataFrame, DatasetInfo, list[str]]:
        self.say(f"Reading {self.path.name}")
        self.adata, info, notes = read_dataset(
            self.path, any_genes=self.study.plan.any_genes, roles=self.roles
        )
        return self.adata.obs, info, list(notes)

    def _draw(self) -> tuple[pd.DataFrame, DatasetInfo, list[str]]:
        """Put the plan's subset in the place of the file; it is written only with the results."""
        plan, source = self.study.plan, self.path
        assert plan.subset is not None
        how: dict[str, Any] = {"roles": self.roles, "any_genes": plan.any_genes}
        self.path = subsets.subset_file(
            local_folder(self.study.out), source, plan.subset, self.roles
        )
        notes: tuple[str, ...] = ()
        self.say(f"Drawing a subset of {source.name}")
        if not self.path.exists() and not self.is_written:
            cells, info, notes = subsets.describe(source, plan.subset, **how)
        else:
            if not self.path.exists():
                notes = subsets.draw(source, self.path, plan.subset, **how)
            # The subset is written in the layout of the contract.
            self.roles = None
            cells, info, _ = self._read()
        return cells, info, [*notes, subsets.subset_note(cells, plan.subset, source)]

    def add(self) -> None:
        """Add checkpoints and runs of this dataset to the study."""
        plan, study = self.study.plan, self.study
        study.n_cells = max(study.n_cells, self.info.n_cells)
        made = {each.key for each in study.checkpoints}
        for pretraining in plan.pretrainings:
            for each in self._checkpoints(pretraining):
                if each.key not in made:
                    made.add(each.key)
                    study.checkpoints.append(each)
        known = {run.key for run in study.runs}
        for row in plan.rows:
            split, file = self._split(row.series)
            series = replace(row.series, dataset_id=self.info.dataset_id, folds=split.folds)
            for fold in series.check_folds(row.folds):
                key = run_key(series, fold)
                if key in known:
                    study.n_repeated += 1
                    continue
                known.add(key)
                study.runs.append(self._run(key, series, fold, split, file, row))
        if self.is_written:
            assert self.adata is not None
            ensure_dataset(self.adata, self.info, study.out, facts=study.facts, say=self.say)

    def _split(self, of: Series) -> tuple[Split, Path]:
        """Return the split of a row, and where it lies; made when it is missing."""
        fields = {name: getattr(of, name) for name in OF_SPLIT}
        key = tuple(fields.values())
        if key not in self.splits:
            self.say(f"Splitting by {of.protocol}")
            self.splits[key] = ensure_split(
                self.cells,
                self.info.dataset_id,
                local_folder(self.study.out) / "splits",
                frozen=self.study.plan.split,
                is_written=self.is_written,
                **fields,
            )
            split = self.splits[key][0]
            self.study.warnings += [f"{of.protocol}: {text}" for text in split.warnings]
            self.study.gaps += missing_strata(split, self.cells)
        return self.splits[key]

    def _checkpoints(self, made: Pretraining) -> list[PlannedCheckpoint]:
        split, file = self._split(made.series)
        series = replace(made.series, folds=split.folds)
        return [
            PlannedCheckpoint(
                key=checkpoint_key(series.model, made.name, split.sha256, fold),
                text=f"{series.preset} {made.name} · {split.protocol} · fold {fold}",
                series=series,
                fold=fold,
                dataset=self.path,
                any_genes=self.study.plan.any_genes,
                roles=self.roles,
                split=file,
                home=home(),
                checkpoint_name=made.name,
                is_done=checkpoint_sha256(series.model, made.name, split.sha256, fold) is not None,
                n_train=(
                    len(split.cell_ids) if fold == "final" else int(split.cells(fold, TRAIN).sum())
                ),
            )
            for fold in series.check_folds(made.folds)
        ]

    def _run(
        self, key: str, series: Series, fold: Fold, split: Split, file: Path, row: Row
    ) -> PlannedRun:
        plan, out = self.study.plan, self.study.out
        if fold == "final" and series.preset is not None and is_url(out):
            msg = f"{row.place}: a final fit reads the histories of its folds, which are at a URL."
            raise InputError(msg, "Give --out as a folder, or leave out the fold final.")
        checkpoint = self._needed(series, fold, split, row.place)
        self._check_fold(series, fold, split)
        return PlannedRun(
            key=key,
            text=f"{series.configuration} · {series.protocol} · fold {fold}",
            series=series,
            fold=fold,
            dataset=self.path,
            any_genes=plan.any_genes,
            roles=self.roles,
            split=file,
            out=out,
            options=plan.options,
            display_name=display_name(series),
            checkpoint=checkpoint,
            identity={
                "split_sha256": split.sha256,
                "recipe_version": build_typer(series).recipe_version,
            },
            n_train=round(self._n_train(split, fold) * series.fraction),
            n_predicted=_n_predicted(split, fold),
        ).identified()

    def _n_train(self, split: Split, fold: Fold) -> int:
        if fold != "final":
            return int(split.cells(fold, TRAIN).sum())
        cells = self.cells.loc[split.cell_ids]
        labelled = cells[cells["cell_type_fine"].notna()]
        return int(is_within_budget(labelled, split.budget, seed=split.seed).sum())

    def _needed(self, series: Series, fold: Fold, split: Split, place: str) -> str | None:
        """Return the key of the planned checkpoint that a run starts from, or None."""
        if series.checkpoint is None:
            return None
        key = checkpoint_key(series.model, series.checkpoint, split.sha256, fold)
        planned = {each.key: each for each in self.study.checkpoints}
        if key in planned:
            found = planned[key].series.preset
            if found != series.preset:
                msg = f'{place}: the checkpoint "{series.checkpoint}" is {found}, not {series.preset}.'
                raise InputError(msg, "Name the preset that the [[pretrain]] table makes.")
            return key
        if (series.model, series.checkpoint) in self.study.plan.missing:
            return None
        if not self.study.plan.pretrainings:
            # Refuses what is not registered for this fold, and says how to make it.
            find_checkpoint(series.model, series.checkpoint, split_sha256=split.sha256, fold=fold)
        elif checkpoint_sha256(series.model, series.checkpoint, split.sha256, fold) is None:
            msg = (
                f'{place}: no [[pretrain]] table makes the checkpoint "{series.checkpoint}" of '
                f"{series.model} for fold {fold} of the {split.protocol} split."
            )
            hint = "Give the table the same protocol, folds, split_seed, budget and fold."
            raise ModelUnavailable(msg, hint)
        return None

    def _check_fold(self, series: Series, fold: Fold, split: Split) -> None:
        """Warn of what a fold cannot learn, once; see `fold_gaps`."""
        is_foundation = series.preset is not None
        key = (split.sha256, fold, series.label_level, is_foundation)
        if fold == "final" or key in self.checked:
            return
        self.checked.add(key)
        obs = self.cells
        labels = obs[f"cell_type_{series.label_level}"].astype(object)
        gaps = fold_gaps(
            split,
            fold,
            labels.reindex(pd.Index(split.cell_ids)),
            is_foundation=is_foundation,
            n_possible=most_folds(obs, split.protocol),
        )
        for text in gaps:
            self._warn(text)

    def _warn(self, text: str) -> None:
        if text not in self.study.warnings:
            self.study.warnings.append(text)


def _n_predicted(split: Split, fold: Fold) -> int:
    if fold == "final":
        return 0
    return int(split.cells(fold, VALID).sum() + split.cells(fold, TEST).sum())
