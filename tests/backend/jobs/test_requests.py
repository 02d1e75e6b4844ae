"""What a training job may be asked."""

from __future__ import annotations

import pytest

from backend.errors import InputError
from backend.jobs.requests import RunRequest, SweepRequest, find_plan, list_plans

GOOD = {"dataset": "data/a.h5ad", "model": "majority"}


def test_request_names_its_folds():
    assert RunRequest.of(GOOD).wanted_folds == [0, 1, 2, 3, 4]
    assert RunRequest.of(GOOD | {"fits": "final"}).wanted_folds == ["final"]
    assert RunRequest.of(GOOD | {"fits": "both", "folds": 2}).wanted_folds == [0, 1, "final"]
    series = RunRequest.of(GOOD | {"seed": 3, "protocol": "random"}).series("0" * 16)
    assert (series.model, series.seed, series.protocol) == ("majority", 3, "random")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "<b>"}, "no protocol"),
        ({"init": "magic"}, "no init"),
        ({"fits": "none"}, "no choice of fits"),
        ({"label_level": "x"}, "no label level"),
        ({"folds": 1}, "number of folds"),
        ({"folds": 2.5}, "number of folds"),
        ({"folds": True}, "number of folds"),
        ({"seed": -1}, "seed of the fit"),
        ({"split_seed": "0"}, "seed of the split"),
        ({"fraction": 0}, "share of training cells"),
        ({"fraction": "1"}, "share of training cells"),
        ({"budget": "cap0"}, "no budget"),
        ({"budget": "equal; rm"}, "no budget"),
        ({"settings": "epochs=3"}, "settings are"),
        ({"unknown": 1}, "does not name"),
    ],
)
def test_wrong_requests_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        RunRequest.of(GOOD | change)


def test_requests_are_dicts():
    for values in (None, [], "run", 3):
        with pytest.raises(InputError, match="does not name"):
            RunRequest.of(values)
        with pytest.raises(InputError, match="does not name"):
            SweepRequest.of(values)


def test_plans_come_from_their_folder():
    assert "vangalen_small.toml" in list_plans()
    assert find_plan("vangalen_small.toml").is_file()
    for name in ("../pyproject.toml", "none.toml", "", "/etc/passwd", "a\0.toml"):
        with pytest.raises(InputError, match="no plan"):
            find_plan(name)
