"""The map of cells: components, nearest cells and UMAP, by one recipe for all data."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from backend.data import cell_map, cells_and_neighbours, cells_table
from backend.data.cell_map import (
    ComponentStream,
    components_of,
    map_components,
    nearest_cells,
    sample_by_donor,
)
from backend.data.simulate import simulate
from tests.conftest import build_adata


def streamed(adata, sizes, **options):
    """Return the components of cells that are read in pieces, all of one size or as listed."""
    ends = np.cumsum(sizes) if np.ndim(sizes) else np.arange(sizes, adata.n_obs + sizes, sizes)
    starts = np.concatenate([[0], ends[:-1]])
    pieces = [adata[a:b] for a, b in zip(starts, ends, strict=True)]
    stream = ComponentStream(adata.obs["donor"].astype(str).to_numpy(), **options)
    for piece in pieces:
        stream.add(piece)
    return stream.components(pieces)


def donors_of(adata):
    return adata.obs["donor"].astype(str).to_numpy()


def test_components_are_those_of_a_plain_computation():
    adata = build_adata(90)
    counts = adata.X.toarray().astype(np.float64)
    logs = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    centred = logs - logs.mean(axis=0)
    expected = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    found = components_of(adata)
    assert found.dtype == np.float32
    # Up to the sign of each component.
    np.testing.assert_allclose(np.abs(found[:, :3]), np.abs(expected[:, :3]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fitted_on", [40, 1_000])
def test_pieces_of_any_size_give_the_same_bits(fitted_on):
    adata = build_adata(150)
    whole = streamed(adata, 150, fitted_on=fitted_on)
    for sizes in (1, 7, 64, [3, 100, 47]):
        np.testing.assert_array_equal(whole, streamed(adata, sizes, fitted_on=fitted_on))
    np.testing.assert_array_equal(whole, components_of(adata, fitted_on=fitted_on))


def test_a_seed_chooses_the_sample():
    adata = build_adata(150)
    first = components_of(adata, fitted_on=40, seed=1)
    np.testing.assert_array_equal(first, components_of(adata, fitted_on=40, seed=1))
    assert not np.array_equal(first, components_of(adata, fitted_on=40, seed=2))


def test_order_of_cells_changes_nothing_where_all_are_fitted_on(plain_umap):
    adata = build_adata(120)
    turned = np.random.default_rng(0).permutation(120)
    one, two = components_of(adata), components_of(adata[turned])
    found = nearest_cells(one)
    # Signs of components and the last bits may differ, distances may not.
    again = turned[nearest_cells(two)]
    shared = [len(set(a) & set(b)) for a, b in zip(found[turned], again, strict=True)]
    assert np.mean(shared) > 14.9


def test_memory_does_not_grow_with_the_cells():
    """Only what is returned does: at most 200 bytes a cell, and one a cell for the sample."""
    part = build_adata(200, n_genes=400)
    part.obs["donor"] = "A"

    def peak(n_pieces):
        stream = ComponentStream(np.repeat("A", 200 * n_pieces), fitted_on=300)
        tracemalloc.start()
        for _ in range(n_pieces):
            stream.add(part)
        found = stream.components(part for _ in range(n_pieces))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most - found.nbytes

    peak(2)  # what is imported once
    assert peak(60) < 1.3 * peak(6)


def test_each_donor_is_sampled_by_its_share():
    donors = np.array(["A", "B", "B", "B"] * 100, dtype=object)
    rows = sample_by_donor(donors, 40)
    assert dict(zip(*np.unique(donors[rows], return_counts=True), strict=True)) == {
        "A": 10,
        "B": 30,
    }
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sample_by_donor(donors, 40))
    assert not np.array_equal(rows, sample_by_donor(donors, 40, seed=1))
    each_its_own = np.array([f"D{i}" for i in range(400)], dtype=object)
    assert len(sample_by_donor(each_its_own, 40)) == 40
    np.testing.assert_array_equal(sample_by_donor(donors, 400), np.arange(400))
    donors[:100] = None
    assert sum(donor is None for donor in donors[sample_by_donor(donors, 40)]) == 10


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_map_of_very_few_cells(n):
    cells, neighbours = cells_and_neighbours(build_adata(40)[:n])
    assert np.isfinite(cells[["umap_x", "umap_y"]].to_numpy(float)).all()
    assert neighbours.shape == (n, 15)
    assert ((neighbours >= 0).sum(axis=1) == min(15, n - 1)).all() or n == 1


def test_map_of_cells_without_counts(plain_umap):
    empty = build_adata(80)
    empty.X = sparse.csr_matrix(empty.shape, dtype=np.float32)
    cells, neighbours = cells_and_neighbours(empty)
    assert np.isfinite(cells[["umap_x", "umap_y"]].to_numpy(float)).all()
    assert neighbours.shape == (80, 15)


def test_map_of_one_gene():
    cells, neighbours = cells_and_neighbours(build_adata(40)[:, :1].copy())
    assert (cells[["umap_x", "umap_y"]] == 0).all(axis=None)
    assert (neighbours == -1).all()


@pytest.mark.parametrize("fitted_on", [60, 100])
def test_cells_outside_the_sample_stand_among_their_like(plain_umap, fitted_on):
    adata = build_adata(240)
    components = components_of(adata, fitted_on=fitted_on)
    places = map_components(components, donors_of(adata), fitted_on=fitted_on).coordinates
    assert np.isfinite(places).all()
    types = adata.obs["cell_type_fine"].to_numpy()
    centres = {t: places[types == t].mean(axis=0) for t in set(types)}
    nearest = [min(centres, key=lambda t: np.linalg.norm(p - centres[t])) for p in places]
    assert np.mean(np.array(nearest) == types) > 0.95


def test_progress_rises_and_says_what_is_done(plain_umap):
    told = []
    cells_and_neighbours(build_adata(90), progress=lambda *words: told.append(words))
    shares, words = zip(*told, strict=True)
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1
    assert "Fitting UMAP on 90 cells; the first fit on a machine is compiled" in words


def test_table_and_neighbours_belong_together():
    adata = build_adata(59)  # few enough to need no UMAP
    cells, neighbours = cells_and_neighbours(adata)
    coordinates = ["umap_x", "umap_y"]
    pd.testing.assert_frame_equal(
        cells.drop(columns=coordinates), cells_table(adata).drop(columns=coordinates)
    )
    assert (cells.dtypes == cells_table(adata).dtypes).all()
    # Types own genes in this data, so neighbours share them.
    label = cells["cell_type_fine"].to_numpy()
    assert (label[neighbours] == label[:, None]).mean() > 0.9


def by_hand(points, k):
    distance = ((points[:, None].astype(float) - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :k]


def test_nearest_cells_are_those_of_all_distances():
    points = np.random.default_rng(0).normal(size=(200, 7)).astype(np.float32)
    found = nearest_cells(points, k=15)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, by_hand(points, 15))


@pytest.mark.parametrize("n_groups", [1, 4])
def test_a_cell_is_never_its_own_neighbour(monkeypatch, n_groups):
    # More equal cells than neighbours asked for; more in one group than are measured.
    monkeypatch.setattr(cell_map, "_LARGEST_EXACT", 100 // n_groups)
    monkeypatch.setattr(cell_map, "_GROUP", 100 // n_groups)
    monkeypatch.setattr(cell_map, "_CANDIDATES", 20)
    found = nearest_cells(np.zeros((100, 3), dtype=np.float32), k=15)
    assert (found != np.arange(100)[:, None]).all()
    assert (found >= 0).all()
    assert (np.sort(found)[:, 1:] != np.sort(found)[:, :-1]).all()


@pytest.mark.parametrize(("n", "n_found"), [(0, 0), (1, 0), (2, 1), (5, 4)])
def test_few_cells_have_as_many_neighbours_as_there_are(n, n_found):
    found = nearest_cells(np.arange(2 * n, dtype=np.float32).reshape(n, 2), k=15)
    assert found.shape == (n, 15)
    assert ((found >= 0).sum(axis=1) == n_found).all()


def test_search_in_groups_finds_most_of_them(monkeypatch):
    points = np.random.default_rng(1).normal(size=(3_000, 5)).astype(np.float32)
    exact = nearest_cells(points)
    monkeypatch.setattr(cell_map, "_LARGEST_EXACT", 100)
    monkeypatch.setattr(cell_map, "_GROUP", 100)
    monkeypatch.setattr(cell_map, "_CANDIDATES", 1_500)
    found = [nearest_cells(points) for _ in range(2)]
    np.testing.assert_array_equal(found[0], found[1])
    shared = [len(set(a) & set(b)) / 15 for a, b in zip(exact, found[0], strict=True)]
    assert 0.95 < np.mean(shared) < 1  # so it was the search in groups


@pytest.mark.slow
@pytest.mark.parametrize(("fitted_on", "times"), [(500, 3), (50_000, 4)])
def test_map_is_a_umap_that_separates_lineages(fitted_on, times):
    cohort = simulate(1_500, seed=0, n_genes=600)
    components = components_of(cohort, fitted_on=fitted_on)
    found = [map_components(components, donors_of(cohort), fitted_on=fitted_on) for _ in range(2)]
    np.testing.assert_array_equal(found[0].coordinates, found[1].coordinates)
    assert found[0].coordinates.shape == (1_500, 2)
    assert not np.array_equal(found[0].coordinates, components[:, :2])
    lineage = cohort.obs["cell_type_lineage"].astype(str).to_numpy()
    near = nearest_cells(found[0].coordinates, k=10)
    by_chance = (np.unique(lineage, return_counts=True)[1] / len(lineage)) ** 2
    assert (lineage[near] == lineage[:, None]).mean() > times * by_chance.sum()


@pytest.mark.slow
def test_map_of_equal_cells():
    adata = build_adata(80)
    adata.X = sparse.csr_matrix(np.tile(adata.X[0].toarray(), (80, 1)))
    cells, _ = cells_and_neighbours(adata)
    assert np.isfinite(cells[["umap_x", "umap_y"]].to_numpy(float)).all()
