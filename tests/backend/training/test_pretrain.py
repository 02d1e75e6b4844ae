"""Pre-training: objectives learn, labels are not read, folds keep apart, checkpoints come back."""

import json
from fnmatch import fnmatchcase

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from backend.cli import main
from backend.data import describe
from backend.data.cell_filter import matching_cells
from backend.data.fingerprint import cell_fingerprints
from backend.errors import InputError, JobFailed, ModelUnavailable, SplitError
from backend.models import catalogue
from backend.models.inhouse import (
    is_series,
    members,
    open_checkpoint,
    read_cells,
    read_pretraining,
)
from backend.models.pretraining import choose
from backend.models.registry import model_class
from backend.splits import TRAIN, make_split
from backend.training import pretrain as module
from backend.training.pretrain import PretrainSettings, pretrain, pretrain_series

MODELS = ("scgpt", "geneformer", "scbert", "scfoundation")
FAST = {"epochs": 1, "max_steps": 2}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def cohort(make_adata):
    """90 cells of 9 donors, the last 5 unlabelled; its facts and a split by donor."""
    adata = make_adata(n_cells=90, n_donors=9, n_unlabelled=5)
    info = describe(adata)
    split = make_split(adata.obs, "donor", dataset_id=info.dataset_id, folds=3)
    return adata, info, split


def make_series(cohort, home, model="scgpt", **options):
    adata, info, split = cohort
    defaults = {"preset": "small", "name": "own", "folds": [0], "settings": FAST, "seed": 0}
    return pretrain_series(adata, info, split, model=model, home=home, **(defaults | options))


def make_one(cohort, home, model="scbert", mask=None, **options):
    adata, info, _ = cohort
    mask = np.ones(adata.n_obs, dtype=bool) if mask is None else mask
    defaults = {"preset": "small", "name": "one", "settings": FAST}
    return pretrain(adata, mask, info=info, model=model, home=home, **(defaults | options))


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_comes_back_with_a_fresh_head(cohort, home, model):
    folder = make_series(cohort, home, model)[0]
    built, report = open_checkpoint(model, folder)
    assert report.share_loaded == 1.0
    head = set(report.fresh)
    assert head
    assert head == {name for name in built.network(2).state_dict() if name in head}
    scratch = model_class(model).scratch_on(built.config, cohort[0], seed=5).network(2)
    for name, tensor in built.network(2).state_dict().items():
        if name not in head:
            assert torch.equal(tensor, built.weights[name]), name
    assert list(built.network(2).state_dict()) == list(scratch.state_dict())
    # Two steps away from where it began: every backbone is trained.
    assert built.weights is not None
    assert any(
        not torch.equal(tensor, scratch.state_dict()[name])
        for name, tensor in built.weights.items()
        if tensor.shape == scratch.state_dict()[name].shape
    )


@pytest.mark.parametrize("model", MODELS)
def test_what_it_says_of_itself(cohort, home, model):
    adata, info, split = cohort
    folder = make_series(cohort, home, model, folds=[1])[0]
    about = read_pretraining(folder)
    train = adata[np.isin(adata.obs_names, split.cell_ids[split.cells(1, TRAIN)])]
    assert about.dataset_id == info.dataset_id
    assert about.donors == tuple(sorted(train.obs["donor"].unique()))
    assert about.n_cells == train.n_obs
    assert (about.split_sha256, about.fold) == (split.sha256, 1)
    assert (about.steps, about.seed, about.preset) == (2, 0, f"{model}.small")
    assert about.objective.startswith("masked")
    assert {"torch", "faultline", "python"} <= about.versions.keys()
    assert read_cells(folder).tolist() == sorted(cell_fingerprints(train).tolist())
    history = pd.read_parquet(folder / "history.parquet")
    assert history.columns.tolist() == ["step", "epoch", "loss", "lr", "cells_per_second"]
    assert about.final_loss == history["loss"].iloc[-1]


def losses(model, adata, *, epochs=12):
    built = model_class(model).scratch_on(model_class(model).presets["small"], adata, seed=0)
    tokens = built.tokenise([adata], seed=0)
    torch.manual_seed(0)
    settings = PretrainSettings(epochs=epochs, batch_size=8, learning_rate=3e-3)
    history = module._train(
        built.pretraining_objective(),
        tokens,
        settings,
        seed=0,
        device=torch.device("cpu"),
        tell=lambda *_: None,
    )
    return history["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "share"),
    [("scgpt", 0.2), ("geneformer", 0.97), ("scbert", 0.5), ("scfoundation", 0.5)],
)
def test_the_loss_falls(make_adata, model, share):
    found = losses(model, make_adata(n_cells=120))
    assert found.iloc[-1] < share * found.iloc[0]


def batch_of(model, adata, n=12):
    config = model_class(model).presets["small"]
    built = model_class(model).scratch_on(config, adata, seed=0)
    return built, built.tokenise([adata], seed=0).take(np.arange(n))


@pytest.mark.parametrize("model", MODELS)
def test_the_network_is_not_shown_what_it_is_asked(make_adata, model):
    built, cells = batch_of(model, make_adata())
    objective = built.pretraining_objective()
    masked = objective.mask(cells, torch.Generator().manual_seed(0))
    again = objective.mask(cells, torch.Generator().manual_seed(0))
    assert all(torch.equal(masked[name], again[name]) for name in masked)
    assert len(masked["truth"])
    if model == "scfoundation":
        for shown, asked in zip(masked["gene_ids"], masked["asked"], strict=True):
            genes = set(shown.tolist()) & set(asked.tolist())
            # Only the place of padding is in both.
            assert genes <= {len(built.panel) + 2}
        return
    field = {"scgpt": "values", "geneformer": "input_ids", "scbert": "tokens"}[model]
    mark = {"scgpt": -1.0, "geneformer": 1, "scbert": 6}
    plain, shown = built.collate(cells)[field], masked[field]
    hidden = masked["hidden"]
    assert torch.equal(plain[~hidden], shown[~hidden])
    is_marked = shown[hidden] == mark[model]
    assert is_marked.float().mean() > (0.99 if model == "scgpt" else 0.6)
    assert not hidden[:, 0].any() or model == "scbert"
    truth = masked["truth"]
    truth = masked["genes"][truth] if model == "geneformer" else truth
    assert torch.equal(truth, plain[hidden])


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_of_the_backbone_is_trained(make_adata, model):
    built, cells = batch_of(model, make_adata())
    objective = built.pretraining_objective()
    objective(**objective.mask(cells, torch.Generator().manual_seed(0))).backward()
    head = built.head
    idle = [
        name
        for name, tensor in objective.network.named_parameters()
        if not any(fnmatchcase(name, pattern) for pattern in head if model == "scgpt")
        and (tensor.grad is None or not tensor.grad.any())
    ]
    # Padding is never read.
    assert idle == (["token_emb.emb_pad.weight"] if model == "scfoundation" else [])


def test_at_least_one_place_is_chosen():
    generator = torch.Generator().manual_seed(0)
    eligible = torch.zeros(3, 4, dtype=torch.bool)
    eligible[1, 2] = True
    assert torch.equal(choose(eligible, 1e-9, generator), eligible)
    many = choose(torch.ones(100, 100, dtype=torch.bool), 0.15, generator)
    assert many.float().mean() == pytest.approx(0.15, abs=0.01)
    with pytest.raises(InputError, match="no gene to mask"):
        choose(torch.zeros(2, 2, dtype=torch.bool), 0.5, generator)


def test_labels_are_never_read(cohort, home):
    adata, info, split = cohort
    made = make_series(cohort, home)[0]
    blind = adata.copy()
    for column in ("cell_type_fine", "cell_type_lineage", "timepoint", "is_malignant"):
        del blind.obs[column]
    other = pretrain_series(
        blind,
        info,
        split,
        model="scgpt",
        preset="small",
        name="blind",
        home=home,
        folds=[0],
        settings=FAST,
        seed=0,
    )[0]
    assert read_pretraining(made).sha256 == read_pretraining(other).sha256


def test_same_seed_same_weights_other_seed_other(cohort, home):
    first, again, other = (
        read_pretraining(make_one(cohort, home, name=name, seed=seed)).sha256
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


def test_each_fold_finds_its_own(cohort, home):
    _, _, split = cohort
    folders = make_series(cohort, home, folds=[0, 2, "final"])
    found = [
        catalogue.find_checkpoint("scgpt", "own", split_sha256=split.sha256, fold=fold)
        for fold in (0, 2, "final")
    ]
    assert [entry.folder for entry in found] == [str(folder.resolve()) for folder in folders]
    assert len({entry.sha256 for entry in found}) == 3
    assert all(entry.is_inhouse and len(entry.sha256) == 64 for entry in found)
    with pytest.raises(ModelUnavailable, match=r"none for fold 1 of this split. Found: donor 0"):
        catalogue.find_checkpoint("scgpt", "own", split_sha256=split.sha256, fold=1)
    with pytest.raises(ModelUnavailable, match="none for fold 0"):
        catalogue.find_checkpoint("scgpt", "own", split_sha256="0" * 64, fold=0)
    with pytest.raises(ModelUnavailable, match="none for no fold"):
        catalogue.find_checkpoint("scgpt", "own")
    assert read_pretraining(folders[2]).n_cells == split.cell_ids.size


def test_a_fold_never_reads_its_test_cells(cohort, home):
    adata, _, split = cohort
    for fold, folder in enumerate(make_series(cohort, home, "scbert", folds="all")):
        train = split.cell_ids[split.cells(fold, TRAIN)]
        seen = set(read_cells(folder).tolist())
        assert seen == set(cell_fingerprints(adata[train]).tolist())
        held_out = np.setdiff1d(split.cell_ids, train)
        assert not seen & set(cell_fingerprints(adata[held_out]).tolist())


def test_finished_folds_are_kept_and_half_ones_start_again(cohort, home, monkeypatch):
    states = []

    def show(event):
        states.append((event.fold, event.state))

    before = make_series(cohort, home, folds=[0])[0]
    mtime = (before / "weights.safetensors").stat().st_mtime_ns
    real = module.write_checkpoint

    def die(folder, *arguments, **options):
        real(folder, *arguments, **options)
        (folder / "pretraining.json").unlink()
        msg = "killed"
        raise KeyboardInterrupt(msg)

    monkeypatch.setattr(module, "write_checkpoint", die)
    with pytest.raises(KeyboardInterrupt):
        make_series(cohort, home, folds=[0, 1])
    assert len(members(before.parent)) == 1
    monkeypatch.setattr(module, "write_checkpoint", real)
    after = make_series(cohort, home, folds=[0, 1], progress=show)
    assert (after[0] / "weights.safetensors").stat().st_mtime_ns == mtime
    assert states[0] == (0, "skipped")
    assert states[-1] == (1, "done")
    assert members(before.parent) == sorted(after)
    assert not list(before.parent.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"seed": 1}, "seed"), ({"settings": {"epochs": 1, "max_steps": 3}}, "settings")],
)
def test_another_checkpoint_of_one_name_is_refused(cohort, home, changes, what):
    make_series(cohort, home, "scbert")
    with pytest.raises(InputError, match=f"for fold 0 with other {what}"):
        make_series(cohort, home, "scbert", **changes)


def test_one_name_is_one_kind(cohort, home, tmp_path):
    make_series(cohort, home, "scbert", name="own")
    with pytest.raises(InputError, match="one checkpoint for each fold already"):
        make_one(cohort, home, name="own")
    make_one(cohort, home, name="one")
    with pytest.raises(InputError, match="is one checkpoint already"):
        make_series(cohort, home, "scbert", name="one")
    made = make_one(cohort, tmp_path / "other", name="elsewhere")
    catalogue.add("scbert", made, name="taken")
    with pytest.raises(InputError, match='"taken" is another checkpoint'):
        make_one(cohort, home, name="taken")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "logreg"}, InputError, "has no checkpoints"),
        ({"preset": "huge"}, InputError, 'no preset "huge"'),
        ({"name": "Own Model"}, InputError, "cannot name a checkpoint"),
        ({"folds": [7]}, InputError, "no fold 7"),
        ({"settings": {"epoch": 2}}, InputError, "no setting epoch"),
        ({"settings": {"epochs": 0}}, InputError, "epochs is 0"),
        ({"settings": {"batch_size": True}}, InputError, "batch_size is True"),
        ({"settings": FAST | {"expressed_only": 3}}, InputError, "no setting expressed_only"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    cohort, home, options, error, message
):
    with pytest.raises(error, match=message):
        make_series(cohort, home, **options)
    assert not list(home.rglob("*.safetensors"))


def test_splits_of_other_data_are_refused(cohort, home, make_adata):
    _, info, split = cohort
    other = make_adata(n_cells=90, n_donors=9, seed=1)
    with pytest.raises(SplitError, match="was made from dataset"):
        make_series((other, describe(other), split), home)
    with pytest.raises(SplitError, match="are not in the data"):
        make_series((cohort[0][:50].copy(), info, split), home)


def test_a_loss_that_is_not_finite_ends_it(cohort, home):
    with pytest.raises(JobFailed, match="not finite"):
        make_one(cohort, home, settings={"epochs": 9, "learning_rate": 1e30})
    assert not list(home.rglob("*.safetensors"))


def test_no_cell_is_refused(cohort, home):
    with pytest.raises(InputError, match="No cell was chosen"):
        make_one(cohort, home, mask=np.zeros(cohort[0].n_obs, dtype=bool))


def test_options_of_a_model_are_kept(cohort, home):
    folder = make_one(cohort, home, settings=FAST | {"expressed_only": False})
    built, _ = open_checkpoint("scbert", folder)
    assert built.sizes.expressed_only is False


@pytest.mark.parametrize("name", ["weights.safetensors", "genes.json", "pretrain_cells.bin"])
def test_changed_files_are_refused(cohort, home, name):
    folder = make_one(cohort, home)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=f"`{name}` of the in-house checkpoint was changed"):
        open_checkpoint("scbert", folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"has no `{name}`"):
        open_checkpoint("scbert", folder)


def test_damaged_or_foreign_heads_are_refused(cohort, home):
    folder = make_one(cohort, home)
    with pytest.raises(ModelUnavailable, match="of scbert, not of scgpt"):
        open_checkpoint("scgpt", folder)
    head = folder / "pretraining.json"
    values = json.loads(head.read_text(encoding="utf-8"))
    head.write_text(json.dumps({k: v for k, v in values.items() if k != "donors"}))
    with pytest.raises(InputError, match="is damaged"):
        read_pretraining(folder)
    head.write_text(json.dumps(values | {"format_version": 9}))
    with pytest.raises(InputError, match="has the format 9"):
        read_pretraining(folder)


def test_folders_travel(cohort, home, tmp_path, capsys):
    _, _, split = cohort
    folders = make_series(cohort, tmp_path / "away", "scbert", folds=[0, 1])
    assert is_series(folders[0].parent)
    entry, report = catalogue.add("scbert", folders[0].parent)
    assert (entry.name, entry.preset, entry.is_series) == ("own", "scbert.small", True)
    assert report.share_loaded == 1.0
    found = catalogue.find_checkpoint("scbert", "own", split_sha256=split.sha256, fold=1)
    assert found.folder == str(folders[1].resolve())
    with pytest.raises(InputError, match="nothing published"):
        catalogue.verify("scbert", folders[0])
    assert main(["checkpoints", "list", "scbert"]) == 0
    assert "scbert.small, in-house, one for each fold" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"holds scbert\.small, not panglao"):
        catalogue.add("scbert", folders[0].parent, preset="panglao")


def test_models_without_an_objective_are_refused(cohort, home, monkeypatch):
    monkeypatch.delattr(model_class("scbert"), "pretraining_objective")
    with pytest.raises(InputError, match="no pre-training objective"):
        make_one(cohort, home)


def test_a_plug_in_brings_its_own_objective(cohort, home, monkeypatch):
    from backend.models.scbert.pretraining import MaskedBins

    class Halves(MaskedBins):
        text = "masked halves"
        share = 0.5

    monkeypatch.setattr(model_class("scbert"), "pretraining_objective", lambda self: Halves(self))
    assert read_pretraining(make_one(cohort, home)).objective == "masked halves"


@pytest.fixture
def file(make_adata, tmp_path):
    """An h5ad whose genes are those of another species."""
    adata = make_adata(n_cells=90, n_donors=9)
    adata.var_names = [f"Os{i:02d}g0{1000 + i}" for i in range(adata.n_vars)]
    adata.obs = adata.obs.drop(columns=["day", "is_malignant"])
    path = tmp_path / "rice.h5ad"
    ad.AnnData(adata.X, obs=adata.obs, var=adata.var).write_h5ad(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_genes_of_any_species_from_the_command_line(
    file, home, tmp_path, capsys, plain_umap, model
):
    common = ["--dataset", str(file), "--model", model, "--preset", "small", "--any-genes"]
    of_split = ["--protocol", "donor", "--folds", "3"]
    pretraining = ["pretrain", *common, "--name", "own", *of_split, "--fold", "0"]
    assert main([*pretraining, "--set", "epochs=1", "max_steps=2"]) == 0
    assert "In-house checkpoint own" in capsys.readouterr().out
    run = ["run", *common, "--init", "pretrained", "--checkpoint", "own", *of_split, "--fold", "0"]
    out = ["--out", str(tmp_path / "out"), "--set", "epochs=1", "max_steps=2"]
    assert main([*run, *out]) == 0
    built, _ = open_checkpoint(model, members(home / "checkpoints" / model / "own")[0])
    assert "Os00g01000" in json.dumps(built.state())


def test_genes_of_other_species_are_refused_unasked(file, home, capsys):
    command = ["pretrain", "--dataset", str(file), "--model", "scbert", "--name", "own"]
    assert main(command) == 2
    assert "known human genes" in capsys.readouterr().err


def test_cells_of_a_condition_from_the_command_line(make_adata, tmp_path, home, capsys):
    adata = make_adata(n_cells=60)
    adata.obs = adata.obs.drop(columns=["day", "is_malignant"])
    path = tmp_path / "cells.h5ad"
    ad.AnnData(adata.X, obs=adata.obs, var=adata.var).write_h5ad(path)
    command = ["pretrain", "--dataset", str(path), "--model", "scbert", "--name", "dx"]
    condition = "timepoint == 'Diagnosis'"
    assert main([*command, "--cells", condition, "--set", "epochs=1"]) == 0
    about = read_pretraining(home / "checkpoints" / "scbert" / "dx")
    assert about.cells == condition
    assert about.n_cells == (adata.obs["timepoint"] == "Diagnosis").sum()
    assert about.fold is None
    assert main([*command, "--protocol", "donor"]) == 2
    assert "--fold is missing" in capsys.readouterr().err


OBS = pd.DataFrame(
    {
        "timepoint": pd.Categorical(["Healthy", "Relapse", None, "Healthy"]),
        "donor": ["a", "b", "c", "d"],
        "n_genes": [100, 600, 700, 800],
        "is_malignant": pd.array([True, False, None, False], dtype="boolean"),
    }
)


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("timepoint == 'Healthy'", "1001"),
        ("timepoint != 'Healthy'", "0100"),
        ("not timepoint == 'Healthy'", "0110"),
        ("donor in ['a', 'c']", "1010"),
        ("donor not in ('a',)", "0111"),
        ("timepoint not in ['Healthy']", "0100"),
        ("n_genes >= 600 and (donor == 'b' or timepoint == 'Healthy')", "0101"),
        ("n_genes < 650", "1100"),
        ("is_malignant == True", "1000"),
        ("is_malignant == False", "0101"),
    ],
)
def test_conditions_choose_cells(condition, met):
    assert "".join(map(str, matching_cells(OBS, condition).astype(int))) == met


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("__import__('os').system('true')", "is no comparison"),
        ("timepoint == open('x')", "is no value"),
        ("donor.str.len() == 1", "is no comparison"),
        ("(lambda: 1)() == 1", "is no comparison"),
        ("donor == None", "is no text or number"),
        ("donor ==", "cannot be read"),
        ("tissue == 'BM'", 'no column "tissue"'),
        ("donor > 3", "holds no numbers"),
        ("donor == ['a']", "no meaning"),
        ("'a' == donor", "is no comparison"),
        ("0 < n_genes < 5", "is no comparison"),
        ("donor == 'zz'", "None of 4 cells"),
        ("not " * 400 + "donor == 'a'", "characters"),
    ],
)
def test_conditions_outside_the_grammar_are_refused(condition, message):
    with pytest.raises(InputError, match=message):
        matching_cells(OBS, condition)
