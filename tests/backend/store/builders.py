"""Tiny datasets and runs, made in code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backend.store.bundle import RunRecord, predictions_frame, write_dataset, write_run
from backend.types import Series

if TYPE_CHECKING:
    from pathlib import Path

DATASET = "d" * 16
FINE = ("HSC", "HSC-like", "Mono", "Mono-like", "T")


def cells(n: int = 60, seed: int = 0, prefix: str = "cell") -> pd.DataFrame:
    """Cells of four donors, two a timepoint, a tenth of them without label."""
    rng = np.random.default_rng(seed)
    fine = rng.choice(np.array(FINE, dtype=object), n)
    lineage = np.array([label.removesuffix("-like") for label in fine], dtype=object)
    blank = rng.random(n) < 0.1
    fine[blank], lineage[blank] = None, None
    donor = rng.integers(0, 4, n)
    return pd.DataFrame(
        {
            "cell_id": [f"{prefix}{i}" for i in range(n)],
            "cell_type_fine": fine,
            "cell_type_lineage": lineage,
            "timepoint": np.where(donor < 2, "Healthy", "Diagnosis"),
            "donor": [f"donor{i}" for i in donor],
            "study": None,
            "sample": [f"donor{i}-D0" for i in donor],
            "day": 0,
            "label_source": np.where(donor < 2, "clustering", "classifier"),
            "genotype": rng.choice(["mutant", "wildtype_only", "none"], n),
            "is_malignant": pd.array(rng.random(n) < 0.5, dtype="boolean"),
            "n_counts": rng.random(n).astype(np.float32) * 1000,
            "n_genes": rng.integers(100, 900, n),
            "umap_x": rng.random(n),
            "umap_y": rng.random(n),
        }
    )


def info(dataset_id: str = DATASET, **changes: Any) -> dict[str, Any]:
    values = {
        "dataset_id": dataset_id,
        "name": "Tiny cohort",
        "simulated": True,
        "source": "made in a test",
        "citation": "none",
        "licence_note": "none",
        "hashes": {},
        "parent": None,
        "n_cells": 60,
        "n_donors": 4,
        "timepoints": ["Healthy", "Diagnosis"],
        "not_labelled": ["CLP"],
    }
    return values | changes


def series(**changes: Any) -> Series:
    values: dict[str, Any] = {
        "dataset_id": DATASET,
        "protocol": "donor",
        "folds": 2,
        "model": "logreg",
        "label_level": "fine",
    }
    return Series(**(values | changes))


def record(of: Series, fold: int | str = 0, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "status": "done",
        "split_sha256": "5" * 64,
        "display_name": of.model,
        "classes": FINE if of.label_level == "fine" else ("HSC", "Mono", "T"),
        "created_at": "2025-01-01T00:00:00+00:00",
    }
    return RunRecord.for_series(of, fold=fold, **(values | changes))  # type: ignore[arg-type]


def predictions(
    table: pd.DataFrame, run: RunRecord, *, seed: int = 0, test: np.ndarray | None = None
) -> pd.DataFrame:
    """Random probabilities: every cell is tested, except that some are valid when `test` says so."""
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(len(run.classes)), len(table)).astype(np.float32)
    roles = "test" if test is None else np.where(test, "test", "valid")
    labels = table[f"cell_type_{run.label_level}"]
    return predictions_frame(table["cell_id"], labels, proba, run.classes, run.fold, roles)


def fill_root(root: Any, of: Series, *, seed: int = 0, n: int = 60, dataset: bool = True) -> None:
    """Write a dataset and all folds of one series: half the cells tested in each of two folds."""
    table = cells(n)
    if dataset:
        write_dataset(root, info(of.dataset_id), table)
    for fold in range(of.folds):
        run = record(of, fold)
        tested = np.arange(n) % of.folds == fold
        seen = tested | (np.arange(n) % 5 == 0)
        frame = predictions(table[seen], run, seed=seed + fold, test=tested[seen])
        write_run(root, run, frame)


def unseal(folder: Path) -> None:
    """Take the list of sha256 out of a bundle's head, as who forges a file would."""
    (head,) = [*folder.glob("run.json"), *folder.glob("dataset.json")]
    values = json.loads(head.read_text(encoding="utf-8"))
    del values["files"]
    head.write_text(json.dumps(values), encoding="utf-8")
