"""The simulated course: its shape, its determinism and its size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backend.data import describe, load
from backend.data.genes import map_genes
from backend.data.labels import EXPECTED_TYPES, is_malignant_label
from backend.data.simulate import (
    plan_cohort,
    simulate,
    simulated_chunks,
    whole_parts,
    write_simulated,
)
from backend.errors import InputError
from backend.types import TIMEPOINTS


@pytest.fixture(scope="module")
def cohort():
    return simulate(2_000, seed=3, n_genes=300)


def test_cohort_has_the_shape_of_a_course(cohort):
    obs = cohort.obs
    assert cohort.shape == (2_000, 300)
    assert set(obs["timepoint"]) == set(TIMEPOINTS)
    assert obs["study"].nunique() == 2
    assert len(obs[["donor", "study"]].drop_duplicates()) == obs["donor"].nunique()
    donors = obs.groupby("timepoint", observed=True)["donor"].nunique()
    assert (donors >= 10).all()
    assert set(obs["cell_type_lineage"].dropna()) == set(EXPECTED_TYPES)
    assert cohort.uns["faultline"]["simulated"] is True
    assert describe(cohort).not_labelled == ()
    assert 0 < obs["cell_type_fine"].isna().sum() < 100


def test_shares_of_timepoints(cohort):
    shares = cohort.obs["timepoint"].value_counts(normalize=True)
    for name, share in {"Healthy": 0.25, "Diagnosis": 0.3, "Relapse": 0.23}.items():
        assert shares[name] == pytest.approx(share, abs=0.02)


def test_rare_types_are_rare_at_every_timepoint(cohort):
    obs = cohort.obs
    table = pd.crosstab(obs["timepoint"], obs["cell_type_lineage"], normalize="index")
    for name in ("CLP", "Pre-B"):
        assert table[name].between(0.003, 0.05).all()


def test_malignant_cells_are_those_of_patients(cohort):
    obs = cohort.obs
    healthy = obs["timepoint"] == "Healthy"
    assert not obs.loc[healthy, "is_malignant"].any()
    like = obs["cell_type_fine"].dropna().map(is_malignant_label).astype(bool)
    assert not like[healthy[like.index]].any()
    known = obs["is_malignant"].dropna()
    both = known.index.intersection(like.index)
    assert (known[both].astype(bool) == like[both]).all()
    assert (obs.loc[healthy, "genotype"] == "none").all()
    assert set(obs["genotype"]) == {"mutant", "wildtype_only", "none"}


def test_distance_from_normal_grows_with_the_timepoint():
    cohort = plan_cohort(3_000, seed=0, n_genes=600)
    distances: dict[str, list[float]] = {}
    for sample in cohort.samples:
        if sample.timepoint != "Healthy":
            profiles = np.log(cohort.profiles(sample))
            apart = profiles[-6:] - profiles[[0, 1, 2, 3, 4, 5]]
            distances.setdefault(sample.timepoint, []).append(float(np.abs(apart).mean()))
    course = [np.mean(distances[name]) for name in TIMEPOINTS[1:]]
    assert course == sorted(course)
    assert course[-1] > 1.5 * course[0]


def test_same_seed_gives_the_same_cells(cohort):
    again = simulate(2_000, seed=3, n_genes=300)
    assert describe(again).dataset_id == describe(cohort).dataset_id
    pd.testing.assert_frame_equal(again.obs, cohort.obs)
    other = simulate(2_000, seed=4, n_genes=300)
    assert describe(other).dataset_id != describe(cohort).dataset_id


def test_file_equals_memory(cohort, tmp_path):
    path = tmp_path / "sim.h5ad"
    seen = []
    write_simulated(path, 2_000, seed=3, n_genes=300, progress=lambda *event: seen.append(event))
    adata = load(path)
    assert describe(adata) == describe(cohort)
    pd.testing.assert_frame_equal(adata.obs, cohort.obs)
    pd.testing.assert_frame_equal(adata.var, cohort.var)
    assert seen[-1][:2] == (2_000, 2_000)
    first = path.read_bytes()
    write_simulated(path, 2_000, seed=3, n_genes=300)
    assert path.read_bytes() == first


def test_counts_are_whole_and_of_real_depth(cohort):
    counts = cohort.X.data
    assert (counts == np.rint(counts)).all()
    assert counts.min() >= 1
    assert 200 < cohort.obs["n_counts"].median() < 5_000


def test_counts_follow_their_rates():
    """The sampler draws Poisson counts: mean and variance agree with the rate, low or high."""
    from backend.data.simulate import _poisson

    rates = np.repeat(np.array([0.01, 0.3, 2.0, 9.0, 60.0], dtype=np.float32)[:, None], 40_000, 1)
    counts = _poisson(rates, np.random.default_rng(0)).toarray()
    np.testing.assert_allclose(counts.mean(axis=1), rates[:, 0], rtol=0.08)
    np.testing.assert_allclose(counts.var(axis=1), rates[:, 0], rtol=0.08)


def test_genes_are_current_symbols(cohort):
    genes = map_genes(list(cohort.var_names))
    assert genes.is_identity
    assert genes.n_matched == 300
    assert genes.n_renamed == 0


def test_chunks_are_bounded(monkeypatch):
    monkeypatch.setattr("backend.data.simulate._CHUNK", 7)
    sizes = [counts.shape[0] for counts, _ in simulated_chunks(1_000, n_genes=300, seed=1)]
    assert sum(sizes) == 1_000
    assert max(sizes) == 7


@pytest.mark.parametrize(
    ("cells", "genes", "match"),
    [(10, 600, "10 cells"), (-1, 600, "cells"), (3_000, 10, "10 genes"), (3_000, 10**6, "genes")],
)
def test_sizes_that_are_refused(cells, genes, match, tmp_path):
    with pytest.raises(InputError, match=match):
        simulate(cells, n_genes=genes)
    with pytest.raises(InputError, match=match):
        write_simulated(tmp_path / "x.h5ad", cells, n_genes=genes)
    assert list(tmp_path.iterdir()) == []


def test_whole_parts():
    assert whole_parts(np.array([0.25, 0.3, 0.22, 0.22]), 100).tolist() == [25, 31, 22, 22]
    assert whole_parts(np.array([1.0, 1.0, 1.0]), 2).tolist() == [1, 1, 0]
    assert whole_parts(np.array([1.0]), 0).tolist() == [0]
