"""Run the folds of a series and leave a bundle for each."""

from __future__ import annotations

import dataclasses
import importlib
import logging
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from platform import python_version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend import __version__
from backend.errors import FaultlineError, InputError, ModelUnavailable, SplitError
from backend.files import DiskFull, full_disk_explained
from backend.models import catalogue
from backend.models.registry import model_class
from backend.splits import TEST, TRAIN, VALID, is_within_budget
from backend.store.bundle import (
    RunRecord,
    is_damaged,
    is_done,
    parse_run,
    predictions_frame,
    write_run,
)
from backend.store.roots import open_root
from backend.training.fit_workspace import CHECKPOINT_MINUTES, DatasetWorkspace, workspace_folder
from backend.training.measure import Measured
from backend.training.overlap import Origin, check_overlap
from backend.training.progress import Fold, Folds, Outcome, ProgressEvent
from backend.training.settings import check_settings, preset_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData

    from backend.data import DatasetInfo
    from backend.models.base import CellTyper
    from backend.splits import Split
    from backend.store.roots import Location
    from backend.types import Series

__all__ = ["build_typer", "display_name", "fold_histories", "run_key", "run_series", "versions_of"]

_LOG = logging.getLogger(__name__)

# What a fit may die of without being a fault of this program: diverged numbers, no memory,
# a device that gives up. Everything else is a bug and ends the command.
_MODEL_FAILURES: Final = (FaultlineError, ArithmeticError, MemoryError, RuntimeError, ValueError)

_PACKAGES: Final = ("anndata", "numpy", "pandas", "scikit-learn", "scipy")
_PACKAGES_OF: Final = {"celltypist": ("celltypist",)}
_FOUNDATION_PACKAGES: Final = ("torch", "lightning-fabric")
_PACKAGES_OF_SETTING: Final = {"lora": "peft", "oversample": "imbalanced-learn"}


def run_key(series: Series, fold: Fold) -> str:
    """Return what a run is known by among the runs of a plan, before its id can be known."""
    return f"{series.series_id}-{fold}"


def build_typer(
    series: Series, *, is_final: bool = False, classifier: Callable[..., CellTyper] | None = None
) -> CellTyper:
    """Return the unfitted model of a series.

    Parameters
    ----------
    is_final
        Whether it is to be saved.
    classifier
        What wraps a foundation model: called with model key, preset, init, checkpoint and
        settings. By default `backend.training.finetune.Classifier`.

    Raises
    ------
    ModelUnavailable
        If the model is unknown, or is to be saved and cannot be.
    InputError
        If preset, init, checkpoint or settings do not fit the model.
    """
    model = model_class(series.model)
    preset = preset_of(model, series.preset)
    if is_final and not model.is_savable:
        msg = f"{model.display_name} cannot be saved, so a final fit of it would be lost."
        raise ModelUnavailable(msg, "Choose folds, or another model.")
    if preset is None:
        check_settings(model, series.settings)
        typer: CellTyper = model(**series.settings)
        return typer
    if classifier is None:
        # Imports torch, which the baselines do without.
        classifier = importlib.import_module("backend.training.finetune").Classifier
    return classifier(series.model, preset, series.init, series.checkpoint, series.settings)


def run_series(
    adata: AnnData,
    info: DatasetInfo,
    split: Split,
    series: Series,
    *,
    out: Path,
    folds: Folds = "all",
    progress: Callable[[ProgressEvent], None] | None = None,
    classifier: Callable[..., CellTyper] | None = None,
    work: Path | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    workers: int | None = None,
    allow_overlap: bool = False,
) -> list[Outcome]:
    """Fit and predict the folds of a series, each into a bundle below `out`.

    Parameters
    ----------
    adata
        In the layout that `backend.data.load` returns; holds every cell of the split.
    info
        `backend.data.describe(adata)`.
    split
        The split that the series names.
    folds
        `all`, or fold numbers and `final`.
    progress
        Called at every change of state, and every few steps of a fit.
    classifier
        See `build_typer`.
    work
        Folder for tokens and snapshots, by default `work` below `out`. Snapshots of a finished
        run are removed; tokens stay, for the next run that reads the same.
    checkpoint_minutes
        Between two snapshots of a fit. A run that was killed goes on from the last one.
    workers
        Threads that make batches in advance; by default none on a CPU and some on a GPU.
    allow_overlap
        Go on where a checkpoint was pre-trained on validation or test cells, with a badge.

    Returns
    -------
    One outcome a fold, in order. A finished fold is skipped; a fold whose model failed leaves a
    `failed` bundle with the reason, and the next fold goes on.

    Raises
    ------
    InputError, ModelUnavailable, SplitError
        Before any fit, if series, split and data do not belong together.
    JobFailed
        If the disk is full: no half bundle is left, and what was finished stays.
    """
    if checkpoint_minutes < 0 or (workers is not None and workers < 0):
        msg = f"checkpoint_minutes is {checkpoint_minutes}, and workers {workers}."
        raise InputError(msg, "Give numbers from 0.")
    tell = progress or (lambda event: _LOG.debug("%s", event))
    rows = _check(adata, info, split, series)
    wanted = series.check_folds(folds)
    typer = build_typer(series, is_final="final" in wanted, classifier=classifier)
    origin = check_overlap(adata, rows, split, series, wanted, is_allowed=allow_overlap)
    workspace = DatasetWorkspace(
        folder=workspace_folder(out, work),
        adata=adata,
        dataset_id=info.dataset_id,
        checkpoint_minutes=checkpoint_minutes,
        workers=workers,
    )

    outcomes = []
    for number, fold in enumerate(wanted):
        typer = build_typer(series, classifier=classifier) if number else typer
        outcomes.append(
            _run_fold(
                adata,
                rows,
                split,
                series,
                fold,
                typer,
                origin,
                out=out,
                progress=tell,
                workspace=workspace,
            )
        )
    return outcomes


def _check(adata: AnnData, info: DatasetInfo, split: Split, series: Series) -> np.ndarray:
    """Return the row in `adata` of each cell of the split."""
    for name, found, wanted in (
        ("dataset", split.dataset_id, series.dataset_id),
        ("dataset", info.dataset_id, series.dataset_id),
        ("protocol", split.protocol, series.protocol),
        ("number of folds", split.folds, series.folds),
        ("split seed", split.seed, series.split_seed),
        ("budget", split.budget, series.budget),
    ):
        if found != wanted:
            msg = f'The {name} is "{found}", but the series says "{wanted}".'
            raise SplitError(msg, "Make the split from this dataset with the same options.")
    rows = adata.obs_names.get_indexer(pd.Index(split.cell_ids))
    if (rows < 0).any():
        msg = f"{int((rows < 0).sum()):,} of {len(rows):,} cells of the split are not in the data."
        raise SplitError(msg, "Use the dataset that the split was made from.")
    return rows


def _run_fold(
    adata: AnnData,
    rows: np.ndarray,
    split: Split,
    series: Series,
    fold: Fold,
    typer: CellTyper,
    origin: Origin,
    *,
    out: Path,
    progress: Callable[[ProgressEvent], None],
    workspace: DatasetWorkspace,
) -> Outcome:
    """Fit and predict one fold, and write its bundle."""
    typer.at_fold(split.sha256, fold)
    identity: dict[str, Any] = {
        "fold": fold,
        "split_sha256": split.sha256,
        "checkpoint_sha256": typer.checkpoint_sha256,
        "recipe_version": typer.recipe_version,
    }
    run_id, key = series.run_id(**identity), run_key(series, fold)

    def tell(event: ProgressEvent) -> None:
        progress(dataclasses.replace(event, fold=fold, key=key))

    if is_done(out, run_id):
        tell(ProgressEvent("skipped", "finished before"))
        return Outcome(key, "skipped", fold=fold, run_id=run_id)

    if fold == "final":
        typer.stop_like(fold_histories(out, series, split))
    label_key = f"cell_type_{series.label_level}"
    train_rows = _train_rows(adata, rows, split, series, fold, label_key)
    train = adata[train_rows].copy()
    nothing = np.zeros(0, dtype=np.int64)
    valid_rows = nothing if fold == "final" else rows[split.cells(fold, VALID)]
    test_rows = nothing if fold == "final" else rows[split.cells(fold, TEST)]
    valid = adata[valid_rows].copy()
    facts: dict[str, Any] = {
        "n_train": len(train_rows),
        "n_valid": len(valid_rows),
        "n_test": len(test_rows),
        "n_train_donors": int(train.obs["donor"].nunique()),
        "display_name": display_name(series) + origin.badge,
        "versions": versions_of(series),
    }
    log = [f"{facts['n_train']:,} training cells of {facts['n_train_donors']} donors"]
    untrained = _untrained(adata.obs[label_key].iloc[rows], train.obs[label_key])
    predictions: pd.DataFrame | None = None
    error: BaseException | None = None
    with Measured() as measured:
        try:
            tell(ProgressEvent("fitting", log[0]))
            if typer.kind == "foundation":
                typer.work_in(workspace.of_run(run_id, tell))
            typer.fit(train, label_key=label_key, valid=valid, seed=series.seed)
            log.append(f"fitted after {measured.wall_seconds:.1f} s")
            if fold != "final":
                n_predicted = len(valid_rows) + len(test_rows)
                tell(ProgressEvent("predicting", f"{n_predicted:,} cells"))
                parts = [(valid, "valid"), (adata[test_rows].copy(), "test")]
                predictions = _predict(typer, parts, label_key, fold, split)
        except DiskFull:
            # No property of this fit: it goes on when there is room again.
            raise
        except _MODEL_FAILURES as failure:
            error = failure
    facts |= {
        "wall_seconds": round(measured.wall_seconds, 3),
        "peak_memory_mib": round(measured.peak_memory_mib, 1),
        "device": str(typer.device_),
        "notes": tuple(
            dict.fromkeys((*origin.notes.get(fold, ()), *_notes(typer, series), *untrained))
        ),
    }
    if error is not None:
        _LOG.warning("fold %s of %s failed", fold, series.configuration, exc_info=error)
        reason = str(error) or type(error).__name__
        record = RunRecord.for_series(
            series,
            status="failed",
            reason=reason,
            error_kind=type(error).__name__,
            **identity,
            **facts,
        )
        with full_disk_explained("the reason why a run failed"):
            write_run(out, record, None, log="\n".join([*log, f"failed: {reason}"]) + "\n")
        if isinstance(error, FaultlineError):
            # It would end the same way again; memory or a device may be free next time.
            workspace.remove_snapshots(run_id)
        tell(ProgressEvent("failed", reason))
        seconds = measured.wall_seconds
        return Outcome(key, "failed", reason, seconds, fold=fold, run_id=run_id)

    log += [f"done after {measured.wall_seconds:.1f} s", *facts["notes"]]
    record = RunRecord.for_series(
        series,
        status="done",
        classes=tuple(typer.classes_),
        chosen=dict(typer.chosen_),
        convergence=None if typer.convergence_ is None else dict(typer.convergence_),
        **identity,
        **facts,
    )
    report = typer.load_report_
    with full_disk_explained("the bundle of a run"):
        write_run(
            out,
            record,
            predictions,
            history=typer.history_,
            load_report=None if report is None else dataclasses.asdict(report),
            model_writer=_model_writer(typer, train, label_key) if fold == "final" else None,
            log="\n".join(log) + "\n",
        )
    workspace.remove_snapshots(run_id)
    tell(ProgressEvent("done", f"{measured.wall_seconds:.1f} s"))
    return Outcome(key, "done", None, measured.wall_seconds, fold=fold, run_id=run_id)


def fold_histories(out: Location, series: Series, split: Split) -> list[pd.DataFrame]:
    """Return the histories of the finished folds of a series on a split, by fold.

    A model without epochs leaves no history.
    """
    root, found = open_root(out), {}
    for name in root.names("runs"):
        content = root.read_bytes("runs", name, "run.json")
        # A damaged bundle is no finished fold; the next run of that fold replaces it.
        if content is None or is_damaged(content):
            continue
        record = parse_run(content, name)
        is_of_series = (record.series_id, record.split_sha256) == (series.series_id, split.sha256)
        if not is_of_series or record.status != "done" or record.fold == "final":
            continue
        table = root.read_bytes("runs", name, "history.parquet")
        if table is not None:
            found[record.fold] = pd.read_parquet(BytesIO(table))
    return [found[fold] for fold in sorted(found)]


def versions_of(series: Series) -> dict[str, str]:
    """Return package → version of what computes the runs of a series.

    They are recorded with a run, and never part of its id.
    """
    packages = (
        *_PACKAGES,
        *_PACKAGES_OF.get(series.model, ()),
        *(_FOUNDATION_PACKAGES if series.preset is not None else ()),
        *(name for key, name in _PACKAGES_OF_SETTING.items() if series.settings.get(key)),
    )
    versions = {"faultline": __version__, "python": python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def _untrained(labels: pd.Series, trained: pd.Series) -> list[str]:
    """Return a note when the split leaves a type without a training cell."""
    types = sorted(set(labels.dropna().astype(str)) - set(trained.astype(str)))
    if not types:
        return []
    more = f" and {len(types) - 5} more" if len(types) > 5 else ""
    return [f"no training cell, so never predicted: {', '.join(types[:5])}{more}"]


def _train_rows(
    adata: AnnData, rows: np.ndarray, split: Split, series: Series, fold: Fold, label_key: str
) -> np.ndarray:
    """Return the rows to train on, in the order of `adata`."""
    is_labelled = adata.obs[label_key].notna().to_numpy()
    chosen = np.sort(rows if fold == "final" else rows[split.cells(fold, TRAIN)])
    chosen = chosen[is_labelled[chosen]]
    if fold == "final":
        obs = adata.obs.iloc[chosen]
        chosen = chosen[is_within_budget(obs, split.budget, seed=split.seed)]
    if series.fraction < 1:
        labels = adata.obs[label_key].astype(str).to_numpy()[chosen]
        chosen = chosen[_is_in_fraction(labels, series.fraction, series.seed)]
    if fold != "final":
        split.check_fit_cells(fold, adata.obs_names.to_numpy()[chosen])
    return chosen


def _is_in_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose a share of the cells of each type, at least one; small shares lie in larger ones."""
    order = pd.Series(np.random.default_rng(seed).random(len(labels)))
    by_type = order.groupby(labels)
    n_wanted = np.ceil(by_type.transform("size") * fraction)
    return (by_type.rank(method="first") <= n_wanted).to_numpy()


def _predict(
    typer: CellTyper,
    parts: Sequence[tuple[AnnData, str]],
    label_key: str,
    fold: Fold,
    split: Split,
) -> pd.DataFrame:
    """Return the predictions of valid and test cells, in the order of the split."""
    frames = []
    for cells, role in parts:
        if cells.n_obs == 0:
            continue
        predictions = typer.predict(cells)
        frames.append(
            predictions_frame(
                predictions.cell_ids,
                cells.obs[label_key].astype(object),
                predictions.proba,
                predictions.classes,
                fold,
                role,
            )
        )
    if not frames:
        msg = f"Fold {fold} has no cell to predict."
        raise SplitError(msg, "Use fewer folds.")
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _model_writer(typer: CellTyper, train: AnnData, label_key: str) -> Callable[[Path], None]:
    from backend.data.fingerprint import cell_fingerprints
    from backend.models.reference import fit_reference

    def write(folder: Path) -> None:
        typer.save(folder)
        prints = np.sort(cell_fingerprints(train)).astype("<u8")
        (folder / "train_cells.bin").write_bytes(prints.tobytes())
        reference = fit_reference(typer, train, label_key=label_key)
        if reference is not None:
            reference.save(folder)

    return write


def display_name(series: Series) -> str:
    """Return the name that views show, for example `scGPT small, scratch`."""
    model = model_class(series.model)
    if series.preset is None:
        return str(model.display_name)
    tag = series.preset.rpartition(".")[2].replace("_", " ")
    is_inhouse = series.checkpoint is not None and catalogue.is_inhouse_name(
        series.model, series.checkpoint
    )
    return f"{model.display_name} {tag}, {series.init}" + (" in-house" if is_inhouse else "")


def _notes(typer: CellTyper, series: Series) -> tuple[str, ...]:
    """Return the sentences that every view of the run shows."""
    notes = list(typer.notes_)
    if series.preset is not None and series.init == "scratch":
        notes.insert(0, "architecture trained from scratch — published weights not used")
    return tuple(dict.fromkeys(notes))
