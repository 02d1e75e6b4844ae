"""A small results folder for tests: simulated predictions written as real bundles.

    from tests.helpers import open_store, write_results

    results = write_results(tmp_path)            # ~2 s: 30 samples, 2,859 cells, 50 runs
    store = open_store(tmp_path)                 # in memory, synced
    scope = results.scope(protocol="donor")      # backend.types.Scope
    results.predicted["logreg", "donor", 0]      # predicted lineage per cell, in the order of
    results.cells                                # ... these rows (columns of cells.parquet)

What is in it (`write_results` defaults): 6 Healthy donors, 12 patients at Diagnosis, 6 of them
also at Post-treatment and at Relapse; two studies; labels of Healthy cells from clustering, of
patients from a classifier; malignant `X-like` fine labels; about 2 % unlabelled cells; CLP is rare
and hard; every model falls with the timepoint. Series at level lineage, protocols random and
donor, 5 folds, budget equal:

- `majority` (seed 0), `logreg` (seeds 0 and 1), `hgb` (seed 0; under `donor` its fold 3 failed)
- `logreg` at level fine (seed 0), scored at both levels.

Nothing is fitted: predictions are drawn, with a skill per type, timepoint, donor and model.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from backend.data.expression import write_expression
from backend.store.bundle import RunRecord, predictions_frame, write_dataset, write_run
from backend.types import Scope, Series, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "GENES",
    "MODELS",
    "Results",
    "ask_here",
    "draw_cells",
    "open_store",
    "two_components",
    "write_results",
]

TYPES: Final = ("HSC", "GMP", "Mono", "B", "T", "NK", "CLP")
_SHARE: Final = (0.16, 0.14, 0.24, 0.14, 0.2, 0.1, 0.02)
_SKILL: Final = dict(zip(TYPES, (0.62, 0.72, 0.86, 0.96, 0.9, 0.7, 0.3), strict=True))
_MALIGNANT: Final = ("HSC", "GMP", "Mono")
_DROP: Final = {"Healthy": 0.0, "Diagnosis": 0.1, "Post-treatment": 0.08, "Relapse": 0.3}

GENES: Final = (
    "MPO", "LYZ", "CD34", "ELANE", "CD79A", "CD3D", "NKG7", "HBB", "GATA1", "IRF8", "TCF4", "S100A8",
    "JUN", "FOS", "ACTB", "B2M", "CD74", "TUBA1B", "HSPA5", "KLF6",
)  # fmt: skip
"""Genes of the counts by gene."""

MODELS: Final = {
    "majority": ("Majority class", (0,)),
    "logreg": ("Logistic regression (L1)", (0, 1)),
    "hgb": ("Gradient boosting", (0,)),
}
"""Key to display name and seeds."""


@dataclass
class Results:
    """What `write_results` wrote; `predicted` is keyed by (configuration, protocol, seed)."""

    root: Path
    dataset_id: str
    cells: pd.DataFrame
    predicted: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    predicted_fine: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def scope(self, **changes: Any) -> Scope:
        return Scope(dataset_id=self.dataset_id, **changes)


def draw_cells(
    *,
    samples: dict[str, int] | None = None,
    cells_per_sample: int = 90,
    n_studies: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw cells in the columns of `cells.parquet`.

    Parameters
    ----------
    samples
        Timepoint to number of donors. Patients are shared between timepoints from the first on.
    """
    rng = np.random.default_rng(seed)
    counts = samples or {"Healthy": 6, "Diagnosis": 12, "Post-treatment": 6, "Relapse": 6}
    parts = []
    for timepoint, n_donors in counts.items():
        healthy = timepoint == "Healthy"
        for index in range(n_donors):
            donor = f"{'BM' if healthy else 'AML'}{index + 1:02d}"
            n = int(rng.integers(cells_per_sample * 2 // 3, cells_per_sample * 4 // 3))
            share = rng.dirichlet(30 * np.array(_SHARE))
            lineage = rng.choice(TYPES, n, p=share)
            like = np.isin(lineage, _MALIGNANT) & (rng.random(n) < (0.0 if healthy else 0.7))
            fine = np.where(like, np.char.add(lineage.astype("U12"), "-like"), lineage)
            known = rng.random(n) > 0.02
            sample = f"{donor}-{timepoint}"
            mutant = np.where(like & (rng.random(n) < 0.4), "mutant", "none")
            parts.append(
                pd.DataFrame(
                    {
                        "cell_id": [f"{sample}_{i:04d}" for i in range(n)],
                        "cell_type_fine": np.where(known, fine.astype(object), None),
                        "cell_type_lineage": np.where(known, lineage.astype(object), None),
                        "timepoint": timepoint,
                        "donor": donor,
                        "study": f"S{index % n_studies + 1}",
                        "sample": sample,
                        "day": pd.array([None if healthy else 0] * n, dtype="Int32"),
                        "label_source": "clustering" if healthy else "classifier",
                        "genotype": mutant,
                        "is_malignant": pd.array(like, dtype="boolean"),
                        "n_counts": rng.integers(800, 9000, n).astype(np.float32),
                        "n_genes": rng.integers(400, 3000, n).astype(np.int32),
                        "umap_x": rng.normal(size=n).astype(np.float32),
                        "umap_y": rng.normal(size=n).astype(np.float32),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def write_results(
    root: Path,
    *,
    cells: pd.DataFrame | None = None,
    name: str = "Tiny course",
    simulated: bool = True,
    source: str = "simulated",
    protocols: tuple[str, ...] = ("random", "donor"),
    models: dict[str, tuple[str, tuple[int, ...]]] | None = None,
    failed: tuple[tuple[str, str, int], ...] = (("hgb", "donor", 3),),
    fine: tuple[str, ...] = ("logreg",),
    folds: int = 5,
) -> Results:
    """Write a dataset and the series of some models below `root`.

    Parameters
    ----------
    failed
        (model, protocol, fold) of the runs that fail.
    fine
        Models that have a series at level fine too, under every protocol.
    """
    cells = draw_cells() if cells is None else cells
    dataset_id = sha256_of([name, len(cells), int(cells["n_counts"].sum())])[:16]
    types = set(cells["cell_type_lineage"].dropna())
    info = {
        "dataset_id": dataset_id,
        "name": name,
        "simulated": simulated,
        "source": source,
        "citation": "Drawn for tests." if simulated else "van Galen et al., Cell 2019",
        "licence_note": "",
        "hashes": {},
        "parent": None,
        "n_cells": len(cells),
        "n_donors": int(cells["donor"].nunique()),
        "n_genes": 0,
        "timepoints": sorted(cells["timepoint"].dropna().unique()),
        "not_labelled": [name for name in ("CLP", "Pre-B") if name not in types],
    }
    write_dataset(root, info, cells, fill_expression=partial(_write_counts, cells=cells))
    results = Results(root, dataset_id, cells)
    for model, (display_name, seeds) in (MODELS if models is None else models).items():
        for protocol in protocols:
            bad = {fold for key, kept, fold in failed if (key, kept) == (model, protocol)}
            for seed in seeds:
                made = _write_series(
                    results, model, display_name, protocol, seed, "lineage", folds, bad
                )
                results.predicted[model, protocol, seed] = made
            if model in fine:
                made = _write_series(
                    results, model, display_name, protocol, 0, "fine", folds, set()
                )
                results.predicted_fine[model, protocol] = made
    return results


def _write_counts(folder: Path, *, cells: pd.DataFrame) -> None:
    """Write counts of some genes, a few of which are higher in every other type."""
    rng = np.random.default_rng(len(cells))
    of_type = pd.factorize(cells["cell_type_fine"], sort=True)[0] % 2
    means = np.where((of_type[:, None] == 1) & (np.arange(len(GENES)) < 4), 4.0, 1.0)
    write_expression(folder, GENES, [rng.poisson(means)])


def _folds_of(cells: pd.DataFrame, protocol: str, folds: int) -> np.ndarray:
    unit = {"donor": "donor", "study": "study"}.get(protocol)
    if unit is None:
        return np.random.default_rng(0).integers(0, folds, len(cells))
    return pd.factorize(cells[unit], sort=True)[0] % folds


def _probabilities(
    cells: pd.DataFrame, classes: list[str], model: str, protocol: str, seed: int, level: str
) -> np.ndarray:
    """Draw (n_cells, n_classes): a right or a wrong type, more peaked when it is right."""
    rng = np.random.default_rng([seed, len(model), len(protocol), len(level)])
    label = cells[f"cell_type_{level}"].fillna(classes[0]).to_numpy()
    lineage = cells["cell_type_lineage"].fillna(TYPES[0]).to_numpy()
    n, index = len(cells), {name: i for i, name in enumerate(classes)}
    if model == "majority":
        share = cells[f"cell_type_{level}"].value_counts(normalize=True).reindex(classes)
        return np.tile(share.to_numpy(), (n, 1))
    donor = pd.factorize(cells["donor"], sort=True)[0]
    skill = np.array([_SKILL.get(name, 0.6) for name in lineage])
    skill = skill - cells["timepoint"].map(_DROP).fillna(0.1).to_numpy()
    # Strangers are harder; every donor has its own difficulty, the same for all models.
    skill = skill + np.random.default_rng(1).normal(0, 0.06, donor.max() + 1)[donor]
    skill = skill + {"random": 0.08, "donor": 0.0, "study": -0.08}[protocol]
    skill = np.clip(skill - {"hgb": 0.06}.get(model, 0.0), 0.02, 0.99)
    right = rng.random(n) < skill
    answer = np.array([index[name] for name in label])
    other = (answer + rng.integers(1, len(classes), n)) % len(classes)
    chosen = np.where(right, answer, other)
    peak = np.where(right, rng.beta(8, 2, n), rng.beta(5, 3, n)).clip(0.3, 0.999)
    rest = rng.dirichlet(np.ones(len(classes)), n)
    rest[np.arange(n), chosen] = 0.0
    rest *= ((1 - peak) / rest.sum(axis=1).clip(1e-9))[:, None]
    rest = np.minimum(rest, peak[:, None] * 0.9)
    rest[np.arange(n), chosen] = 1.0 - rest.sum(axis=1)
    return rest


def _write_series(
    results: Results,
    model: str,
    display_name: str,
    protocol: str,
    seed: int,
    level: str,
    folds: int,
    bad: set[int],
) -> np.ndarray:
    cells = results.cells
    classes = sorted(cells[f"cell_type_{level}"].dropna().unique())
    fold_of = _folds_of(cells, protocol, folds)
    proba = _probabilities(cells, classes, model, protocol, seed, level)
    n_folds = int(fold_of.max()) + 1
    series = Series(
        dataset_id=results.dataset_id,
        protocol=protocol,
        folds=n_folds,
        model=model,
        label_level=level,
        seed=seed,
    )
    labelled = cells["cell_type_fine"].notna().to_numpy()
    spare = np.random.default_rng(2).random(len(cells)) < 0.1
    for fold in range(n_folds):
        test = fold_of == fold
        valid = (fold_of == (fold + 1) % n_folds) & spare & labelled
        rows = np.flatnonzero(test | valid)
        common: dict[str, Any] = {
            "fold": fold,
            "split_sha256": sha256_of([protocol, n_folds]),
            "display_name": display_name,
            "classes": tuple(classes),
            "n_train": 1000,
            "n_valid": int(valid.sum()),
            "n_test": int(test.sum()),
            "created_at": "2026-01-02T03:04:05+00:00",
        }
        if fold in bad:
            record = RunRecord.for_series(
                series, status="failed", reason="ran out of memory", error_kind="memory", **common
            )
            write_run(results.root, record, None)
            continue
        frame = predictions_frame(
            cells["cell_id"].to_numpy()[rows],
            cells[f"cell_type_{level}"].to_numpy()[rows],
            proba[rows],
            classes,
            fold,
            np.where(test[rows], "test", "valid"),
        )
        write_run(results.root, RunRecord.for_series(series, status="done", **common), frame)
    return np.asarray(classes, dtype=object)[proba.argmax(axis=1)]


def open_store(root: Path, *, owner: str = "public") -> Any:
    """Return a store in memory, brought up to date with the bundles below `root`."""
    from backend.store.cache import Store

    store = Store(":memory:", [(owner, root)], threads=1)
    store.sync()
    return store


def as_read(markdown: str) -> str:
    """Return the words that a reader of Markdown sees: marks escaped by a backslash are themselves."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown).replace("\u2060", "")


def two_components(components: np.ndarray, *_: object) -> np.ndarray:
    """Stand for UMAP, whose code is compiled in more seconds than most tests take."""
    return components[:, :2].copy()


class _Here:
    """The channel of a child that is this process."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell

    def say(self, **words: Any) -> None:
        self._tell(words)


def ask_here(
    target: str, *args: Any, tell: Callable[[dict[str, Any]], None] = lambda _: None, **_: Any
) -> Any:
    """Answer as `backend.processes.ask_child` does, without a process: imports take its seconds."""
    module, _, name = target.partition(":")
    return json.loads(
        json.dumps(getattr(importlib.import_module(module), name)(_Here(tell), *args))
    )
