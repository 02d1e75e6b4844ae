"""Places computed from predictions, and the job that does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from backend.errors import InputError, StoreError
from backend.evaluation.cells.computed_map import (
    map_by_predictions,
    read_computed_map,
    write_computed_map,
)
from backend.evaluation.cells.map_cells import load_cells
from backend.jobs.compute_map import run
from backend.jobs.handlers import kind_named
from tests.helpers import draw_cells, open_store, write_results

OWNER = "local"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Results of cells without places."""
    cells = draw_cells(samples={"Healthy": 2, "Diagnosis": 2}, cells_per_sample=9, n_studies=1)
    cells[["umap_x", "umap_y"]] = np.nan
    return write_results(
        tmp_path_factory.mktemp("bare"),
        cells=cells,
        protocols=("donor",),
        models={"logreg": ("Logistic regression (L1)", (0,))},
        fine=(),
        folds=2,
    )


@dataclass
class Context:
    """What a job's function is given."""

    home: Path
    folder: Path = Path()
    owner: str = OWNER
    shares: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def progress(self, share: float, message: str = "") -> None:
        assert message
        self.shares.append(share)

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_places_are_kept_and_read_back(tmp_path, caplog):
    places = np.array([[0, 1], [np.nan, np.nan], [2, 3]], np.float32)
    assert read_computed_map(tmp_path, OWNER, "a" * 16, 3) is None
    file = write_computed_map(tmp_path, OWNER, "a" * 16, places)
    np.testing.assert_array_equal(read_computed_map(tmp_path, OWNER, "a" * 16, 3), places)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert read_computed_map(tmp_path, OWNER, "a" * 16, 4) is None
    assert "(3, 2) for 4 cells" in caplog.text
    file.write_bytes(b"\x80\x04pickle")
    assert read_computed_map(tmp_path, OWNER, "a" * 16, 3) is None
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(("owner", "dataset"), [("../x", "a" * 16), (OWNER, "../../etc")])
def test_places_stay_in_the_owners_folder(tmp_path, owner, dataset):
    with pytest.raises((InputError, StoreError)):
        write_computed_map(tmp_path, owner, dataset, np.zeros((1, 2)))
    assert not list(tmp_path.iterdir())


def test_job_places_the_cells_that_have_predictions(bare, tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path))
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(bare.root))
    scope = bare.scope()
    names = ("dataset_id", "label_level", "protocol", "budget")
    request = {name: getattr(scope, name) for name in names} | {"configuration": "logreg"}
    context = Context(tmp_path)
    result = run(request, context)
    assert result == {
        "dataset_id": scope.dataset_id,
        "n_cells": len(bare.cells),
        "n_placed": len(bare.cells),
    }
    assert context.shares == sorted(context.shares)
    assert context.shares[-1] == 1.0
    places = read_computed_map(tmp_path, OWNER, scope.dataset_id, len(bare.cells))
    assert np.isfinite(places).all()
    with open_store(bare.root) as store:
        assert not load_cells(store, scope, "logreg").coordinates.is_placed.any()
        cells = load_cells(store, scope, "logreg", places=places)
    assert cells.is_computed
    assert cells.coordinates.is_placed.all()
    # Cells that the model calls the same lie nearer to each other than to others.
    same = cells.roles["predicted"].codes[:, None] == cells.roles["predicted"].codes
    apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    off = ~np.eye(len(places), dtype=bool)
    assert apart[same & off].mean() < 0.7 * apart[~same].mean()


def test_own_places_are_never_replaced(results, store):
    own = load_cells(store, results.scope(), "logreg")
    places = np.zeros((len(own), 2), np.float32)
    again = load_cells(store, results.scope(), "logreg", places=places)
    assert not again.is_computed
    assert again.coordinates.token == own.coordinates.token


def test_a_model_without_probabilities_is_refused(bare, monkeypatch):
    def nothing(_store, _run_id, cell_ids, **_):
        import pandas as pd

        return pd.DataFrame(np.nan, index=pd.Index(cell_ids), columns=["T"])

    monkeypatch.setattr("backend.evaluation.cells.computed_map.probabilities", nothing)
    with (
        open_store(bare.root) as store,
        pytest.raises(InputError, match="No cell has class probabilities"),
    ):
        map_by_predictions(store, bare.scope(), "logreg", progress=lambda *_: None)


@pytest.mark.parametrize("request_", [{}, {"dataset_id": 3}, {"dataset_id": "a" * 16}])
def test_half_a_request_is_refused(tmp_path, request_):
    with pytest.raises(InputError, match="says nothing of"):
        run(request_, Context(tmp_path))


def test_the_worker_knows_the_job():
    assert kind_named("place").target == "backend.jobs.compute_map:run"
