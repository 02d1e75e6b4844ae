"""A fit says whether it stopped improving, and by which numbers."""

import numpy as np
import pandas as pd
import pytest

from backend.models.base import RecipeDefaults
from backend.training.convergence import USUAL_PATIENCE, convergence_of

RECIPE = RecipeDefaults(
    optimizer="adam",
    learning_rate=1e-3,
    batch_size=32,
    epochs=30,
    schedule="constant",
    schedule_values={"patience": 2},
)


def history(losses):
    return pd.DataFrame({"epoch": np.arange(1, len(losses) + 1), "valid_loss": losses})


@pytest.mark.parametrize(
    ("losses", "state"),
    [
        ([3, 2, 1], "still improving when stopped"),
        ([3, 2, 1, 1.5], "still improving when stopped"),
        ([3, 2, 1, 1.5, 1], "stopped improving"),
        ([1, 2, 3], "stopped improving"),
    ],
)
def test_an_equal_epoch_is_no_better_one(losses, state):
    found = convergence_of(history(losses), RECIPE)
    assert found["state"] == state
    best = int(np.argmin(losses)) + 1
    numbers = [found[name] for name in ("best_epoch", "last_epoch", "max_epochs", "patience")]
    assert numbers == [best, len(losses), 30, 2]
    assert (found["best"], found["last"]) == (min(losses), losses[-1])


def test_a_recipe_without_patience_has_the_usual_one():
    plain = RecipeDefaults("adam", 1e-3, 32, 4, "constant")
    losses = [1.0] + [2.0] * USUAL_PATIENCE
    assert convergence_of(history(losses), plain)["state"] == "stopped improving"
    assert convergence_of(history(losses[:-1]), plain)["state"] != "stopped improving"


@pytest.mark.parametrize("losses", [[], [np.nan, np.nan], [1.0, np.inf]])
def test_nothing_is_said_without_validation(losses):
    assert convergence_of(history(losses), RECIPE) is None
