"""The stand-in of the Ennis 2023 atlas: its published shape, its words, its layout and its size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections import namedtuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.config import environment, project_root
from backend.data import describe, load
from backend.data.check import check
from backend.data.genes import map_genes
from backend.data.stand_in import facts
from backend.data.stand_in.cohort import FEWEST_CELLS, MOST_CELLS, plan_stand_in
from backend.data.stand_in.file import write_stand_in
from backend.data.stand_in.kernel import Programmes, draw_counts
from backend.errors import InputError
from backend.files import DiskFull

ATLAS_CELLS = 339_381
COLUMNS = [
    "dataset", "sample", "donor", "timepoint", "celltype", "batch", "size_factors", "doublet",
    "dbl_score",
]  # fmt: skip
SORTED = {
    "CD34_D2T1", "CD34_D3T1", "Normal_sorted_170531", "Normal_sorted_170607", "BM5-34p",
    "BM5-34p38n",
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("stand_in") / "atlas.h5ad"
    write_stand_in(path, 3_400, seed=5, n_genes=300)
    return path


def read_old(path):
    with warnings.catch_warnings():
        # The layout is meant to be old.
        warnings.simplefilter("ignore", ad.OldFormatWarning)
        return ad.read_h5ad(path)


@pytest.fixture(scope="module")
def atlas(path):
    return read_old(path)


@pytest.fixture(scope="module")
def whole():
    """Return the plan of the atlas at its own size: nothing is drawn yet, so it is quick."""
    return plan_stand_in(ATLAS_CELLS, n_genes=300)


def cells_by(cohort, key):
    found: dict[object, int] = {}
    for sample in cohort.samples:
        name = key(sample)
        found[name] = found.get(name, 0) + sample.n_cells
    return found


def test_what_is_published_adds_up():
    assert sum(map(sum, facts.COMPOSITION.values())) == ATLAS_CELLS
    by_tp = [sum(column) for column in zip(*facts.COMPOSITION.values(), strict=True)]
    assert by_tp == [115_445, 129_626, 14_852, 33_008, 46_450]
    sources: dict[str, float] = {}
    for origin in facts.SAMPLES:
        sources[origin.dataset] = sources.get(origin.dataset, 0) + origin.weight
    assert {name: round(n) for name, n in sources.items()} == {
        "nuig_1": 9_245, "nuig_2": 110_851, "petti": 101_571, "oetjen": 71_843, "vanG": 38_093,
        "granja": 20_353,
    }  # fmt: skip
    assert len({kind.raw for kind in facts.KINDS}) == 24
    assert {kind.final for kind in facts.KINDS} == set(facts.COMPOSITION)


def test_at_the_size_of_the_atlas_type_by_timepoint_is_the_published_one(whole):
    for column, tp in enumerate(facts.TP_WORDS):
        mine = sum(sample.cells for sample in whole.samples if sample.tp == tp)
        found = dict.fromkeys(facts.COMPOSITION, 0)
        for kind, n in zip(facts.KINDS, mine, strict=True):
            found[kind.final] += int(n)
        assert found == {name: row[column] for name, row in facts.COMPOSITION.items()}


def test_sources_and_timepoint_words_have_their_published_shares(whole):
    found = cells_by(whole, lambda sample: sample.origin.timepoint)
    stated = {"Healthy": 110_416, "Diagnosis": 83_351, "R": 51_023, "D113": 2_732, None: 7_669}
    # 3.6 % fewer cells are on the published map than have a timepoint word.
    for word, n in stated.items():
        assert found[word] == pytest.approx(n, rel=0.1), word


def test_donors_are_nested_in_five_studies_with_several_timepoints(whole):
    people: dict[tuple[str, str], set[str]] = {}
    for sample in whole.samples:
        people.setdefault((sample.origin.dataset, sample.origin.donor), set()).add(sample.tp)
    assert 45 <= len(people) <= 60
    assert len({dataset.partition("_")[0] for dataset, _ in people}) == 5
    assert sum(len(tps) > 1 for tps in people.values()) >= 10
    names = [donor for _, donor in people]
    assert len(set(names)) < len(names), "a name of two sources must be told apart by the reader"


def test_sorted_samples_hold_progenitors_only(whole):
    mine = [sample for sample in whole.samples if sample.origin.is_sorted]
    assert {sample.origin.name for sample in mine} == SORTED
    for sample in mine:
        held = {kind.final for kind, n in zip(facts.KINDS, sample.cells, strict=True) if n}
        assert held <= set(facts.SORTED_TYPES)
        assert sample.n_cells > 100


@pytest.mark.parametrize("n_cells", [FEWEST_CELLS, 777, 17_000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_type_is_at_every_timepoint_and_no_sample_is_empty(n_cells, seed):
    cohort = plan_stand_in(n_cells, seed=seed, n_genes=300)
    assert sum(sample.n_cells for sample in cohort.samples) == n_cells
    assert min(sample.n_cells for sample in cohort.samples) >= 1
    assert min(sample.cells.min() for sample in cohort.samples) >= 0
    for tp in facts.TP_WORDS:
        mine = sum(sample.cells for sample in cohort.samples if sample.tp == tp)
        held = {kind.final for kind, n in zip(facts.KINDS, mine, strict=True) if n}
        assert held == set(facts.COMPOSITION)


def test_blasts_move_away_from_normal_with_the_timepoint(whole):
    is_blast = np.array([kind.is_blast for kind in facts.KINDS])
    apart: dict[str, float] = {}
    healthy = next(sample for sample in whole.samples if sample.tp == "Hea")
    normal = np.log(whole.profiles(healthy)).astype(float)
    normal -= normal[~is_blast].mean(axis=0)
    for sample in whole.samples:
        log = np.log(whole.profiles(sample)).astype(float)
        log -= log[~is_blast].mean(axis=0)
        apart[sample.tp] = float(np.abs(log[is_blast] - normal[is_blast]).mean())
    assert apart["Hea"] < 1e-5 < apart["Dia"] < apart["TRT"] < apart["MRD"] < apart["Rel"]


def test_columns_and_words_are_those_of_the_atlas(atlas):
    assert list(atlas.obs) == [*COLUMNS, "celltype_final", "tp"]
    assert list(atlas.var) == ["n_cells"]
    obs = atlas.obs
    assert set(obs["celltype"]) == {kind.raw for kind in facts.KINDS}
    assert set(obs["celltype_final"]) == set(facts.COMPOSITION)
    assert set(obs["tp"]) == set(facts.TP_WORDS)
    words = set(obs["timepoint"].dropna())
    assert words > {"Healthy", "Diagnosis", "DG", "R", "MRD", "D0", "D113", "D171"}
    assert len(words) == 20
    missing = obs["timepoint"].isna()
    assert set(obs.loc[missing, "dataset"]) == {"vanG"}
    assert set(obs.loc[missing, "tp"]) == {"Hea"}
    assert obs["doublet"].dtype == bool
    assert obs["batch"].nunique() == obs["dataset"].nunique() == 6
    assert atlas.obs_names.is_unique


def test_labels_of_the_two_stages_agree(atlas):
    pairs = set(zip(atlas.obs["celltype"], atlas.obs["celltype_final"], strict=True))
    assert pairs == {(kind.raw, kind.final) for kind in facts.KINDS}


def test_counts_are_in_their_layer_and_x_is_normalised(atlas):
    counts, x = atlas.layers["counts"], atlas.X
    assert (counts.data == np.rint(counts.data)).all()
    assert counts.data.min() >= 1
    np.testing.assert_array_equal(counts.indices, x.indices)
    factors = atlas.obs["size_factors"].to_numpy()
    np.testing.assert_allclose(
        np.expm1(x.data) * np.repeat(factors, np.diff(x.indptr)), counts.data, rtol=1e-4
    )
    assert 1_000 < np.median(np.asarray(counts.sum(axis=1))) < 4_000
    np.testing.assert_array_equal(atlas.var["n_cells"], counts.getnnz(axis=0))


def test_layout_is_that_of_an_old_anndata(path):
    with h5py.File(path) as file:
        assert "__categories" in file["obs"]
        column = file["obs/tp"]
        assert isinstance(column, h5py.Dataset)
        assert column.file[column.attrs["categories"]].name == "/obs/__categories/tp"


def test_it_is_marked_as_simulated_and_passes_the_full_check(path):
    adata = load(path)
    info = describe(adata)
    assert info.simulated
    assert info.citation is None
    assert "simulated" in info.name.casefold()
    assert "simulated by Faultline" in info.source
    assert all(name.startswith("SIM-") for name in adata.obs_names)
    report = check(path)
    assert report.is_usable
    assert report.facts["counts"] == "layers/counts"
    assert map_genes(list(adata.var_names)).n_matched == 300


def test_first_stage_lacks_the_later_columns_only(path, tmp_path):
    first = tmp_path / "first.h5ad"
    write_stand_in(first, 600, n_genes=300, stage="first")
    whole = tmp_path / "final.h5ad"
    write_stand_in(whole, 600, n_genes=300)
    early, late = read_old(first), read_old(whole)
    assert list(early.obs) == COLUMNS
    pd.testing.assert_frame_equal(early.obs, late.obs[COLUMNS])
    np.testing.assert_array_equal(early.X.data, late.X.data)


def test_same_seed_gives_the_same_file(path, tmp_path):
    seen = []
    again, other = tmp_path / "again.h5ad", tmp_path / "other.h5ad"
    write_stand_in(again, 3_400, seed=5, n_genes=300, progress=lambda *event: seen.append(event))
    assert again.read_bytes() == path.read_bytes()
    assert seen[-1] == (3_400, 3_400, "cells")
    write_stand_in(other, 3_400, seed=6, n_genes=300)
    assert other.read_bytes() != path.read_bytes()


def test_transcripts_follow_their_programmes():
    profiles = np.random.default_rng(0).gamma(0.3, size=(3, 500)) + 1e-9
    n = 4_000
    kinds = np.zeros(n, dtype=np.int8)
    counts = draw_counts(
        Programmes(profiles), kinds, np.full(n, 2), np.full(n, 0.25), np.full(n, 300),
        np.random.default_rng(1),
    )  # fmt: skip
    counts.check_format()
    assert counts.has_sorted_indices
    assert (np.asarray(counts.sum(axis=1)).ravel() == 300).all()
    shares = profiles / profiles.sum(axis=1, keepdims=True)
    expected = 0.75 * shares[0] + 0.25 * shares[2]
    found = np.asarray(counts.sum(axis=0)).ravel()
    spread = np.sqrt(expected * n * 300 + 1)
    assert (np.abs(found - expected * n * 300) < 5 * spread).all()


@pytest.mark.parametrize(
    ("cells", "genes", "match"),
    [
        (18, 300, "18 cells over 19 types"),
        (0, 300, "0 cells"),
        (-5, 300, "-5 cells"),
        (MOST_CELLS + 1, 300, "4,000,001 cells"),
        (1_000, 20, "20 genes"),
        (1_000, 10**6, "genes"),
    ],
)
def test_sizes_that_are_refused(cells, genes, match, tmp_path):
    with pytest.raises(InputError, match=match):
        write_stand_in(tmp_path / "x.h5ad", cells, n_genes=genes)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_there_is_not(tmp_path):
    with pytest.raises(InputError, match='no stage "last"'):
        write_stand_in(tmp_path / "x.h5ad", 1_000, stage="last")


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="There is no folder"):
        write_stand_in(tmp_path / "no" / "x.h5ad", 600, n_genes=300)
    with pytest.raises(InputError, match="is a folder"):
        write_stand_in(tmp_path, 600, n_genes=300)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(InputError, match="Cannot write to the folder"):
        write_stand_in(tmp_path / "x.h5ad", 600, n_genes=300)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_looks", [0, 2])
def test_a_full_disk_leaves_what_was_there(n_looks, tmp_path, monkeypatch):
    """At once, and where others fill it while cells are written."""
    place = tmp_path / "x.h5ad"
    place.write_text("before")
    usage = namedtuple("usage", "total used free")
    free = iter([1 << 40] * n_looks)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1 << 40, 0, next(free, 1_000)))
    with pytest.raises(DiskFull, match="The disk is full"):
        write_stand_in(place, 600, n_genes=300)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.h5ad"]
    assert place.read_text() == "before"


def test_command(tmp_path, capsys):
    out = tmp_path / "x.h5ad"
    words = ["data", "simulate", str(out), "--like", "ennis2023", "--cells", "600"]
    assert main([*words, "--genes", "300", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["simulated"] is True
    assert (report["like"], report["stage"], report["n_cells"]) == ("ennis2023", "final", 600)
    assert main([*words, "--genes", "300", "--stage", "first"]) == 0
    assert "simulated cells in the shape of ennis2023" in capsys.readouterr().out
    assert main(["data", "simulate", str(out), "--like", "ennis2023", "--cells", "7"]) == 2
    said = capsys.readouterr().err
    assert "Cannot spread 7 cells over 19 types at 5 timepoints in 89 samples." in said
    assert "Ask for 500 to 4,000,000 cells." in said
    assert main(["data", "simulate", str(out), "--stage", "first"]) == 2
    assert "--like ennis2023" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_cells(tmp_path):
    """Ten times the cells; numba, h5py and the compiled loop are in both."""
    code = (
        "import resource, sys; from backend.data.stand_in.file import write_stand_in; "
        "write_stand_in(sys.argv[1], int(sys.argv[2]), n_genes=2_000); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    for n_cells in (4_000, 40_000):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x.h5ad"), str(n_cells)],
            cwd=project_root(), env=environment() | {"PYTHONPATH": os.fspath(project_root())},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    print(f"\n4,000 and 40,000 cells: {peaks[0]} and {peaks[1]} MiB")
    assert peaks[1] < peaks[0] + 120
