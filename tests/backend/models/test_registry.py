"""Models of other packages: what they must bring, and what they get."""

import sys
from types import ModuleType

import pytest

from backend.errors import ModelUnavailable
from backend.models import registry
from backend.models.base import CellTyper
from backend.models.registry import list_models, model_class


@pytest.fixture
def plug_in(monkeypatch):
    """Return what installs a class as the model `mine` of another package."""

    def install(found):
        module = ModuleType("their_package")
        module.Mine = found
        monkeypatch.setitem(sys.modules, "their_package", module)
        monkeypatch.setattr(registry, "_plugins", lambda: {"mine": "their_package:Mine"})
        return found

    return install


def theirs(**changes):
    """Return a class with what is needed, and no more, that inherits nothing of ours."""
    names = ("fit", "predict", "save", "load")
    return type("Mine", (), dict.fromkeys(names, print) | {
        "key": "mine", "display_name": "Mine", "card": None, **changes
    })  # fmt: skip


def test_a_plug_in_that_inherits_nothing_gets_the_defaults(plug_in):
    plug_in(theirs(is_savable=False))
    assert list_models()[-1] == "mine"
    model = model_class("mine")
    assert (model.kind, model.is_savable, model.recipe_version) == ("baseline", False, 1)
    assert (dict(model.presets), dict(model.options), model.checkpoint_files) == ({}, {}, ())
    typer = model()
    assert (typer.notes_, typer.history_, typer.device_) == ((), None, "cpu")
    typer.at_fold("0" * 64, 1)
    assert typer.split_settings({"n": 1}) == ({}, {"n": 1})


def test_a_plug_in_that_lacks_a_method_is_refused(plug_in):
    plug_in(type("Mine", (), {"key": "mine", "display_name": "Mine", "card": None, "fit": print}))
    with pytest.raises(ModelUnavailable, match="has no load, predict, save") as error:
        model_class("mine")
    assert "backend.models.base.CellTyper" in error.value.hint


def test_a_plug_in_that_leaves_a_method_of_ours_out_is_refused(plug_in):
    plug_in(type("Mine", (CellTyper,), {"key": "mine", "display_name": "Mine", "card": None}))
    with pytest.raises(ModelUnavailable, match="has no fit, load, predict, save"):
        model_class("mine")


def test_a_plug_in_with_presets_must_be_a_foundation_model(plug_in):
    plug_in(theirs(presets={}))
    with pytest.raises(ModelUnavailable, match="collate, from_checkpoint") as error:
        model_class("mine")
    assert "FoundationModel" in error.value.hint


def test_our_models_cannot_be_replaced_and_typing_errors_are_guessed(plug_in):
    plug_in(theirs())
    assert model_class("majority").display_name == "Majority class"
    with pytest.raises(ModelUnavailable, match='no model "major"') as error:
        model_class("major")
    assert "majority" in error.value.hint
