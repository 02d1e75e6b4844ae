"""The balanced subset: exact shares, every donor, and where it came from."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.cli import main
from backend.data import describe, load
from backend.data.simulate import simulate, whole_parts, write_simulated
from backend.data.stand_in.cohort import plan_stand_in
from backend.data.subset import choose_cells, parse_shares, write_subset
from backend.errors import InputError

STUDY = "Healthy=.25,Diagnosis=.30,Post-treatment=.22,Relapse=.22"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("subset") / "sim.h5ad"
    write_simulated(path, 2_000, seed=0, n_genes=300)
    return path


@pytest.fixture(scope="module")
def obs():
    return simulate(2_000, seed=0, n_genes=300).obs


def test_shares_of_the_study_are_met_to_the_cell(obs):
    shares = parse_shares(STUDY)
    rows = choose_cells(obs, shares, n_cells=1_000)
    found = obs.iloc[rows]["timepoint"].value_counts()[list(shares)]
    expected = whole_parts(np.array(list(shares.values())), 1_000)
    assert found.tolist() == expected.tolist()
    assert found.sum() == 1_000


def test_every_donor_is_kept(obs):
    rows = choose_cells(obs, parse_shares(STUDY), n_cells=200)
    kept = obs.iloc[rows].groupby("timepoint", observed=True)["donor"].nunique()
    assert kept.equals(obs.groupby("timepoint", observed=True)["donor"].nunique())


def test_composition_is_kept(obs):
    rows = choose_cells(obs, parse_shares(STUDY), n_cells=1_200)
    for timepoint, part in obs.groupby("timepoint", observed=True):
        chosen = obs.iloc[rows]
        chosen = chosen[chosen["timepoint"] == timepoint]
        before = part["cell_type_fine"].value_counts(normalize=True)
        after = chosen["cell_type_fine"].value_counts(normalize=True)
        assert (before - after).abs().max() < 0.03


def test_seed_decides(obs):
    shares = parse_shares(STUDY)
    first = choose_cells(obs, shares, n_cells=500, seed=1)
    np.testing.assert_array_equal(first, choose_cells(obs, shares, n_cells=500, seed=1))
    assert not np.array_equal(first, choose_cells(obs, shares, n_cells=500, seed=2))


def test_largest_subset_uses_up_a_timepoint(obs):
    rows = choose_cells(obs, {"Healthy": 0.5, "Relapse": 0.5})
    sizes = obs["timepoint"].value_counts()
    assert len(rows) // 2 == min(sizes["Healthy"], sizes["Relapse"])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_possible_size_is_met(data):
    sizes = data.draw(st.lists(st.integers(3, 60), min_size=2, max_size=3))
    names = ["Healthy", "Diagnosis", "Relapse"][: len(sizes)]
    frame = pd.DataFrame(
        {
            "timepoint": pd.Categorical(np.repeat(names, sizes)),
            "donor": pd.Categorical([f"P{i % 3}" for n in sizes for i in range(n)]),
            "cell_type_fine": pd.Categorical([f"T{i % 2}" for n in sizes for i in range(n)]),
        }
    )
    parts = np.array([data.draw(st.integers(1, 9)) for _ in names], dtype=float)
    shares = dict(zip(names, parts / parts.sum(), strict=True))
    try:
        most = len(choose_cells(frame, shares))
        n_cells = data.draw(st.integers(len(names) * 3, max(len(names) * 3, most)))
        rows = choose_cells(frame, shares, n_cells=n_cells)
    except InputError:
        return
    assert len(set(rows)) == len(rows) == n_cells
    found = frame.iloc[rows]["timepoint"].value_counts()
    assert [found[name] for name in names] == whole_parts(parts / parts.sum(), n_cells).tolist()


@pytest.mark.parametrize(
    ("shares", "options", "match"),
    [
        ({"Healthy": 0.5, "Cure": 0.5}, {}, "Cure"),
        ({"Healthy": 1.0}, {"n_cells": 5_000}, "Healthy has 498 of 5,000"),
        ({"Healthy": 1.0}, {"n_cells": 3}, "10 donors"),
        ({"Healthy": 1.0}, {"n_cells": 0}, "0 cells"),
        ({"Healthy": 1.0}, {"by": "mood"}, "mood"),
        ({}, {}, "No shares"),
    ],
)
def test_subsets_that_cannot_be_drawn(obs, shares, options, match):
    with pytest.raises(InputError, match=match):
        choose_cells(obs, shares, **options)


def test_the_study_s_subset_is_refused_with_the_largest_that_can_be():
    """An atlas of this composition lacks Relapse cells for 250,000; the published shares ask for it."""
    atlas = plan_stand_in(339_381, n_genes=300)
    words = {"Hea": "Healthy", "Dia": "Diagnosis", "Rel": "Relapse"}
    timepoints = [words.get(sample.tp, "Post-treatment") for sample in atlas.samples]
    sizes = [sample.n_cells for sample in atlas.samples]
    people = [f"{sample.origin.dataset} {sample.origin.donor}" for sample in atlas.samples]
    frame = pd.DataFrame(
        {
            "timepoint": pd.Categorical(np.repeat(timepoints, sizes)),
            "donor": pd.Categorical(np.repeat(people, sizes)),
            "cell_type_fine": pd.Categorical(["one type"] * sum(sizes)),
        }
    )
    shares = parse_shares(STUDY)
    with pytest.raises(InputError) as refused:
        choose_cells(frame, shares, n_cells=250_000)
    said = str(refused.value)
    assert "A subset of 250,000 cells with these shares cannot be drawn" in said
    assert "Relapse has 46,450 of 55,55" in said
    assert "Post-treatment has 47,860 of 55,55" in said
    # The shares come to .99, so that 22 of 99 parts are Relapse; the last cells are rounded away.
    most = 209_028
    assert 0 <= most - 46_450 * 99 // 22 <= 4
    assert f"Ask for 4 to {most:,} cells" in said
    assert len(choose_cells(frame, shares, n_cells=most)) == most
    with pytest.raises(InputError, match="Relapse"):
        choose_cells(frame, shares, n_cells=most + 1)


@pytest.mark.parametrize(
    "text",
    ["Healthy", "Healthy=x", "Healthy=.5", "Healthy=1.2", "Healthy=-1", "A=.5,A=.5", "=1", ""],
)
def test_shares_that_are_refused(text):
    with pytest.raises(InputError):
        parse_shares(text)


def test_shares_are_read():
    assert parse_shares(" Healthy=.25, Post-treatment = .75 ") == {
        "Healthy": 0.25,
        "Post-treatment": 0.75,
    }
    assert sum(parse_shares(STUDY).values()) == pytest.approx(0.99)


def test_subset_file(source, tmp_path):
    out = tmp_path / "sub.h5ad"
    report = write_subset(source, out, parse_shares(STUDY), n_cells=600, seed=7)
    whole, part = load(source), load(out)
    info = describe(part)
    assert info.parent == report.parent == describe(whole).dataset_id
    assert info.dataset_id != info.parent
    assert info.simulated
    assert info.n_donors == report.n_donors == 30
    assert part.n_obs == 600
    same = whole[part.obs_names]
    np.testing.assert_array_equal(part.X.toarray(), same.X.toarray())
    for column in part.obs:
        assert part.obs[column].astype(object).equals(same.obs[column].astype(object)), column


def test_subset_onto_its_source_is_refused(source):
    before = source.read_bytes()
    with pytest.raises(InputError, match="source itself"):
        write_subset(source, source, {"Healthy": 1.0})
    assert source.read_bytes() == before


def test_subset_command(source, tmp_path, capsys):
    out = tmp_path / "sub.h5ad"
    words = ["data", "subset", str(source), str(out), "--by", "timepoint", "--shares", STUDY]
    assert main([*words, "--cells", "400", "--seed", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sum(report["cells"].values()) == report["n_cells"] == 400
    assert report["shares"]["Healthy"] == pytest.approx(0.25, abs=0.005)
    assert main([*words, "--cells", "400", "--seed", "1"]) == 0
    assert "Parent: dataset" in capsys.readouterr().out


def test_subset_command_refuses(source, tmp_path, capsys):
    out = tmp_path / "sub.h5ad"
    words = ["data", "subset", str(source), str(out), "--shares", STUDY, "--cells", "100000"]
    assert main(words) == 2
    assert "Ask for 4 to" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
