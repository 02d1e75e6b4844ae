"""Counts by gene are the counts of the file, for one gene and for groups of cells."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import sparse

from backend.data import expression
from backend.data.expression import open_expression, write_expression
from backend.errors import InputError, StoreError

N_CELLS, N_GENES = 1_000, 200
GENES = ["CD34", "MPO", "LYZ", *(f"GENE{number}" for number in range(N_GENES - 3))]


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    values = rng.poisson(0.4, (N_CELLS, N_GENES)).astype(np.float32)
    values[:, 5] = 0
    values[:, 7] = 70_000
    values[300:310] = 0
    return sparse.csr_matrix(values)


@pytest.fixture
def written(counts, tmp_path, monkeypatch):
    # Several blocks, of which the last is not full, and several groups of genes.
    monkeypatch.setattr(expression, "_BLOCK", 256)
    folder = tmp_path / "datasets" / "x" / expression.FOLDER
    folder.mkdir(parents=True)
    pieces = np.split(np.arange(N_CELLS), [1, 90, 90, 700])
    write_expression(folder, GENES, (counts[rows] for rows in pieces))
    return folder


def test_each_gene_comes_back(counts, written):
    found = open_expression(written.parent)
    assert found.n_cells == N_CELLS
    assert found.is_whole()
    for place, gene in enumerate(GENES):
        assert (found.counts_of(gene) == counts[:, [place]].toarray().ravel()).all(), gene


def test_numbers_that_are_not_whole_are_kept(tmp_path):
    values = np.array([[0.0, 1.25], [3.0, 0.0]], dtype=np.float32)
    write_expression(tmp_path, ["A", "B"], [values])
    found = expression.Expression(tmp_path)
    assert found.counts_of("B").tolist() == [1.25, 0.0]


def test_sums_are_those_of_a_matrix_product(counts, written):
    groups = np.random.default_rng(1).integers(-1, 4, N_CELLS)
    groups[256:512] = -1  # a block without any
    found = open_expression(written.parent).sums(groups, 5)
    for group in range(5):
        cells = counts[groups == group].toarray()
        np.testing.assert_allclose(found.counts[group], cells.sum(axis=0))
        assert (found.n_expressing[group] == (cells > 0).sum(axis=0)).all()
        assert found.n_cells[group] == len(cells)


def test_names_are_found_or_the_nearest_are_offered(written):
    found = open_expression(written.parent)
    assert found.place_of(" mpo ") == 1
    with pytest.raises(InputError, match="Perhaps CD34") as error:
        found.place_of("CD43")
    assert "no gene" in error.value.message
    with pytest.raises(InputError, match="such as CD34"):
        found.place_of("?")


def test_nothing_there_is_none_and_damage_is_said(written):
    assert open_expression(written) is None
    counts = written / "counts.bin"
    content = counts.read_bytes()
    counts.write_bytes(content[:-1])
    with pytest.raises(StoreError, match="not whole"):
        open_expression(written.parent)
    counts.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert not open_expression(written.parent).is_whole()
    head = written / "expression.json"
    head.write_text(json.dumps({**json.loads(head.read_text()), "version": 99}))
    with pytest.raises(StoreError, match="version 99"):
        open_expression(written.parent)


def test_two_genes_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="not unique"):
        write_expression(tmp_path, ["A", "A"], [])
