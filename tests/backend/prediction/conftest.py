"""A small home with stored models, fitted once: logreg with two folds, and the majority class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.data import cells_table, describe, load
from backend.splits import make_split
from backend.store.bundle import list_runs, read_run, write_dataset
from backend.training.runs import run_series
from backend.types import Series
from tests.conftest import build_adata

if TYPE_CHECKING:
    from pathlib import Path

N_TRAIN = 240


@pytest.fixture(scope="session")
def trained_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cells that the models were fitted on."""
    path = tmp_path_factory.mktemp("trained") / "reference.h5ad"
    adata = build_adata(N_TRAIN, n_donors=6)
    adata.uns["faultline"] = adata.uns["faultline"] | {"name": "Reference"}
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def trained_home(trained_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of bundles with a final run of logreg (two folds beside it) and one of majority."""
    home = tmp_path_factory.mktemp("home")
    adata = load(trained_file)
    info, cells = describe(adata), cells_table(adata)
    write_dataset(home, info.to_json(), cells)
    split = make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=2)
    for model, settings, folds in (
        ("logreg", {"grid": [1.0]}, [0, 1, "final"]),
        ("majority", {}, ["final"]),
    ):
        series = Series(
            dataset_id=info.dataset_id, protocol="donor", folds=2, model=model, settings=settings
        )
        results = run_series(adata, info, split, series, out=home, folds=folds)
        assert {result.status for result in results} == {"done"}
    return home


@pytest.fixture(autouse=True)
def plain_map(plain_umap: None) -> None:
    """Draw every map plainly."""


def run_of(home: Path, model: str, fold: int | str = "final") -> str:
    """Return the id of a model's run."""
    records = [read_run(folder) for folder in list_runs(home)]
    (found,) = [r.run_id for r in records if r.model == model and r.fold == fold]
    return found
