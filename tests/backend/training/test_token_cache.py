"""Tokens on disk: made once, by one key, whole or not at all."""

import errno
import os

import numpy as np
import pytest

from backend.cli import main
from backend.data import read_chunks
from backend.errors import InputError, JobFailed
from backend.models.geneformer.model import Geneformer
from backend.models.scgpt.model import ScGPT
from backend.training import token_cache
from backend.training.fit_workspace import clean_workspace, open_workspace, workspace_folder
from backend.training.token_cache import TokenCache, chunks_of, tokens_key
from tests.backend.training import processes

DATASET = "d" * 16


def geneformer(cells):
    return Geneformer.scratch_on(Geneformer.presets["small"], cells, seed=0)


def scgpt(cells):
    return ScGPT.scratch_on(ScGPT.presets["small"], cells, seed=0)


def test_cells_are_tokenised_once(tmp_path, make_adata, monkeypatch):
    cells = make_adata()
    calls = []
    real = Geneformer.tokenise

    def spy(self, chunks, **options):
        calls.append(1)
        return real(self, chunks, **options)

    monkeypatch.setattr(Geneformer, "tokenise", spy)
    model = geneformer(cells)
    for seed, rows in ((0, slice(0, 10)), (1, slice(5, 40)), (2, [3, 1])):
        tokens = TokenCache.of(tmp_path, DATASET, cells).tokens(
            model, cells.obs_names[rows], seed=seed
        )
        assert len(tokens) == len(cells.obs_names[rows])
    assert len(calls) == 1
    assert [path.name for path in tmp_path.iterdir()] == [
        tokens_key(DATASET, model, seed=9, draw=0)[0]
    ]


def test_what_tokens_depend_on_is_in_their_key(make_adata):
    cells = make_adata()
    ranked, binned = geneformer(cells), scgpt(cells)

    def key(model, dataset=DATASET, seed=0, draw=0):
        return tokens_key(dataset, model, seed=seed, draw=draw)[0]

    assert key(ranked) == key(ranked, seed=1, draw=2)
    assert key(binned) == key(scgpt(cells))
    others = [
        key(ranked),
        key(binned),
        key(binned, seed=1),
        key(binned, draw=1),
        key(binned, dataset="e" * 16),
        key(scgpt(cells[:, :20])),
        # Medians are fitted on the training cells.
        key(geneformer(cells[:11])),
    ]
    assert len(set(others)) == len(others)


def test_two_processes_that_start_together_share_one_folder(tmp_path):
    context = processes.context()
    barrier, answers = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=processes.tokenise, args=(str(tmp_path), barrier, answers))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    hashes = {answers.get(timeout=60) for _ in both}
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    answers.close()
    assert len(hashes) == 1
    (folder,) = tmp_path.iterdir()
    assert not folder.name.startswith(".")


def test_the_slower_of_two_takes_what_the_faster_left(tmp_path, make_adata, monkeypatch):
    cells = make_adata()
    model = geneformer(cells)
    write = token_cache._write_arrays

    def overtaken(folder, stores, about):
        n_cells = write(folder, stores, about)
        monkeypatch.setattr(token_cache, "_write_arrays", write)
        TokenCache.of(tmp_path, DATASET, cells).tokens(model, cells.obs_names, seed=0)
        return n_cells

    monkeypatch.setattr(token_cache, "_write_arrays", overtaken)
    tokens = TokenCache.of(tmp_path, DATASET, cells).tokens(model, cells.obs_names, seed=0)
    assert len(tokens) == 40
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_no_half_tokens(tmp_path, make_adata, monkeypatch, number):
    cells = make_adata()

    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(token_cache._Column, "finish", full)
    cache = TokenCache.of(tmp_path, DATASET, cells)
    with pytest.raises(JobFailed, match="disk is full: there is no room for the tokens"):
        cache.tokens(geneformer(cells), cells.obs_names, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_are_not_renamed(tmp_path, make_adata, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(token_cache._Column, "finish", broken)
    cells = make_adata()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        TokenCache.of(tmp_path, DATASET, cells).tokens(geneformer(cells), [], seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "no head", "no ids"])
def test_damaged_tokens_are_made_again(tmp_path, make_adata, damage):
    cells = make_adata()
    model = geneformer(cells)
    cache = TokenCache.of(tmp_path, DATASET, cells)
    before = cache.tokens(model, cells.obs_names, seed=0).take(np.arange(40)).ids
    before = [ids.copy() for ids in before]
    (folder,) = tmp_path.iterdir()
    if damage == "cut":
        path = folder / "ids.npy"
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "no head":
        (folder / "tokens.json").unlink()
    else:
        (folder / "ids.npy").unlink()
    after = cache.tokens(model, cells.obs_names, seed=0).take(np.arange(40)).ids
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_cells_of_another_dataset_are_refused(tmp_path, make_adata):
    cells = make_adata()
    cache = TokenCache.of(tmp_path, DATASET, cells)
    with pytest.raises(InputError, match="1 of 2 cells are not in the dataset"):
        cache.tokens(geneformer(cells), [cells.obs_names[0], "other"], seed=0)
    short = TokenCache(tmp_path, DATASET, cells.obs_names, lambda: chunks_of(cells[:30]))
    with pytest.raises(InputError, match="30 cells were read, but the dataset has 40"):
        short.tokens(geneformer(cells), cells.obs_names, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_made_from_a_file_in_chunks(tmp_path, make_adata):
    cells = make_adata(120, n_donors=6)
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    model = scgpt(cells)
    streamed = TokenCache(
        tmp_path / "tokens", DATASET, cells.obs_names, lambda: read_chunks(path, size=17)
    ).tokens(model, cells.obs_names, seed=0)
    plain = model.tokenise([cells], seed=0)
    rows = np.arange(120)
    for a, b in zip(plain.take(rows).ids, streamed.take(rows).ids, strict=True):
        assert np.array_equal(a, b)


def test_work_folders_are_left_alone_by_version_control_and_cleaned(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    assert workspace_folder(tmp_path) == tmp_path / "work"
    assert workspace_folder("memory://runs") == tmp_path / "home" / "work"
    assert workspace_folder(tmp_path, tmp_path / "fast") == tmp_path / "fast"
    work = open_workspace(workspace_folder(tmp_path))
    assert (work / ".gitignore").read_text() == "*\n"
    (work / "fits" / "a").mkdir(parents=True)
    (work / "fits" / "a" / "state.pt").write_bytes(b"x" * 100)
    assert main(["clean", "--out", str(tmp_path)]) == 0
    assert "removed from" in capsys.readouterr().out
    assert [path.name for path in work.iterdir()] == [".gitignore"]
    assert clean_workspace(work) == 0
    assert main(["clean", "--work", str(tmp_path)]) == 2
    assert "is no work folder" in capsys.readouterr().err
