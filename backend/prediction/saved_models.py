"""Stored models: `final` runs, fitted on all labelled cells of a dataset and kept to predict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from backend.data.layout import UNKNOWN_DONOR
from backend.errors import ModelUnavailable
from backend.models.reference import Reference
from backend.models.registry import model_class
from backend.store.bundle import RunRecord, parse_run
from backend.store.cache import PUBLIC, default_roots
from backend.store.roots import is_url, open_root
from backend.types import ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.models.base import CellTyper
    from backend.store.roots import Location

__all__ = ["SavedModel", "find_saved_model", "list_saved_models", "visible_roots"]

_TRAIN_CELLS: Final = "train_cells.bin"


def visible_roots(owner: str | None = None) -> list[Location]:
    """Return the folders of bundles that an owner may see: the public ones and the owner's."""
    return [place for who, place in default_roots() if who in (PUBLIC, owner)]


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A `final` run whose model can be loaded.

    run : its record
    folder : `model/` of its bundle
    roots : where its dataset is looked for
    """

    run: RunRecord
    folder: Path
    roots: tuple[Location, ...]

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.run.run_id

    @property
    def classes(self) -> tuple[str, ...]:
        """All that the model can answer, in the order of its probabilities."""
        return self.run.classes

    def load(self, *, device: str = "auto") -> CellTyper:
        """Read the model.

        Raises
        ------
        ModelUnavailable, InputError
            If a file of it is missing or damaged.
        """
        if self.run.preset is None:
            typer = model_class(self.run.model).load(self.folder, device=device)
        else:
            from backend.training.finetune import Classifier

            typer = Classifier.load(self.folder, device=device)
        if tuple(typer.classes_) != self.classes:
            msg = (
                f"The model of run {self.run_id} answers {len(typer.classes_)} classes, its record "
                f"names {len(self.classes)} or others."
            )
            raise ModelUnavailable(msg, "Fit the final run again.")
        return cast("CellTyper", typer)

    def reference(self) -> Reference | None:
        """Return where its training cells lie, or None where that was not kept."""
        return Reference.load(self.folder)

    def train_cells(self) -> np.ndarray:
        """Return the sorted fingerprints of its training cells, (n,) uint64.

        Raises
        ------
        ModelUnavailable
            If they were not kept: then nothing says which cells the model has seen.
        """
        path = self.folder / _TRAIN_CELLS
        content = path.read_bytes() if path.is_file() else b""
        if not content or len(content) % 8:
            msg = f"Run {self.run_id} does not say which cells it was fitted on ({len(content)} bytes)."
            raise ModelUnavailable(msg, "Fit the final run again.")
        return np.frombuffer(content, dtype="<u8")

    def train_donors(self) -> dict[str, frozenset[str]]:
        """Return donor → studies of its dataset; empty where that dataset is not at hand."""
        import pyarrow.parquet as pq

        for place in self.roots:
            root = open_root(place)
            if root.read_bytes("datasets", self.run.dataset_id, "dataset.json") is None:
                continue
            with root.local_file("datasets", self.run.dataset_id, "cells.parquet") as path:
                rows = pq.read_table(path, columns=["donor", "study"]).to_pandas()
            rows = rows[rows["donor"].notna() & (rows["donor"] != UNKNOWN_DONOR)]
            return {
                str(name): frozenset(studies.dropna())
                for name, studies in rows.groupby("donor")["study"]
            }
        return {}

    def trained_on(self) -> str:
        """Name the dataset that it was fitted on."""
        for place in self.roots:
            head = open_root(place).read_bytes("datasets", self.run.dataset_id, "dataset.json")
            if head is not None:
                return str(json.loads(head).get("name") or self.run.dataset_id)
        return f"dataset {self.run.dataset_id}"


def find_saved_model(run_id: str, roots: Sequence[Location]) -> SavedModel:
    """Return the stored model of a run.

    Parameters
    ----------
    run_id
        Id of a `final` run.
    roots
        Folders that hold `runs/`, see `visible_roots`.

    Raises
    ------
    ModelUnavailable
        If there is no such run, it is no final run, or its model was not kept.
    """
    record = None
    for place in roots if ID.fullmatch(run_id) else ():
        head = open_root(place).read_bytes("runs", run_id, "run.json")
        if head is None:
            continue
        record = parse_run(head, run_id)
        if record.status != "done" or record.fold != "final" or is_url(place):
            continue
        folder = Path(place) / "runs" / run_id / "model"
        if (folder / "model.json").is_file():
            return SavedModel(record, folder, tuple(roots))
    if record is None:
        msg = f'There is no run "{run_id[:40]}".'
        raise ModelUnavailable(msg, "Choose a final run: `python -m backend predict --list`.")
    kind = f"fold {record.fold}" if record.fold != "final" else "a final run without a stored model"
    msg = f"Run {run_id} ({record.display_name}, {record.status}) is {kind}."
    raise ModelUnavailable(
        msg, "Only final runs keep a model: `python -m backend run --fold final`."
    )


def list_saved_models(roots: Sequence[Location]) -> list[SavedModel]:
    """Return every stored model below some roots, by display name."""
    found: dict[str, SavedModel] = {}
    for place in roots:
        if is_url(place):
            continue
        for path in sorted(Path(place).glob("runs/*/model/model.json")):
            folder = path.parent
            name = folder.parent.name
            if not ID.fullmatch(name) or name in found:
                continue
            head = open_root(place).read_bytes("runs", name, "run.json")
            record = None if head is None else parse_run(head, name)
            if record is not None and record.status == "done" and record.fold == "final":
                found[name] = SavedModel(record, folder, tuple(roots))
    return sorted(found.values(), key=lambda model: (model.run.display_name, model.run_id))
