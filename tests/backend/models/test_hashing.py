"""Numbers that depend on what they are for, not on the order of drawing."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.models.hashing import cell_keys, hash_names, mix, stream_key, uniform


def grid(n_cells, n_genes, seed=0, draw=0, purpose=""):
    keys = cell_keys(
        stream_key(seed, draw, purpose), hash_names(f"cell{i}" for i in range(n_cells))
    )
    return uniform(keys[:, None], hash_names(f"gene{i}" for i in range(n_genes))[None])


def test_values_are_pinned():
    """A change would make every finished run of scGPT another one."""
    np.testing.assert_allclose(
        grid(2, 2), [[0.24292013, 0.22462335], [0.16389244, 0.36896538]], atol=1e-8
    )


def test_numbers_are_uniform_and_unrelated():
    numbers = grid(500, 400)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.bincount((numbers.ravel() * 50).astype(int), minlength=50)
    # Chi-square with 49 degrees of freedom: 99.99 % lie below 97.
    assert ((counts - 4000) ** 2 / 4000).sum() < 97
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("change", [{"seed": 1}, {"draw": 1}, {"purpose": "other"}])
def test_seed_draw_and_purpose_give_other_numbers(change):
    plain, other = grid(100, 100), grid(100, 100, **change)
    assert abs(np.corrcoef(plain.ravel(), other.ravel())[0, 1]) < 0.05
    assert (plain != other).all()


def test_a_cell_and_gene_keep_their_number_among_others():
    np.testing.assert_array_equal(grid(30, 20)[:7, :5], grid(7, 5))


def test_processes_agree():
    """Python's own string hash changes from process to process."""
    code = "from backend.models.hashing import hash_names; print(hash_names(['CD34'])[0])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(found) == int(hash_names(["CD34"])[0])


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50, unique=True))
def test_mixing_is_one_to_one(words):
    assert len(set(mix(np.array(words, dtype=np.uint64)).tolist())) == len(words)


def test_any_integer_is_a_seed():
    assert len({int(stream_key(seed, 0)) for seed in (-1, 0, 1, 2**63)}) == 4
