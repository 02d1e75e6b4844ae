"""Series refuse what they cannot be, and keep the ids of all that is shipped."""

import dataclasses
import subprocess
import sys

import pytest

from backend.config import environment, project_root
from backend.errors import InputError, ModelUnavailable
from backend.store.bundle import list_runs, read_run
from backend.types import EXTERNAL, MAX_FOLDS, MAX_SEED, Series, cap_of

GOOD = {"dataset_id": "d" * 16, "protocol": "donor", "model": "majority"}
NETWORK = GOOD | {"model": "scgpt", "preset": "scgpt.small"}


def test_ids_of_shipped_runs_follow_from_their_fields():
    records = [read_run(folder) for folder in list_runs(project_root() / "precomputed")]
    assert len(records) >= 100
    names = [each.name for each in dataclasses.fields(Series)]
    for record in records:
        series = Series(**{name: getattr(record, name) for name in names})
        assert series.series_id == record.series_id
        assert record.run_id == series.run_id(
            fold=record.fold,
            split_sha256=record.split_sha256,
            checkpoint_sha256=record.checkpoint_sha256,
            recipe_version=record.recipe_version,
        )


def test_known_ids_stay():
    series = Series(**NETWORK, settings={"epochs": 4})
    assert series.series_id == "28df6fdb48cc8808"
    identity = {"split_sha256": "s" * 64, "checkpoint_sha256": None, "recipe_version": 1}
    assert series.run_id(fold="final", **identity) == "2e6af298c1c1026b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "<b>"}, '`protocol` is "<b>".*one of: random, donor, study'),
        ({"protocol": "doner"}, 'Did you mean "donor"'),
        ({"init": "magic"}, "`init` is"),
        ({"label_level": "x"}, "`label_level` is .*fine, lineage"),
        ({"label_level": ["fine"]}, "`label_level` is .*a list"),
        ({"folds": 1}, "`folds` is 1 .*from 2"),
        ({"folds": 2.5}, "`folds` is 2.5"),
        ({"folds": True}, "`folds` is True"),
        ({"folds": MAX_FOLDS + 1}, f"to {MAX_FOLDS}"),
        ({"seed": -1}, "`seed` is -1"),
        ({"seed": MAX_SEED + 1}, f"to {MAX_SEED}"),
        ({"split_seed": "0"}, '`split_seed` is "0" \\(text\\)'),
        ({"fraction": 0}, "`fraction` is 0 .*above 0, up to 1"),
        ({"fraction": "1"}, "`fraction` is"),
        ({"fraction": float("nan")}, "`fraction` is nan"),
        ({"budget": "cap0"}, '`budget` is "cap0".*cap500'),
        ({"budget": "cap0500"}, "`budget` is"),
        ({"budget": "equal; rm"}, "`budget` is"),
        ({"budget": "cap1000000000"}, "up to 999999999"),
        ({"budget": 500}, "a whole number"),
        ({"settings": "epochs=3"}, "`settings` is"),
        ({"settings": {"x": [1, float("inf")]}}, "`settings.x` is inf"),
        ({"settings": {"x": {"y": object()}}}, "`settings.x.y` is"),
        ({"model": ""}, "`model` is"),
        ({"preset": 3, "model": "scgpt"}, "`preset` is 3"),
        ({"init": "frozen"}, 'majority has no preset, so it cannot start from "frozen"'),
        ({"checkpoint": "own"}, 'cannot start from "own"'),
        ({"model": "m" * 500, "budget": "b" * 500}, "b{60}"),
    ],
)
def test_what_a_series_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message) as caught:
        Series(**GOOD | change)
    assert caught.value.hint
    assert len(str(caught.value)) < 250


def test_init_and_checkpoint_go_together():
    Series(**NETWORK, init="frozen", checkpoint="own")
    with pytest.raises(InputError, match='`checkpoint` is "own", but `init` is "scratch"'):
        Series(**NETWORK, checkpoint="own")
    with pytest.raises(ModelUnavailable, match=r"no `checkpoint` is named.*checkpoints add scgpt"):
        Series(**NETWORK, init="pretrained")


def test_predictions_from_outside_have_one_fold_and_their_own_protocol():
    for change in ({"protocol": EXTERNAL}, {"model": EXTERNAL}):
        Series(**GOOD | change | {"folds": 1})
    with pytest.raises(InputError, match="protocol"):
        Series.check_field("protocol", EXTERNAL)


@pytest.mark.parametrize(
    ("budget", "cap"), [("full", None), ("equal", None), ("cap7", 7), ("cap1000000", 1_000_000)]
)
def test_budgets_name_their_cap(budget, cap):
    assert Series(**GOOD, budget=budget).budget == budget
    assert cap_of(budget) == cap


def test_folds_are_each_named_once_and_final_last():
    series = Series(**GOOD, folds=3)
    assert series.check_folds("all") == [0, 1, 2]
    assert series.check_folds(["final", 2, 0, 2]) == [2, 0, "final"]
    assert series.check_folds(["all", 1, "final"]) == [0, 1, 2, "final"]
    for fold in (3, -1, True, "first", None):
        with pytest.raises(InputError, match="There is no fold"):
            series.check_folds([fold])


def test_series_need_no_networks():
    code = "import sys, backend.types; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)
