"""How the training of a network ended, from its bundles to the scores of a view."""

import json

import pytest

from backend.errors import StoreError
from backend.evaluation.views.series import NOT_RECORDED, configurations_in, series_of
from backend.evaluation.views.timepoints import scores_by_timepoint
from backend.store.bundle import parse_run, write_dataset, write_run
from backend.types import EXTERNAL, STILL_IMPROVING, STOPPED_IMPROVING, Scope
from tests.backend.store import builders
from tests.helpers import open_store

ENDED = {
    "state": STOPPED_IMPROVING,
    "select_by": "valid_loss",
    "best_epoch": 7,
    "last_epoch": 12,
    "max_epochs": 30,
    "patience": 5,
    "best": 0.4,
    "last": 0.5,
}
OPEN = ENDED | {"state": STILL_IMPROVING, "best_epoch": 30, "last_epoch": 30}
NETWORK = {"model": "scgpt", "preset": "scgpt.small"}


@pytest.fixture
def write(tmp_path):
    """Write the folds of one series, each with how it ended; return a store and a scope."""
    cells = builders.cells()
    write_dataset(tmp_path, builders.info(), cells)

    def written(*ends, **of):
        series = builders.series(**of)
        for fold, ended in enumerate(ends):
            run = builders.record(series, fold, convergence=ended)
            mine = cells.iloc[fold :: len(ends)]
            write_run(tmp_path, run, builders.predictions(mine, run))
        level = series.label_level
        return open_store(tmp_path), Scope(dataset_id=builders.DATASET, label_level=level)

    return written


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((ENDED, ENDED), STOPPED_IMPROVING),
        ((ENDED, OPEN), f"{STILL_IMPROVING} (1 of 2 folds)"),
        ((None, OPEN), f"{STILL_IMPROVING} (1 of 2 folds)"),
        ((ENDED, None), NOT_RECORDED),
        ((None, None), NOT_RECORDED),
    ],
)
def test_a_network_says_how_its_training_ended(write, ends, text):
    store, scope = write(*ends, **NETWORK)
    assert series_of(store, scope)["convergence"].tolist() == [text]
    assert [one.convergence for one in configurations_in(store, scope)] == [text]
    assert set(scores_by_timepoint(store, scope).scores["convergence"]) == {text}


def test_a_baseline_says_nothing(write):
    store, scope = write(None, None)
    assert series_of(store, scope)["convergence"].tolist() == [""]


def test_a_stored_model_that_only_predicted_says_nothing(write):
    store, scope = write(None, protocol=EXTERNAL, folds=1, **NETWORK)
    said = series_of(store, scope.with_(protocol=EXTERNAL))["convergence"]
    assert said.tolist() == [""]


def test_models_that_are_all_trained_at_the_finer_level_keep_their_names(write):
    store, scope = write(ENDED, ENDED, **NETWORK)
    (at_fine,) = configurations_in(store, scope)
    (at_lineage,) = configurations_in(store, scope.with_(label_level="lineage"))
    assert (at_lineage.key, at_lineage.display_name) == (at_fine.key, at_fine.display_name)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"state": "finished"},
        {"best": "0.4"},
        {"last": float("nan")},
        {"best_epoch": None},
        {"select_by": 1},
    ],
)
def test_a_strange_end_is_a_damaged_bundle(spoiled):
    run = builders.record(builders.series(**NETWORK), convergence=ENDED | spoiled)
    content = json.dumps(run.to_json()).encode()
    with pytest.raises(StoreError, match="`convergence` is of the wrong kind"):
        parse_run(content, run.run_id)
