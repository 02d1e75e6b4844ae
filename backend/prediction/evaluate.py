"""Evaluate a file: check it, predict it with stored models, score it against its own labels.

The result is a dataset with one run for each model, as bundles, so that every page shows it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from backend.data.cell_map import QUICK_FIT, ComponentStream, map_components, part_of
from backend.data.check import check
from backend.data.dataset import cells_table, describe_chunks
from backend.data.h5ad import open_dataset
from backend.data.labels import not_labelled, to_lineage
from backend.data.problems import Refusal, some
from backend.data.role_columns import column_candidates
from backend.data.vocabularies import ABSTAINED
from backend.errors import InputError, LabelError
from backend.evaluation.mapping import (
    LabelMatch,
    check_matches,
    common_types,
    match_labels,
    ontology_version,
)
from backend.models.reference import OUTSIDE
from backend.prediction.donor_names import find_in_training
from backend.prediction.out_of_distribution import OOD_SCHEMA, share_outside
from backend.prediction.own_labels import own_labels_table
from backend.prediction.predict import CHUNK, Predictor
from backend.store.attach import attach_expression
from backend.store.bundle import RunRecord, predictions_frame, write_dataset, write_run
from backend.types import EXTERNAL, Series, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from backend.data.h5ad import OpenDataset
    from backend.data.roles import Roles
    from backend.prediction.saved_models import SavedModel

__all__ = ["Evaluated", "evaluate"]

BUDGET: Final = "full"
"""A final run is fitted on all labelled cells of its dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What was made of a file.

    n_unlabelled : cells without a label of their own
    n_unmapped : labelled cells whose label means no type that every model can output
    n_in_training : mapped cells that a model was fitted on, see `find_in_training`
    n_empty : cells without counts: no call and no score
    n_scored : the rest
    outside : run id → share of cells beyond the 95th percentile of unseen training donors
    """

    dataset_id: str
    name: str
    label_level: str
    n_cells: int
    n_unlabelled: int
    n_unmapped: int
    n_in_training: int
    n_empty: int
    n_scored: int
    labels: tuple[LabelMatch, ...]
    run_ids: tuple[str, ...]
    outside: dict[str, float | None]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        return values | {name: list(values[name]) for name in ("labels", "run_ids", "notes")}


def evaluate(
    path: Path,
    models: Sequence[SavedModel],
    out: Path,
    *,
    roles: Roles | None = None,
    given: Mapping[str, str | None] | None = None,
    is_scored: bool = True,
    donor_names: str = "ask",
    least_scored: float = 0.0,
    name: str | None = None,
    facts: Mapping[str, Any] | None = None,
    device: str = "auto",
    reference: Path | None = None,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> Evaluated:
    """Predict a file with stored models and score it; write the bundles below `out`.

    Parameters
    ----------
    path
        The `.h5ad`; every value of it is checked before any prediction.
    models
        Stored models of one label level.
    out
        Folder that holds `runs/` and `datasets/`.
    roles
        Column of each role; guessed when None.
    given
        The user's mapping of labels, see `match_labels`.
    is_scored
        False leaves the file's labels out: the cells are predicted only.
    donor_names
        What donors of known names are, see `find_in_training`.
    least_scored
        Share (0–1) of the labelled cells that must have a type of the models; below it nothing is
        predicted.
    name
        What pages call the dataset; by default what the file says.
    facts
        Further facts for `dataset.json`, such as when it expires.
    device, reference
        See `Predictor`.
    progress
        Called with the share done and what is done now.

    Raises
    ------
    Refusal
        If the file cannot be used.
    InputError, LabelError, ModelUnavailable
        If models, labels and file do not go together.
    """
    started = time.perf_counter()
    purpose = "evaluate" if is_scored else "predict"
    _check(path, roles, purpose, progress)
    with open_dataset(path, roles, purpose=purpose) as dataset:
        obs = dataset.obs()
        counts = obs["cell_type_fine"].value_counts() if is_scored else {}
        counts = {str(label): int(n) for label, n in counts.items() if n}
        types = common_types([model.classes for model in models])
        if models and not types:
            names = ", ".join(sorted(model.run.display_name for model in models))
            msg = f"There is no type that all of {names} can output."
            raise InputError(msg, "Evaluate them one at a time.")
        matches = match_labels(counts, types, given=given)
        try:
            check_matches(matches, least_scored=least_scored)
        except LabelError as error:
            raise LabelError(error.message, _other_columns(dataset) + error.hint) from error
        predictor = Predictor(models, device=device, reference=reference)
        donors = obs["donor"].astype(str).to_numpy()
        stream = ComponentStream(donors, fitted_on=QUICK_FIT)
        parts: list[pd.DataFrame] = []
        told = part_of(progress, 0.15, 0.7)
        info = describe_chunks(_predicted(dataset, obs, predictor, stream, parts, told))
        components = stream.components(_pieces(dataset, obs), progress=part_of(progress, 0.7, 0.8))
        notes = tuple(dataset.notes)
    table = pd.concat(parts, ignore_index=True)
    cell_map = map_components(
        components,
        donors,
        fitted_on=QUICK_FIT,
        progress=part_of(progress, 0.8, 0.95),
    )
    table["umap_x"], table["umap_y"] = cell_map.coordinates.T
    progress(0.95, "Writing the results")
    own = table["cell_type_fine"].to_numpy(dtype=object) if is_scored else _nothing(len(table))
    type_of = {match.label: match.cell_type for match in matches}
    mapped = np.array([None if pd.isna(v) else type_of[v] for v in own], dtype=object)
    training = find_in_training(
        table,
        [answers.joined("was_trained_on") for answers in predictor.answers],
        [model.train_donors() for model in predictor.models],
        names=donor_names,
    )
    in_training = training.cells
    is_empty = table["n_counts"].to_numpy() == 0
    labels = mapped.copy()
    labels[in_training | is_empty] = None
    level = predictor.label_level
    table["cell_type_lineage"] = [None if v is None else to_lineage(v) for v in labels]
    table["cell_type_fine"] = labels if level == "fine" else own
    dataset_id = sha256_of(
        {
            "hashes": dict(info.hashes),
            "level": level,
            "labels": sha256_of([str(v) if v else "" for v in labels]),
            # One file evaluated by two owners is two datasets.
            "place": out.name,
        }
    )[:16]
    if not is_scored and (n_known := int((in_training & ~is_empty).sum())):
        warning = (
            "of these cells were in the training data of a model: what is expected is too high."
        )
        notes = (*notes, f"{n_known:,} {warning}")
    is_labelled = np.array([not pd.isna(v) for v in own], dtype=bool)
    is_mapped = np.array([v is not None for v in mapped], dtype=bool)
    done = Evaluated(
        dataset_id=dataset_id,
        name=name or info.name,
        label_level=level,
        n_cells=info.n_cells,
        n_unlabelled=int((~is_labelled).sum()),
        n_unmapped=int((is_labelled & ~is_mapped).sum()),
        n_in_training=int((is_mapped & in_training & ~is_empty).sum()),
        n_empty=int(is_empty.sum()),
        n_scored=int((is_mapped & ~in_training & ~is_empty).sum()),
        labels=matches,
        run_ids=tuple(_record(model, dataset_id, len(table)).run_id for model in models),
        outside=_outside(predictor, dataset_id, len(table)),
        notes=(*notes, *training.notes, *predictor.gene_notes),
    )
    values = _dataset_facts(path, done, info.to_json(), labels, facts or {})
    write_dataset(out, values, table, neighbours=cell_map.neighbours)
    kept = own_labels_table(
        table["cell_id"].to_numpy(dtype=object), own, mapped,
        in_training=in_training, is_empty=is_empty,
    )  # fmt: skip
    _write_runs(out, done, table, labels, kept, predictor, started)
    progress(0.97, "Keeping the counts by gene")
    attach_expression(path, dataset_id, roots=[out], home=out, roles=roles)
    progress(1.0, "Done")
    return done


def _other_columns(dataset: OpenDataset) -> str:
    """Name the columns that hold known cell types, where the one in use is none of them."""
    used = dataset.found.roles.columns()
    found = column_candidates(dataset.file, used)["cell_type"]
    if not found or used.get("cell_type") in found:
        return ""
    return f'The column "{found[0]}" holds known cell types: --role cell_type={found[0]}. '


def _nothing(n: int) -> np.ndarray:
    return np.full(n, None, dtype=object)


def _check(
    path: Path, roles: Roles | None, purpose: str, progress: Callable[[float, str], None]
) -> None:
    def tell(done: int, total: int, _: str) -> None:
        progress(0.15 * done / max(1, total), "Checking every value")

    report = check(path, roles=roles, purpose=purpose, progress=tell)
    if report.problems:
        worst = report.problems[0]
        raise Refusal(worst.message, worst.hint, code=worst.code)


def _pieces(dataset: OpenDataset, obs: pd.DataFrame) -> Iterator[AnnData]:
    for start in range(0, dataset.n_cells, CHUNK):
        yield dataset.cells(start, start + CHUNK, obs)


def _predicted(
    dataset: OpenDataset,
    obs: pd.DataFrame,
    predictor: Predictor,
    stream: ComponentStream,
    parts: list[pd.DataFrame],
    progress: Callable[[float, str], None],
) -> Iterator[AnnData]:
    """Yield the cells in pieces, each after the models were asked; its table goes to `parts`."""
    done, n = 0, dataset.n_cells
    for cells in _pieces(dataset, obs):
        predictor.add(cells)
        stream.add(cells)
        parts.append(cells_table(cells))
        done += cells.n_obs
        progress(done / n, f"Predicted {done:,} of {n:,} cells")
        yield cells


def _with_no_call(proba: np.ndarray, is_empty: np.ndarray) -> np.ndarray:
    """Add a last column for "no call", certain for cells without counts and nothing for others."""
    wider = np.zeros((len(proba), proba.shape[1] + 1), dtype=proba.dtype)
    wider[:, :-1] = np.where(is_empty[:, None], 0, proba)
    wider[is_empty, -1] = 1
    return wider


def _record(model: SavedModel, dataset_id: str, n_cells: int, **values: Any) -> RunRecord:
    """Return the record of a stored model's predictions of a dataset."""
    source = model.run
    values = {"classes": source.classes} | values
    series = Series(
        dataset_id=dataset_id,
        protocol=EXTERNAL,
        folds=1,
        budget=BUDGET,
        model=source.model,
        preset=source.preset,
        init=source.init,  # type: ignore[arg-type]
        checkpoint=source.checkpoint,
        label_level=source.label_level,
        fraction=source.fraction,
        settings={**source.settings, "final_run": source.run_id},
        seed=source.seed,
    )
    return RunRecord.for_series(
        series,
        fold=0,
        split_sha256=sha256_of({"final_run": source.run_id, "dataset_id": dataset_id}),
        checkpoint_sha256=source.checkpoint_sha256,
        recipe_version=source.recipe_version,
        status="done",
        display_name=source.display_name,
        n_train=source.n_train,
        n_train_donors=source.n_train_donors,
        n_test=n_cells,
        versions=source.versions,
        **values,
    )


def _outside(predictor: Predictor, dataset_id: str, n_cells: int) -> dict[str, float | None]:
    """Return run id → share of the cells that lie outside the reference of its model."""
    return {
        _record(model, dataset_id, n_cells).run_id: share_outside(answers.joined("percentiles"))
        for model, answers in zip(predictor.models, predictor.answers, strict=True)
    }


def _notes(model: SavedModel, done: Evaluated) -> tuple[str, ...]:
    """Return what every view of the run must say."""
    notes = [f"fitted on {model.trained_on()} (final run {model.run_id}), applied to this dataset"]
    if done.n_empty:
        notes.append(f"{done.n_empty:,} cells have no counts: no call, not scored")
    if done.n_in_training:
        notes.append(f"{done.n_in_training:,} cells were in training: predicted, not scored")
    if done.n_unmapped:
        lost = [match.label for match in done.labels if match.cell_type is None]
        notes.append(
            f"{done.n_unmapped:,} cells have a label that the models cannot output "
            f"({some(lost)}): predicted, not scored"
        )
    share = done.outside[_record(model, done.dataset_id, done.n_cells).run_id]
    if share is not None:
        notes.append(
            f"{share * 100:.1f} % of the cells lie outside its training data "
            f"({(1 - OUTSIDE) * 100:.0f} % expected of a new donor)"
        )
    return (*notes, *model.run.notes)


def _dataset_facts(
    path: Path,
    done: Evaluated,
    info: dict[str, Any],
    labels: np.ndarray,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `dataset.json` says."""
    values = info | {
        "dataset_id": done.dataset_id,
        "name": done.name,
        "parent": info["dataset_id"],
        "not_labelled": list(not_labelled(v for v in labels if v is not None)),
        "evaluation": {
            "labels": [asdict(match) for match in done.labels],
            "label_level": done.label_level,
            "ontology": ontology_version(),
            "n_unlabelled": done.n_unlabelled,
            "n_unmapped": done.n_unmapped,
            "n_in_training": done.n_in_training,
            "n_empty": done.n_empty,
            "n_scored": done.n_scored,
            "map_fitted_on": min(QUICK_FIT, done.n_cells),
        },
        **facts,
    }
    if values.get("file_name") and values["source"] == f"file {path.name}":
        # An upload lies on disk under another name than its owner knows.
        values["source"] = f"file {values['file_name']}"
    return values


def _write_runs(
    out: Path,
    done: Evaluated,
    cells: pd.DataFrame,
    labels: np.ndarray,
    own_labels: pa.Table,
    predictor: Predictor,
    started: float,
) -> None:
    cell_ids = cells["cell_id"].to_numpy(dtype=object)
    is_empty = cells["n_counts"].to_numpy() == 0
    for model, answers in zip(predictor.models, predictor.answers, strict=True):
        proba = answers.joined("proba")
        classes = model.classes
        if is_empty.any():
            proba, classes = _with_no_call(proba, is_empty), (*classes, ABSTAINED)
        frame = predictions_frame(cell_ids, labels, proba, classes, 0, "test")
        record = _record(
            model,
            done.dataset_id,
            done.n_cells,
            classes=classes,
            notes=_notes(model, done),
            wall_seconds=round(time.perf_counter() - started, 3),
        )
        ood = pa.table(
            [cell_ids, answers.joined("distances"), answers.joined("percentiles")],
            schema=OOD_SCHEMA,
        )
        log = f"predicted {done.n_cells:,} cells with final run {model.run_id}\n"
        write_run(out, record, frame, tables={"ood": ood, "own_labels": own_labels}, log=log)
