"""What a training job may be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import InputError
from backend.jobs.requests import RunRequest, SweepRequest, find_plan, list_plans

GOOD = {"dataset": "data/a.h5ad", "model": "majority"}


def plan_of(**changes):
    return RunRequest.of(GOOD | changes).plan(Path("a.h5ad"))


def test_request_becomes_a_plan_of_one_row():
    row = plan_of(seed=3, protocol="random", folds=2, fits="both", budget="cap1000000").rows[0]
    assert (row.series.model, row.series.seed, row.series.protocol) == ("majority", 3, "random")
    assert row.series.check_folds(row.folds) == [0, 1, "final"]
    assert plan_of(fits="final").rows[0].folds == ["final"]
    assert plan_of().rows[0].folds == ["all"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "<b>"}, "`protocol` is"),
        ({"fits": "none"}, "no choice of fits"),
        ({"fits": ["none"]}, "no choice of fits"),
        ({"folds": 2.5}, "`folds` is"),
        ({"settings": "epochs=3"}, "`settings` is"),
        ({"model": ["majority"]}, "`model` is"),
        ({"unknown": 1}, "does not name"),
    ],
)
def test_wrong_requests_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        plan_of(**change)


def test_requests_are_dicts():
    for values in (None, [], "run", 3, {}, {"dataset": "data/a.h5ad"}):
        with pytest.raises(InputError, match="does not name"):
            RunRequest.of(values)
        with pytest.raises(InputError, match="does not name"):
            SweepRequest.of(values)


def test_plans_come_from_their_folder():
    assert "vangalen.toml" in list_plans()
    assert find_plan("vangalen.toml").is_file()
    for name in ("../pyproject.toml", "none.toml", "", "/etc/passwd", "a\0.toml"):
        with pytest.raises(InputError, match="no plan"):
            find_plan(name)
