"""A checkpoint that has seen held-out cells or donors is refused, or named on every view."""

import dataclasses

import numpy as np
import pytest
import torch

from backend.cli import main
from backend.config import golden_dir
from backend.data import describe
from backend.errors import ModelUnavailable, SplitError
from backend.models import catalogue
from backend.splits import TEST, TRAIN, VALID, make_split
from backend.store.bundle import list_runs, read_run
from backend.training.finetune import Classifier
from backend.training.overlap import PUBLIC_NOTE, Overlap, check_overlap
from backend.training.pretrain import pretrain, pretrain_series
from backend.training.runs import display_name, run_series
from backend.types import Series

MODEL = "scbert"
FAST = {"epochs": 1, "max_steps": 1}


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
def data(make_adata):
    adata = make_adata(n_cells=90, n_donors=9)
    return adata, describe(adata)


def split_of(data, protocol="donor"):
    adata, info = data
    return make_split(adata.obs, protocol, dataset_id=info.dataset_id, folds=3)


def rows_of(data, split):
    return data[0].obs_names.get_indexer(split.cell_ids)


def series_of(data, split, checkpoint="own", init="pretrained"):
    return Series(
        dataset_id=data[1].dataset_id,
        protocol=split.protocol,
        folds=3,
        model=MODEL,
        preset=f"{MODEL}.small",
        init=init,
        checkpoint=checkpoint,
        settings=FAST,
    )


def seen(data, home, cells, name="own"):
    """Pre-train one checkpoint on some cells (ids)."""
    adata, info = data
    mask = np.isin(adata.obs_names, cells)
    return pretrain(
        adata, mask, info=info, model=MODEL, preset="small", name=name, home=home, settings=FAST
    )


def check(data, split, folds=(0,), *, is_allowed=False, **options):
    series = series_of(data, split, **options)
    rows = rows_of(data, split)
    return check_overlap(data[0], rows, split, series, folds, is_allowed=is_allowed)


def run(data, split, out, folds=(0,), **options):
    adata, info = data
    allow = options.pop("allow_overlap", False)
    series = series_of(data, split, **options)
    return run_series(adata, info, split, series, out=out, folds=list(folds), allow_overlap=allow)


@pytest.mark.parametrize("init", ["pretrained", "frozen"])
@pytest.mark.parametrize("role", [VALID, TEST])
def test_a_planted_cell_is_refused_before_any_fit(data, home, tmp_path, role, init):
    split = split_of(data, "random")
    planted = split.cell_ids[split.cells(0, role)][:1]
    train = split.cell_ids[split.cells(0, TRAIN)]
    seen(data, home, [*train, *planted])
    what = {VALID: "1 validation cell", TEST: "1 test cell"}[role]
    with pytest.raises(SplitError, match=f'"own" was pre-trained on {what} of fold 0') as error:
        run(data, split, tmp_path / "out", init=init)
    assert "--allow-overlap" in error.value.hint
    assert not (tmp_path / "out" / "runs").exists()


def test_the_same_cell_in_another_file_is_found(data, home, make_adata):
    """Fingerprints compare genes and counts: other ids, other order of genes, unread columns."""
    adata, _ = data
    split = split_of(data, "random")
    tested = np.flatnonzero(np.isin(adata.obs_names, split.cell_ids[split.cells(0, TEST)]))
    other = adata[tested].copy()[:, ::-1].copy()
    other.obs_names = [f"renamed_{i}" for i in range(other.n_obs)]
    pretrain(
        other,
        np.ones(other.n_obs, dtype=bool),
        info=describe(other),
        model=MODEL,
        preset="small",
        name="own",
        home=home,
        settings=FAST,
    )
    with pytest.raises(SplitError, match=f"pre-trained on {len(tested)} test cells"):
        check(data, split)


def test_held_out_donors_are_refused_under_donor_alone(data, home):
    """Training cells of a test donor: none is held out under `random`, the donor is under `donor`."""
    adata, _ = data
    split = split_of(data)
    held_out = split.cells(0, TEST)
    donor = adata[split.cell_ids[held_out]].obs["donor"].iloc[0]
    # The donor's cells are all tested, so pre-train on changed copies of them.
    changed = adata.copy()
    counts = adata.X.tolil()
    counts[:, 0] = 99
    changed.X = counts.tocsr()
    cells = changed.obs_names[changed.obs["donor"] == donor]
    seen((changed, describe(changed)), home, cells)
    with pytest.raises(SplitError, match=f"pre-trained on the donor {donor} of fold 0"):
        check(data, split)
    assert check(data, split_of(data, "random")).badge == ""


def test_training_cells_of_the_fold_are_no_overlap(data, home, tmp_path):
    adata, info = data
    split = split_of(data)
    pretrain_series(
        adata,
        info,
        split,
        model=MODEL,
        preset="small",
        name="own",
        home=home,
        folds="all",
        settings=FAST,
    )
    results = run(data, split, tmp_path, folds=(0, 1, 2))
    assert [result.status for result in results] == ["done"] * 3
    records = {read_run(folder).fold: read_run(folder) for folder in list_runs(tmp_path)}
    assert len({record.checkpoint_sha256 for record in records.values()}) == 3
    for fold, record in records.items():
        entry = catalogue.find_checkpoint(MODEL, "own", split_sha256=split.sha256, fold=fold)
        assert record.checkpoint_sha256 == entry.sha256
        assert record.display_name == "scBERT small, pretrained in-house"
        assert record.notes[0] == (
            f"in-house checkpoint: pre-trained on {record.n_train:,} cells of this dataset "
            f"(simulated), the training cells of fold {fold}; published weights not used"
        )
        assert not any("public" in note or "overlap" in note for note in record.notes)
        wanted = series_of(data, split).run_id(
            fold=fold,
            split_sha256=split.sha256,
            checkpoint_sha256=entry.sha256,
            recipe_version=Classifier.recipe_version,
        )
        assert record.run_id == wanted


def test_the_checkpoint_of_another_fold_is_never_taken(data, home):
    adata, info = data
    split = split_of(data)
    common = {"model": MODEL, "preset": "small", "home": home, "settings": FAST}
    made = pretrain_series(adata, info, split, name="own", folds=[1], **common)
    with pytest.raises(ModelUnavailable, match="none for fold 0 of this split"):
        check(data, split)
    # Registered by hand as one checkpoint for all folds, it has seen test cells of fold 0.
    catalogue.add(MODEL, made[0], name="by-hand")
    with pytest.raises(SplitError, match="test cells and the donors"):
        check(data, split, checkpoint="by-hand")


def test_an_allowed_overlap_is_on_every_view(data, home, tmp_path):
    split = split_of(data)
    seen(data, home, split.cell_ids[split.cells(0, TEST)])
    run(data, split, tmp_path, folds=(0, 1), allow_overlap=True)
    records = {read_run(folder).fold: read_run(folder) for folder in list_runs(tmp_path)}
    n = int(split.cells(0, TEST).sum())
    assert records[0].notes[0].startswith(f"overlap: pre-trained on {n} test cells and the donors")
    # The name is one for the series, also where a fold has no overlap of its own.
    names = {record.display_name for record in records.values()}
    assert names == {"scBERT small, pretrained in-house, overlap"}


def test_the_badge_does_not_depend_on_the_folds_asked_for(data, home):
    split = split_of(data)
    seen(data, home, split.cell_ids[split.cells(0, TRAIN)])
    alone = check(data, split)
    assert alone.badge == ", overlap"
    assert not any("overlap" in note for note in alone.notes[0])
    with pytest.raises(SplitError, match="of fold 1"):
        check(data, split, folds=(0, 1))


def test_final_fits_hold_nothing_out(data, home):
    adata, _ = data
    split = split_of(data)
    seen(data, home, adata.obs_names)
    origin = check(data, split, folds=("final",))
    assert origin.notes["final"][0].startswith("in-house checkpoint: pre-trained on 90 cells")


def test_another_dataset_is_named(data, home, make_adata):
    other = make_adata(n_cells=60, n_donors=4, seed=9)
    other.uns["faultline"]["name"] = "Elsewhere"
    other.obs["donor"] = other.obs["donor"].astype(str).radd("Z")
    seen((other, describe(other)), home, other.obs_names)
    notes = check(data, split_of(data)).notes[0]
    assert notes[0].startswith('in-house checkpoint: pre-trained on 60 cells of "Elsewhere"')


def test_empty_cells_are_not_the_same_cell(data, home, make_adata):
    adata = data[0].copy()
    split = split_of(data, "random")
    rows = rows_of(data, split)
    train, test = (rows[split.cells(0, role)] for role in (TRAIN, TEST))
    counts = adata.X.tolil()
    counts[[train[0], test[0]], :] = 0
    adata.X = counts.tocsr()
    changed = (adata, data[1])
    seen(changed, home, adata.obs_names[train])
    series = series_of(data, split)
    assert (
        not check_overlap(adata, rows, split, series, [0], is_allowed=True)
        .notes[0][0]
        .startswith("overlap")
    )


def test_public_checkpoints_say_that_nothing_is_known(home, make_adata, tmp_path):
    folder = golden_dir() / "scgpt" / "pretrained"
    if not folder.is_dir():
        pytest.skip("no golden fixtures")
    catalogue.add("scgpt", folder, name="tiny")
    adata = make_adata(n_cells=90, n_donors=9)
    vocabulary = catalogue.read_json(folder / "vocab.json")
    adata.var_names = [name for name in vocabulary if not name.startswith("<")][: adata.n_vars]
    data = (adata, describe(adata))
    split = split_of(data)
    changes = {"model": "scgpt", "preset": "scgpt.whole_human", "checkpoint": "tiny"}
    series = dataclasses.replace(series_of(data, split), **changes)
    assert display_name(series) == "scGPT whole human, pretrained"
    (result,) = run_series(adata, data[1], split, series, out=tmp_path, folds=[0])
    record = read_run(tmp_path / "runs" / result.run_id)
    assert (
        record.notes[0]
        == PUBLIC_NOTE
        == "public checkpoint: pre-training overlap cannot be excluded"
    )
    assert record.notes.count(PUBLIC_NOTE) == 1
    assert not any("in-house" in note for note in record.notes)


def test_scratch_has_no_origin(data):
    split = split_of(data)
    origin = check(data, split, checkpoint=None, init="scratch")
    assert (origin.badge, dict(origin.notes)) == ("", {})


@pytest.mark.slow
def test_the_flag_of_the_command_line(data, home, tmp_path, capsys, plain_umap):
    adata, _ = data
    path = tmp_path / "cells.h5ad"
    plain = adata.copy()
    plain.obs = plain.obs.drop(columns=["day", "is_malignant"])
    plain.write_h5ad(path)
    common = ["--dataset", str(path), "--model", MODEL, "--preset", "small"]
    assert main(["pretrain", *common, "--name", "all", "--set", "epochs=1"]) == 0
    run = ["run", *common, "--init", "pretrained", "--checkpoint", "all", "--folds", "3"]
    rest = ["--fold", "0", "--out", str(tmp_path / "out"), "--set", "epochs=1"]
    assert main([*run, *rest]) == 2
    assert "was pre-trained on" in capsys.readouterr().err
    assert main([*run, *rest, "--allow-overlap"]) == 0


@pytest.mark.parametrize(
    ("overlap", "text"),
    [
        (Overlap(n_test=1), "1 test cell"),
        (Overlap(1200, 2), "1,200 validation cells and 2 test cells"),
        (Overlap(0, 2, ("a",)), "2 test cells and the donor a"),
        (Overlap(donors=tuple("abcdef")), "the donors a, b, c, d, e …"),
    ],
)
def test_overlap_in_words(overlap, text):
    assert overlap.text == text
    assert overlap
    assert not Overlap()
