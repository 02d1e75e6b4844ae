"""A model with the series that it was measured in, and a sample of somebody that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.data import cells_table, describe, load
from backend.prediction.evaluate import evaluate
from backend.prediction.saved_models import find_saved_model
from backend.splits import make_split
from backend.store.bundle import write_dataset
from backend.training.runs import run_series
from backend.types import Series
from tests.backend.prediction.conftest import run_of
from tests.backend.prediction.test_evaluate import new_cells
from tests.conftest import build_adata
from tests.helpers import two_components

if TYPE_CHECKING:
    from pathlib import Path

    from backend.prediction.evaluate import Evaluated


def fit_reference(folder: Path, home: Path, *, n_cells: int = 960) -> None:
    """Fit logreg on donors enough for validation donors, three folds and finally."""
    adata = build_adata(n_cells, n_donors=24)
    adata.uns["faultline"] = adata.uns["faultline"] | {"name": "Reference"}
    adata.write_h5ad(folder / "reference.h5ad")
    adata = load(folder / "reference.h5ad")
    info = describe(adata)
    write_dataset(home, info.to_json(), cells_table(adata))
    split = make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3)
    series = Series(
        dataset_id=info.dataset_id,
        protocol="donor",
        folds=3,
        model="logreg",
        settings={"grid": [1.0]},
    )
    run_series(adata, info, split, series, out=home, folds=[0, 1, 2, "final"])


def evaluate_sample(folder: Path, home: Path, out: Path, *, is_scored: bool) -> Evaluated:
    """Evaluate the model of `home` on 400 cells of one donor, with or without their labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.data.cell_map._umap", two_components)
        sample = new_cells(400)
        sample.obs["donor"] = "Someone"
        sample.write_h5ad(folder / "sample.h5ad")
        model = find_saved_model(run_of(home, "logreg"), [home])
        return evaluate(
            folder / "sample.h5ad", [model], out, is_scored=is_scored, donor_names="other"
        )
