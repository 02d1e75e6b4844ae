"""The engine gives the bits of the plain loop that it stands for."""

import dataclasses

import anndata as ad
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backend.models.baselines.expression import labels_of
from backend.models.registry import model_class
from backend.training.batches import in_order_of_length, training_batches
from backend.training.finetune import Classifier
from backend.training.fit_workspace import FitWorkspace
from backend.training.recipe import make_optimizer, make_schedule
from backend.training.token_cache import TokenCache, lengths_of

LABEL = "cell_type_lineage"
MODELS = ("scgpt", "geneformer", "scbert", "scfoundation")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain_fit(key, train, valid, seed, **changes):
    """Train as the recipe says, without any of the engine: tokens, batches, loss, step."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codes, classes = labels_of(train, LABEL)
        cls = model_class(key)
        model = cls.scratch_on(cls.presets["small"], train, seed=seed)
        network = model.network(len(classes))
        recipe = dataclasses.replace(model.recipe(), **changes)
        tokens, held_out = (model.tokenise([cells], seed=seed) for cells in (train, valid))
        n_batches = -(-len(codes) // recipe.batch_size)
        optimizer = make_optimizer(network, recipe)
        schedule = make_schedule(optimizer, recipe, steps_per_epoch=n_batches)
        best, kept, history = np.inf, None, []
        for epoch in range(recipe.epochs):
            network.train()
            total = 0.0
            epoch_seed = seed * 100_003 + epoch
            for cells in training_batches(
                np.diff(tokens.indptr), recipe.batch_size, seed=epoch_seed
            ):
                logits = network(**model.collate(tokens.take(cells))).float()
                loss = F.cross_entropy(logits, torch.from_numpy(codes[cells].astype(np.int64)))
                loss.backward()
                total += loss.item() * len(cells)
                torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            network.eval()
            with torch.inference_mode():
                order = list(in_order_of_length(np.diff(held_out.indptr), 32))
                parts = [network(**model.collate(held_out.take(cells))) for cells in order]
            logits = torch.cat(parts)[np.argsort(np.concatenate(order))]
            known = np.searchsorted(classes, valid.obs[LABEL].astype(str))
            loss = F.cross_entropy(logits, torch.from_numpy(known)).item()
            history.append((total / len(codes), loss))
            if loss < best:
                best, kept = loss, logits.softmax(dim=1).numpy()
    return kept, history


def engine_fit(key, train, valid, place):
    settings = {"epochs": 2, "batch_size": 16}
    typer = Classifier(key, f"{key}.small", settings=settings, device="cpu")
    typer.work_in(place)
    return typer.fit(train, label_key=LABEL, valid=valid, seed=3)


def losses_of(typer):
    rows = typer.history_[["train_loss", "valid_loss"]].itertuples(index=False)
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("key", MODELS)
def test_a_fit_is_that_of_the_plain_loop_and_its_bits_are_repeated(key, make_adata, tmp_path):
    """Another program may meet other kernels, so only the same program promises bits.

    Weights that change no output, such as the bias of attention keys, follow the rounding of
    their gradients; what the network says is compared.
    """
    train, valid = make_adata(50), make_adata(30, seed=2)
    valid.obs_names = [f"valid {name}" for name in valid.obs_names]
    both = ad.concat([train, valid], merge="same")
    plain = engine_fit(key, train, valid, FitWorkspace())
    proba, history = plain_fit(key, train, valid, 3, epochs=2, batch_size=16)
    np.testing.assert_allclose(losses_of(plain), history, rtol=1e-5)
    np.testing.assert_allclose(plain.predict(valid).proba, proba, rtol=1e-4, atol=1e-6)

    place = FitWorkspace(
        tokens=TokenCache.of(tmp_path / "tokens", "d" * 16, both),
        snapshots=tmp_path / "fit",
        checkpoint_minutes=0.0,
        workers=2,
    )
    worked = engine_fit(key, train, valid, place)
    assert losses_of(worked) == losses_of(plain)
    weights = worked._network.state_dict()
    for name, tensor in plain._network.state_dict().items():
        assert torch.equal(weights[name], tensor), name


@pytest.mark.parametrize("key", MODELS)
def test_tokens_on_disk_are_those_in_memory(key, make_adata, tmp_path):
    cells = make_adata(50)
    cls = model_class(key)
    model = cls.scratch_on(cls.presets["small"], cells, seed=0)
    some = cells[[7, 3, 41, 3]]
    plain = model.tokenise([cells[[7, 3, 41]]], seed=5)
    cached = TokenCache.of(tmp_path, "d" * 16, cells).tokens(model, some.obs_names, seed=5)
    assert len(cached) == 4
    assert lengths_of(cached).tolist() == [*np.diff(plain.indptr), np.diff(plain.indptr)[1]]
    wanted, found = plain.take(np.array([2, 0])), cached.take(np.array([2, 0]))
    for name in ("ids", "values"):
        for a, b in zip(getattr(wanted, name), getattr(found, name), strict=True):
            assert np.array_equal(a, b)
    assert set(found.extra) == set(wanted.extra)
    assert all(np.array_equal(found.extra[name], wanted.extra[name]) for name in wanted.extra)
