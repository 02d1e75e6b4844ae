"""The recipe: it learns, keeps the best epoch, freezes, repeats, and refuses what cannot be."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from backend.config import golden_dir
from backend.errors import InputError, JobFailed, LabelError, ModelUnavailable
from backend.models import catalogue
from backend.models.base import RecipeDefaults
from backend.training.batches import in_order_of_length, training_batches
from backend.training.finetune import Classifier, Settings
from backend.training.recipe import make_optimizer, make_schedule, parameter_groups
from backend.training.scoring import macro_f1

LABEL = "cell_type_lineage"
MODELS = ("scgpt", "geneformer")
FAST = {"epochs": 2, "batch_size": 16}
SCGPT = golden_dir() / "scgpt" / "pretrained"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classifier(model="geneformer", **settings):
    return Classifier(model, f"{model}.small", settings={**FAST, **settings})


def fit(typer, train, valid=None, seed=0):
    return typer.fit(
        train, label_key=LABEL, valid=train[:0].copy() if valid is None else valid, seed=seed
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_learns_what_is_plain(model, make_adata):
    cells = make_adata(seed=1)
    typer = fit(classifier(model, epochs=20, batch_size=4, learning_rate=2e-3), make_adata())
    predictions = typer.predict(cells)
    predicted = np.array(predictions.classes)[predictions.proba.argmax(axis=1)]
    assert (predicted == cells.obs[LABEL].to_numpy()).mean() > 0.85
    history = typer.history_
    assert list(history.columns) == [
        "step",
        "epoch",
        "train_loss",
        "valid_loss",
        "valid_accuracy",
        "macro_f1",
        "lr",
        "cells_per_second",
        "memory_mib",
        "padding_share",
    ]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] / 2
    assert history["step"].tolist() == list(range(10, 201, 10))
    assert "no validation cells: the last epoch was kept" in typer.notes_


def test_the_best_epoch_by_validation_is_kept(make_adata):
    train, valid = make_adata(), make_adata(seed=2)
    typer = fit(classifier(epochs=6, batch_size=8, learning_rate=0.02), train, valid)
    history = typer.history_
    assert history["valid_loss"].notna().all()
    best = int(history["valid_loss"].to_numpy().argmin())
    shorter = fit(
        classifier(epochs=6, batch_size=8, learning_rate=0.02, max_steps=5 * (best + 1)),
        train,
        valid,
    )
    np.testing.assert_allclose(shorter.predict(valid).proba, typer.predict(valid).proba, atol=1e-6)
    proba = typer.predict(valid).proba
    codes = np.searchsorted(typer.classes_, valid.obs[LABEL].astype(str))
    loss = -np.log(proba[np.arange(len(codes)), codes]).mean()
    assert loss == pytest.approx(history["valid_loss"].min(), abs=1e-4)


def test_types_that_only_valid_cells_have_are_left_out(make_adata):
    train, valid = make_adata(), make_adata(seed=2)
    labels = valid.obs[LABEL].astype(object)
    labels.iloc[:5] = "Only in valid"
    labels.iloc[5] = None
    valid.obs[LABEL] = labels
    typer = fit(classifier(), train, valid)
    assert typer.classes_ == ("HSC", "Mono", "T")
    assert any(note.startswith("6 validation cells") for note in typer.notes_)


def test_scratch_says_what_it_is(make_adata):
    typer = fit(classifier(), make_adata())
    assert typer.load_report_.share_loaded == 0
    assert typer.load_report_.n_loaded == 0
    assert "bert.embeddings.word_embeddings.weight" in typer.load_report_.fresh
    assert typer.load_report_.genes.n_matched == 30
    assert typer.checkpoint_sha256 is None
    assert typer.device_ == "cpu" or torch.cuda.is_available()


def test_draws_are_averaged_and_their_spread_is_given(make_adata):
    train, cells = make_adata(), make_adata(seed=1)
    one = fit(classifier("scgpt"), train)
    plain = one.predict(cells).proba
    assert one.spread_ is None
    several = fit(classifier("scgpt", draws=4), train)
    averaged = several.predict(cells).proba
    assert several.spread_.shape == (cells.n_obs,)
    assert (several.spread_ > 0).all()
    assert not np.allclose(plain, averaged, atol=1e-6)
    np.testing.assert_allclose(averaged.sum(axis=1), 1, atol=1e-5)


def test_save_keeps_draws_and_classes(make_adata, tmp_path):
    typer = fit(classifier("scgpt", draws=2), make_adata())
    typer.save(tmp_path / "model")
    loaded = Classifier.load(tmp_path / "model")
    cells = make_adata(seed=1)
    assert np.array_equal(loaded.predict(cells).proba, typer.predict(cells).proba)
    assert loaded.notes_ == typer.notes_
    about = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    about["format_version"] = 99
    (tmp_path / "model" / "model.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(InputError, match="has the format 99"):
        Classifier.load(tmp_path / "model")


def test_torch_generator_is_left_alone(make_adata):
    before = torch.random.get_rng_state()
    fit(classifier(), make_adata())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "has no setting epoch"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": True}, "epochs is True"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"select_by": "accuracy"}, "select_by is 'accuracy'"),
        ({"class_weights": "some"}, "class_weights is 'some'"),
        ({"draws": 3}, "draws no random tokens"),
    ],
)
def test_wrong_settings_are_refused_at_construction(settings, message):
    with pytest.raises(InputError, match=message):
        Classifier("geneformer", "geneformer.small", settings=settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scgpt", "scgpt.tiny"), 'no preset "scgpt.tiny"'),
        (("scgpt", "scgpt.small", "warm"), 'no init "warm"'),
        (("scgpt", "scgpt.small", "pretrained"), "checkpoint missing"),
        (("scgpt", "scgpt.small", "scratch", "whole_human"), "none with scratch"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(arguments, message):
    with pytest.raises(InputError, match=message):
        Classifier(*arguments)


def test_unlabelled_training_cells_are_refused(make_adata):
    with pytest.raises(LabelError, match="training cells"):
        fit(classifier(), make_adata(n_unlabelled=2))


def test_a_loss_that_is_not_finite_ends_the_fit(make_adata):
    with pytest.raises(JobFailed, match="not finite"):
        fit(classifier(learning_rate=1e30, epochs=5), make_adata())


def test_predict_before_fit_is_refused(make_adata):
    with pytest.raises(InputError, match="not fitted"):
        classifier().predict(make_adata())


@pytest.fixture
def pretrained(tmp_path, monkeypatch, make_adata):
    """Register the golden checkpoint, and give cells that hold its genes."""
    if not SCGPT.is_dir():
        pytest.skip("no golden fixtures")
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path))
    catalogue.add("scgpt", SCGPT, name="tiny")
    vocabulary = json.loads((SCGPT / "vocab.json").read_text(encoding="utf-8"))
    cells = make_adata()
    cells.var_names = [name for name in vocabulary if not name.startswith("<")][: cells.n_vars]
    return cells


def with_checkpoint(init, **settings):
    return Classifier("scgpt", "scgpt.whole_human", init, "tiny", {**FAST, **settings})


def test_pretrained_weights_are_the_start(pretrained):
    typer = fit(with_checkpoint("pretrained", learning_rate=1e-12, max_steps=1), pretrained)
    assert typer.load_report_.share_loaded == 1.0
    assert len(typer.load_report_.renamed) == 4
    assert any("overlap" in note for note in typer.notes_)
    assert len(typer.checkpoint_sha256) == 64
    weights = torch.load(SCGPT / "best_model.pt", weights_only=True)
    own = typer._network.state_dict()
    torch.testing.assert_close(
        own["encoder.embedding.weight"], weights["encoder.embedding.weight"], atol=1e-6, rtol=0
    )


def test_frozen_trains_the_head_alone(pretrained):
    typer = fit(with_checkpoint("frozen", learning_rate=0.1), pretrained)
    weights = torch.load(SCGPT / "best_model.pt", weights_only=True)
    own = typer._network.state_dict()
    for name in ("encoder.embedding.weight", "value_encoder.linear2.weight"):
        assert torch.equal(own[name], weights[name])
    trained = fit(with_checkpoint("pretrained", learning_rate=0.1), pretrained)
    assert not torch.equal(
        trained._network.state_dict()["value_encoder.linear2.weight"],
        weights["value_encoder.linear2.weight"],
    )


def test_unregistered_checkpoints_are_refused(pretrained):
    with pytest.raises(ModelUnavailable, match='no checkpoint "other"'):
        fit(Classifier("scgpt", "scgpt.whole_human", "pretrained", "other"), pretrained)


def test_checkpoint_of_another_preset_is_refused(pretrained):
    typer = Classifier("scgpt", "scgpt.small", "pretrained", "tiny")
    with pytest.raises(
        InputError, match=r"is scgpt\.whole_human, but the series says scgpt\.small"
    ):
        fit(typer, pretrained)


def recipe(**values):
    defaults = {
        "optimizer": "adam",
        "learning_rate": 1.0,
        "batch_size": 4,
        "epochs": 4,
        "schedule": "constant",
    }
    return RecipeDefaults(**{**defaults, **values})


def rates(recipe, steps_per_epoch, n):
    optimizer = make_optimizer(torch.nn.Linear(2, 2), recipe)
    schedule = make_schedule(optimizer, recipe, steps_per_epoch=steps_per_epoch)
    found = []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_step_schedule_falls_every_epoch():
    values = {"every_epochs": 1, "gamma": 0.9}
    found = rates(recipe(schedule="step", schedule_values=values), 2, 6)
    np.testing.assert_allclose(found, [1, 1, 0.9, 0.9, 0.81, 0.81])


def test_linear_schedule_rises_and_falls_to_zero():
    found = rates(recipe(schedule="linear", warmup_steps=2), 2, 9)
    np.testing.assert_allclose(found, [0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0], atol=1e-12)


def test_constant_schedule_may_warm_up():
    np.testing.assert_allclose(rates(recipe(warmup_steps=2), 2, 4), [0, 0.5, 1, 1])


@pytest.mark.parametrize("values", [{"schedule": "cosine"}, {"optimizer": "sgd"}])
def test_unknown_parts_of_a_recipe_are_refused(values):
    with pytest.raises(InputError, match="There is no"):
        rates(recipe(**values), 1, 1)


def test_biases_and_norms_are_not_decayed():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    values = {"no_decay": ("*.bias", "1.weight")}
    decayed, spared = parameter_groups(network, recipe(weight_decay=0.1, optimizer_values=values))
    assert (len(decayed["params"]), decayed["weight_decay"]) == (1, 0.1)
    assert (len(spared["params"]), spared["weight_decay"]) == (3, 0.0)


def test_batches_hold_every_cell_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(10, 1000, 3000)
    batches = list(training_batches(lengths, 32, seed=0))
    assert sorted(np.concatenate(batches)) == list(range(3000))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.1 * lengths.sum()
    again = list(training_batches(lengths, 32, seed=0))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    other = np.concatenate(list(training_batches(lengths, 32, seed=1)))
    assert not np.array_equal(np.concatenate(batches), other)
    # Batches of one epoch do not come in the order of their lengths.
    means = pd.Series([lengths[batch].mean() for batch in batches])
    assert abs(means.autocorr()) < 0.3
    assert sorted(np.concatenate(list(in_order_of_length(lengths, 7)))) == list(range(3000))


def test_macro_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    codes, predicted = rng.integers(0, 4, 50), rng.integers(0, 6, 50)
    wanted = f1_score(codes, predicted, average="macro", labels=np.unique(codes))
    assert macro_f1(codes, predicted) == pytest.approx(wanted)


def test_balanced_weights_help_the_rare_type(make_adata):
    train = make_adata(n_cells=90)
    rare = (train.obs[LABEL] == "T").to_numpy().nonzero()[0]
    train = train[np.setdiff1d(np.arange(90), rare[3:])].copy()
    cells = make_adata(seed=1)
    shares = [
        fit(classifier(epochs=4, learning_rate=5e-4, class_weights=weights), train)
        .predict(cells)
        .proba[:, 2]
        .mean()
        for weights in ("none", "balanced")
    ]
    assert shares[1] > shares[0]


def test_settings_change_the_recipe_alone():
    settings = Settings.of({"epochs": 3}, has_random_tokens=False, name="x")
    changed = settings.apply(recipe(epochs=9, learning_rate=0.5))
    assert (changed.epochs, changed.learning_rate) == (3, 0.5)
