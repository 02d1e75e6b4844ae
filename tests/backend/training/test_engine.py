"""Settings of the engine: rare types, adversaries, precision, memory, threads, adapters."""

import dataclasses
import errno
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from backend.config import golden_dir
from backend.data import describe
from backend.errors import InputError, JobFailed
from backend.models import catalogue
from backend.models.scgpt.model import ScGPT
from backend.models.scgpt.network import ScGPTNetwork
from backend.splits import TEST, make_split
from backend.store import bundle
from backend.store.bundle import list_runs, read_run
from backend.training import loop
from backend.training.balance import Adversary, Objective, class_weights, oversampled, reverse
from backend.training.batches import in_groups, prefetched
from backend.training.finetune import Classifier
from backend.training.fit_workspace import FitWorkspace
from backend.training.runs import run_series
from backend.training.settings import Settings
from backend.types import Series

LABEL = "cell_type_lineage"
GENEFORMER = golden_dir() / "geneformer" / "v2"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classifier(model="scgpt", device="cpu", **settings):
    values = {"epochs": 2, "batch_size": 16, **settings}
    return Classifier(model, f"{model}.small", settings=values, device=device)


def fit(typer, train, valid=None, seed=0):
    valid = train[:0].copy() if valid is None else valid
    return typer.fit(train, label_key=LABEL, valid=valid, seed=seed)


def weights_of(typer):
    return typer._network.state_dict()


def is_same(first, second):
    return all(torch.equal(x, second[name]) for name, x in first.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oversampel": True}, "Did you mean oversample?"),
        ({"expressed_onli": True}, "has no setting expressed_onli"),
        ({"oversample": 1}, "Give true or false"),
        ({"precision": "bf32"}, "auto, bf16, fp16, fp32"),
        ({"clip_norm": -1}, "Give a number from 0"),
        ({"learning_rate": float("inf")}, "Give a number above 0"),
        ({"patience": 0}, "whole number above 0"),
        ({"gamma": 2.0}, "the loss is cross_entropy"),
        ({"adversarial_weight": 0.5}, "there is no adversary"),
        ({"oversample": True, "class_weights": "balanced"}, "count twice"),
        ({"adversarial": "donor", "compile": True}, "Keep one of adversarial and compile"),
        ({"lora": 4}, "package transformers"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_construction(settings, message):
    with pytest.raises(InputError, match=message):
        classifier(**settings)


@pytest.mark.parametrize(
    ("init", "settings", "message"),
    [
        ("scratch", {"lora": 4}, "lora adapts pretrained weights"),
        ("frozen", {"lora": 4}, "lora adapts pretrained weights"),
        ("frozen", {"adversarial": "donor"}, "backbone is frozen"),
    ],
)
def test_settings_must_go_with_the_init(init, settings, message):
    with pytest.raises(InputError, match=message):
        Settings.of(settings, has_random_tokens=False, name="x", init=init, takes_lora=True)


def test_settings_reach_the_recipe():
    recipe = ScGPT.scratch(ScGPT.presets["small"], ["A"], seed=0).recipe()
    settings = Settings.of(
        {"accumulate": 3, "clip_norm": 0, "patience": 2}, has_random_tokens=True, name="x"
    )
    changed = settings.apply(recipe)
    assert (changed.accumulate, changed.clip_norm) == (3, None)
    assert changed.schedule_values == {**recipe.schedule_values, "patience": 2}
    assert Settings().apply(recipe) == recipe


def test_focal_loss_is_its_formula():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    weights = torch.tensor([1.0, 2.0, 0.5])
    plain = F.cross_entropy(logits, target, weight=weights)
    focal = Objective(weights, Settings(loss="focal", gamma=0.0))(logits, target)
    torch.testing.assert_close(focal, plain)
    p = logits.softmax(1)[torch.arange(6), target]
    w = weights[target]
    wanted = (w * (1 - p) ** 2 * -p.log()).sum() / w.sum()
    torch.testing.assert_close(Objective(weights, Settings(loss="focal"))(logits, target), wanted)
    sure = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    Objective(weights, Settings(loss="focal"))(sure, torch.tensor([0])).backward()
    assert torch.isfinite(sure.grad).all()


def test_shares_of_a_batch_add_up_to_its_loss():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(7, 3, generator=generator), torch.tensor([0, 1, 2, 0, 0, 1, 0])
    for settings in (Settings(), Settings(loss="focal")):
        objective = Objective(class_weights(target.numpy(), 3, "balanced"), settings)
        parts = [slice(0, 3), slice(3, 6), slice(6, 9)]
        shares = [objective.share(target, part) for part in parts]
        assert sum(shares) == pytest.approx(1)
        whole = sum(
            share * objective(logits[part], target[part])
            for share, part in zip(shares, parts, strict=True)
        )
        torch.testing.assert_close(whole, objective(logits, target))


def test_oversampling_makes_types_equally_frequent():
    codes = np.repeat([0, 1, 2], [30, 5, 1])
    rows = oversampled(codes, seed=0)
    assert np.bincount(codes[rows]).tolist() == [30, 30, 30]
    assert set(rows) == set(range(36))
    assert np.array_equal(rows, oversampled(codes, seed=0))
    assert not np.array_equal(rows, oversampled(codes, seed=1))
    assert oversampled(np.zeros(4, np.int64), seed=0).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_rare_types_gain_by_oversampling_and_focal_loss(make_adata):
    train = make_adata(90)
    rare = (train.obs[LABEL] == "T").to_numpy().nonzero()[0]
    train = train[np.setdiff1d(np.arange(90), rare[3:])].copy()
    cells = make_adata(seed=1)
    plain, repeated, focal = (
        fit(classifier(epochs=3, **settings), train).predict(cells).proba[:, 2].mean()
        for settings in ({}, {"oversample": True}, {"loss": "focal", "gamma": 3.0})
    )
    assert repeated > plain
    assert focal > plain


def test_reversed_gradients_are_reversed():
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    (reverse(values, 0.5) * torch.tensor([3.0, 4.0])).sum().backward()
    assert values.grad.tolist() == [-1.5, -2.0]


@pytest.mark.parametrize("name", ["donor", "timepoint"])
def test_adversaries_change_the_network_and_nothing_else(name, make_adata):
    train = make_adata(60)
    plain = fit(classifier(), train)
    against = fit(classifier(adversarial=name), train)
    assert weights_of(plain).keys() == weights_of(against).keys()
    assert not is_same(weights_of(plain), weights_of(against))


def test_adversaries_ignore_cells_without_a_group():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 3))
    adversary = Adversary(network, 3, np.array([0, 1, -1]), 1.0, "donors")
    x = torch.randn(3, 4, requires_grad=True)
    network(x)
    adversary(torch.tensor([-1, -1, -1]), 0.5).backward()
    assert x.grad.abs().sum() == 0
    network(x)
    adversary(torch.tensor([0, -1, 1]), 0.5).backward()
    assert (x.grad.abs().sum(dim=1) > 0).tolist() == [True, False, True]


def test_adversaries_need_two_groups(make_adata):
    with pytest.raises(InputError, match="1 donors: nothing to unlearn"):
        fit(classifier(adversarial="donor"), make_adata(n_donors=1))
    train = make_adata()
    del train.obs["timepoint"]
    with pytest.raises(InputError, match='no column "timepoint"'):
        fit(classifier(adversarial="timepoint"), train)


def test_patience_ends_a_fit(make_adata):
    settings = {"learning_rate": 1e-12, "patience": 2, "epochs": 9}
    typer = fit(classifier("geneformer", **settings), make_adata(), make_adata(seed=2))
    scores = typer.history_["valid_loss"].to_numpy()
    assert len(scores) == int(scores.argmin()) + 3 < 9


def test_gradients_add_up_over_batches(make_adata):
    typer = fit(classifier(batch_size=8, accumulate=2), make_adata())
    assert typer.history_["step"].tolist() == [3, 6]


def test_half_precision_trains_and_predicts(make_adata):
    cells = make_adata(seed=1)
    typer = fit(classifier(precision="bf16"), make_adata())
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights_of(typer).values())
    halved, full = typer.predict(cells).proba, fit(classifier(), make_adata()).predict(cells).proba
    assert not np.array_equal(halved, full)
    np.testing.assert_allclose(halved, full, atol=0.1)


def test_fp16_needs_a_gpu(make_adata):
    with pytest.raises(InputError, match="fp16, but the fit runs on a CPU"):
        fit(classifier(precision="fp16"), make_adata())


def test_the_network_is_compiled_when_asked_for(make_adata, monkeypatch):
    asked = []

    def compiled(network, **options):
        asked.append(options)
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    plain, other = fit(classifier(), make_adata()), fit(classifier(compile=True), make_adata())
    assert asked == [{"dynamic": True}]
    assert is_same(weights_of(plain), weights_of(other))


def calm(train):
    """Return a scGPT without dropout, its tokens, and the types of the cells."""
    config = ScGPT.presets["small"]
    sizes = dataclasses.asdict(config)["values"] | {"dropout": 0.0}
    config = dataclasses.replace(config, values=sizes)
    model = ScGPT.scratch(config, list(train.var_names), seed=0)
    classes, codes = np.unique(train.obs[LABEL].astype(str), return_inverse=True)
    return model, model.tokenise([train], seed=0), codes, tuple(classes)


def limit_memory(monkeypatch, n_cells):
    """Make networks run out of memory above so many cells; return the sizes that were tried."""
    real, sizes = ScGPTNetwork.forward, []

    def forward(self, **batch):
        sizes.append(len(batch["genes"]))
        if sizes[-1] > n_cells:
            msg = "CUDA out of memory. Tried to allocate 1 PiB."
            raise torch.OutOfMemoryError(msg)
        return real(self, **batch)

    monkeypatch.setattr(ScGPTNetwork, "forward", forward)
    return sizes


@pytest.mark.parametrize("workers", [0, 1])
def test_running_out_of_memory_halves_the_batch_and_keeps_the_step(
    make_adata, monkeypatch, workers
):
    train = make_adata(48)
    settings = {"class_weights": "balanced", "accumulate": 2, "epochs": 3}
    fits = []
    for limit in (99, 5):
        sizes = limit_memory(monkeypatch, limit)
        model, tokens, codes, classes = calm(train)
        typer = classifier(**settings)
        typer.work_in(FitWorkspace(workers=workers))
        fits.append(typer.fit_tokens(model, tokens, codes, classes, seed=0))
        predicted = typer.predict(train).proba
        monkeypatch.undo()
    assert sizes[:3] == [16, 8, 4]
    assert sizes.count(16) == 1
    whole, halved = fits
    assert halved.notes_ == (
        *whole.notes_,
        "memory ran out: batches of 16 cells went through in parts of 4",
    )
    assert halved.history_["step"].tolist() == whole.history_["step"].tolist() == [2, 4, 6]
    np.testing.assert_allclose(
        halved.history_["train_loss"], whole.history_["train_loss"], rtol=1e-4
    )
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(weights_of(halved)[name], tensor, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(predicted, whole.predict(train).proba, atol=1e-3)


def test_memory_for_not_even_one_cell_ends_the_fit(make_adata, monkeypatch):
    limit_memory(monkeypatch, 0)
    with pytest.raises(JobFailed, match="One cell at a time does not fit"):
        fit(classifier(), make_adata())


def test_threads_change_no_bit(make_adata):
    fits = []
    for workers in (0, 3):
        typer = classifier(epochs=3)
        typer.work_in(FitWorkspace(workers=workers))
        fits.append(weights_of(fit(typer, make_adata(60))))
    assert is_same(*fits)


def test_prefetching_keeps_order_and_passes_errors_on():
    items = list(range(30))
    assert list(prefetched(items, lambda x: x * x, 3)) == [(x, x * x) for x in items]
    made = []
    first = next(prefetched(items, made.append, 0))
    assert (first, made) == ((0, None), [0])

    def fail(x):
        if x == 5:
            msg = "five"
            raise ValueError(msg)
        return x

    seen = prefetched(items, fail, 2)
    assert [next(seen)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(seen)
    assert list(in_groups(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_tokens_and_types_must_be_of_the_same_cells(make_adata):
    model, tokens, codes, classes = calm(make_adata())
    with pytest.raises(InputError, match="tokens of 40 cells, but types of 39"):
        classifier().fit_tokens(model, tokens, codes[1:], classes, seed=0)


def test_adapters_leave_the_pretrained_weights_and_plain_names(make_adata, tmp_path, monkeypatch):
    if not GENEFORMER.is_dir():
        pytest.skip("no golden fixtures")
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path))
    catalogue.add("geneformer", GENEFORMER / "pretrained", name="tiny")
    names = (GENEFORMER / "dictionaries" / "token_dictionary.json").read_text(encoding="utf-8")
    train = make_adata()
    train.var["ensembl"] = [name for name in json.loads(names) if name.startswith("ENSG")][:30]
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2}
    adapted, full = (
        fit(
            Classifier(
                "geneformer",
                "geneformer.v2_104m",
                "pretrained",
                "tiny",
                {**settings, **more},
                device="cpu",
            ),
            train,
        )
        for more in ({"lora": 2}, {})
    )
    start, found = full._model.weights, weights_of(adapted)
    assert found.keys() == weights_of(full).keys()
    assert "LoRA: adapters of rank 2 were trained, and the head" in adapted.notes_
    query = "bert.encoder.layer.0.attention.self.query.weight"
    changed = {name for name, x in start.items() if not torch.equal(x, found[name])}
    assert query in changed
    assert {name.rpartition("self.")[2] for name in changed} == {"query.weight", "value.weight"}
    assert torch.linalg.matrix_rank(found[query] - start[query], atol=1e-6) <= 2
    adapted.save(tmp_path / "saved")
    loaded = Classifier.load(tmp_path / "saved")
    # The adapters are added to the weights once; sums in another order differ in the last bits.
    np.testing.assert_allclose(
        loaded.predict(train).proba, adapted.predict(train).proba, rtol=1e-5, atol=1e-6
    )


@pytest.fixture
def cohort(make_adata):
    adata = make_adata(120, n_donors=9)
    info = describe(adata)
    return adata, info, make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3)


def run(cohort, out, folds=(0,), settings=None, **options):
    adata, info, split = cohort
    series = Series(
        dataset_id=info.dataset_id,
        protocol="donor",
        folds=3,
        model="scgpt",
        preset="scgpt.small",
        settings={"epochs": 2, "batch_size": 4, **(settings or {})},
    )
    return run_series(adata, info, split, series, out=out, folds=list(folds), **options)


def test_a_run_tells_how_far_it_is_and_keeps_its_history(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STEPS_PER_REPORT", 5)
    events = []
    run(cohort, tmp_path, progress=events.append)
    steps = [event for event in events if event.step is not None]
    shares = [event.share for event in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {event.epoch for event in steps} == {1, 2}
    assert steps[0].step == 5
    assert steps[0].text.startswith("epoch 1 of 2, ")
    (folder,) = list_runs(tmp_path)
    history = pd.read_parquet(folder / "history.parquet")
    assert (history["memory_mib"] > 50).all()
    assert history["padding_share"].between(0, 0.5).all()
    assert history["cells_per_second"].gt(0).all()


def test_a_run_keeps_tokens_and_removes_snapshots(cohort, tmp_path):
    run(cohort, tmp_path / "out", work=tmp_path / "work", checkpoint_minutes=0)
    assert len(list((tmp_path / "work" / "tokens").iterdir())) == 1
    assert list((tmp_path / "work" / "fits").iterdir()) == []
    assert not (tmp_path / "out" / "work").exists()


def test_a_loss_that_is_not_finite_leaves_a_failed_bundle(cohort, tmp_path):
    settings = {"learning_rate": 1e30, "epochs": 5}
    (result,) = run(cohort, tmp_path, settings=settings, checkpoint_minutes=0)
    (folder,) = list_runs(tmp_path)
    record = read_run(folder)
    assert (result.status, record.status, record.error_kind) == ("failed", "failed", "JobFailed")
    assert "not finite after" in record.reason
    assert list((tmp_path / "work" / "fits").iterdir()) == []


def test_a_device_that_gives_up_keeps_the_snapshot(cohort, tmp_path, monkeypatch):
    real, calls = ScGPTNetwork.forward, []

    def forward(self, **batch):
        calls.append(1)
        if len(calls) == 30:
            msg = "CUDA error: unspecified launch failure"
            raise RuntimeError(msg)
        return real(self, **batch)

    monkeypatch.setattr(ScGPTNetwork, "forward", forward)
    (result,) = run(cohort, tmp_path, checkpoint_minutes=0)
    assert result.reason == "CUDA error: unspecified launch failure"
    assert len(list((tmp_path / "work" / "fits").glob("*/state.pt"))) == 1
    (result,) = run(cohort, tmp_path, checkpoint_minutes=0)
    assert result.status == "done"


@pytest.mark.parametrize("what", ["bundle", "snapshot", "tokens"])
def test_a_full_disk_leaves_no_half_bundle(cohort, tmp_path, monkeypatch, what):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = {
        "bundle": (bundle, "write_parquet"),
        "snapshot": (torch, "save"),
        "tokens": (np.lib.format, "write_array_header_1_0"),
    }[what]
    monkeypatch.setattr(*target, full)
    with pytest.raises(JobFailed, match="disk is full"):
        run(cohort, tmp_path)
    assert list_runs(tmp_path) == []
    assert [path for path in tmp_path.rglob(".tmp-*") if path.is_dir()] == []
    monkeypatch.undo()
    (result,) = run(cohort, tmp_path)
    assert result.status == "done"


def test_types_without_a_training_cell_are_named(cohort, tmp_path):
    adata, info, split = cohort
    labels = adata.obs[LABEL].astype(object)
    labels[split.cell_ids[split.cells(0, TEST)][:2]] = ["CLP", "Pre-B"]
    adata.obs[LABEL] = labels
    (result,) = run((adata, info, split), tmp_path)
    assert result.status == "done"
    (folder,) = list_runs(tmp_path)
    assert "no training cell, so never predicted: CLP, Pre-B" in read_run(folder).notes


@pytest.mark.parametrize("option", [{"checkpoint_minutes": -1}, {"workers": -1}])
def test_impossible_places_to_work_are_refused(cohort, tmp_path, option):
    with pytest.raises(InputError, match="Give numbers from 0"):
        run(cohort, tmp_path, **option)
