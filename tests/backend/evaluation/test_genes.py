"""Genes that separate failures: planted ones are found over donors, and what cannot be is said."""

from __future__ import annotations

import numpy as np
import pytest

from backend.data.expression import Expression, write_expression
from backend.errors import InputError
from backend.evaluation.cells.columns import Role
from backend.evaluation.genes.contrast import contrast_of
from backend.evaluation.genes.failures import failed_pairs
from backend.evaluation.genes.separate import separate

N_GENES, N_PLANTED = 150, 8
TYPES = ("HSC", "Prog", "T")


class Cells:
    """What a contrast reads of `MapCells`."""

    def __init__(self, label, predicted, donors=()):
        self.roles = {
            "label": Role(np.array(label), TYPES),
            "predicted": Role(np.array(predicted), TYPES),
            "donor": Role(np.array(donors), ("P1", "P2", "P3")),
        }
        self.is_wrong = self.roles["label"].codes != self.roles["predicted"].codes


def course(n_donors, *, n_each=25, seed=0):
    """Return cells, donors and counts: HSC called so, HSC called Prog, true Prog of each donor.

    The first genes are three times as high in HSC that are called Prog, and in Prog.
    """
    rng = np.random.default_rng(seed)
    label = np.tile(np.repeat([0, 0, 1], n_each), n_donors)
    predicted = np.tile(np.repeat([0, 1, 1], n_each), n_donors)
    donors = np.repeat(np.arange(n_donors), 3 * n_each)
    base = rng.lognormal(0.7, 0.6, N_GENES)
    of_donor = rng.lognormal(0, 0.3, (n_donors, N_GENES))
    mean = base * of_donor[donors] * rng.lognormal(0, 0.2, len(label))[:, None]
    mean[predicted == 1, :N_PLANTED] *= 3
    return Cells(label, predicted), donors, rng.poisson(mean).astype(np.float32)


@pytest.fixture
def kept(tmp_path):
    def keep(counts):
        write_expression(tmp_path, [f"GENE{number}" for number in range(counts.shape[1])], [counts])
        return Expression(tmp_path)

    return keep


def test_planted_genes_are_found_over_donors(kept):
    cells, donors, counts = course(6)
    everywhere = np.ones(len(donors), dtype=bool)
    contrast = contrast_of(cells, everywhere, label="HSC", predicted="Prog")
    assert contrast.sentence == "150 HSC called Prog against 150 HSC that are called HSC"
    found = separate(kept(counts), contrast, donors, counts.sum(axis=1))
    assert found.is_paired
    assert found.n_donors == 6
    best = found.table.head(N_PLANTED)
    assert set(best["gene"]) == {f"GENE{number}" for number in range(N_PLANTED)}
    assert (best["q_value"] < 0.01).all()
    assert (best["log2_fold_change"] > 1).all()
    assert (best["n_donors_same_sign"] == 6).all()
    assert (best["mean_failures"] > best["mean_others"]).all()
    n_false = (found.table["q_value"] < 0.05).sum() - N_PLANTED
    assert n_false <= 2


def test_against_the_predicted_type_little_is_left(kept):
    cells, donors, counts = course(6)
    everywhere = np.ones(len(donors), dtype=bool)
    contrast = contrast_of(cells, everywhere, label="HSC", predicted="Prog", against="predicted")
    found = separate(kept(counts), contrast, donors, counts.sum(axis=1))
    assert (found.table["q_value"] < 0.05).sum() <= 2


def test_depth_is_given_and_can_be_explained_first(kept):
    cells, donors, counts = course(5)
    contrast = contrast_of(cells, np.ones(len(donors), dtype=bool), label="HSC", predicted="Prog")
    totals = counts.sum(axis=1)
    found = separate(kept(counts), contrast, donors, totals, adjust_for_depth=True)
    assert found.is_depth_adjusted
    assert found.depth == (
        np.median(totals[contrast.is_failure]), np.median(totals[contrast.is_reference])
    )  # fmt: skip


def test_few_donors_are_said_and_cells_compared(kept):
    cells, donors, counts = course(2)
    contrast = contrast_of(cells, np.ones(len(donors), dtype=bool), label="HSC", predicted="Prog")
    found = separate(kept(counts), contrast, donors, counts.sum(axis=1))
    assert not found.is_paired
    assert "not replicates" in found.notes[0]
    assert "2 donors" in found.notes[0]
    assert set(found.table["gene"].head(5)) <= {f"GENE{number}" for number in range(N_PLANTED)}
    assert found.table[["n_donors_same_sign", "q_value"]].isna().all(axis=None)


def test_sides_that_are_empty_are_refused(kept):
    cells, donors, _ = course(3)
    everywhere = np.ones(len(donors), dtype=bool)
    with pytest.raises(InputError, match="no failure"):
        contrast_of(cells, everywhere, label="HSC", predicted="HSC")
    with pytest.raises(InputError, match='label "B"') as error:
        contrast_of(cells, everywhere, label="B", predicted="HSC")
    assert "HSC, Prog, T" in error.value.hint
    with pytest.raises(InputError) as error:
        contrast_of(cells, everywhere, label="Prg", predicted="HSC")
    assert error.value.hint.startswith("Perhaps Prog?")
    with pytest.raises(InputError, match="No Prog is called T"):
        contrast_of(cells, everywhere, label="Prog", predicted="T")
    wrong = cells.roles["label"].codes != cells.roles["predicted"].codes
    with pytest.raises(InputError, match="no correctly called") as error:
        contrast_of(cells, wrong, label="HSC", predicted="Prog")
    assert "wider filters" in error.value.hint
    is_not_right = wrong | (cells.roles["label"].codes == 1)
    with pytest.raises(InputError) as error:
        contrast_of(cells, is_not_right, label="HSC", predicted="Prog")
    assert "true cells of the predicted type" in error.value.hint


def test_only_chosen_failures_count():
    cells, donors, _ = course(3)
    chosen = donors == 1
    contrast = contrast_of(
        cells, np.ones(len(donors), dtype=bool), label="HSC", predicted="Prog", chosen=chosen
    )
    assert contrast.is_failure.sum() == 25
    assert contrast.is_reference.sum() == 75


def test_pairs_say_what_they_can_be_set_against():
    cells = Cells([0, 0, 0, 0, 1, 2, 2], [0, 1, 1, 2, 2, 1, 1], [0, 0, 1, 0, 1, 1, 1])
    everywhere = np.ones(7, dtype=bool)
    found = failed_pairs(cells, everywhere)
    assert found.to_dict("list") == {
        "label": ["HSC", "T", "HSC", "Prog"],
        "predicted": ["Prog", "Prog", "T", "T"],
        "n_cells": [2, 2, 1, 1],
        "n_donors": [2, 1, 1, 1],
        "n_paired": [0, 0, 0, 0],
        "n_right": [1, 0, 1, 0],
        "n_true": [1, 1, 2, 2],
    }
    some = failed_pairs(cells, everywhere, np.arange(7) == 3)
    assert some[["label", "predicted", "n_cells", "n_right"]].values.tolist() == [
        ["HSC", "T", 1, 1]
    ]


def test_pairs_whose_donors_can_be_compared_come_first():
    cells, donors, _ = course(3)
    own = Cells(cells.roles["label"].codes, cells.roles["predicted"].codes, donors)
    found = failed_pairs(own, np.ones(len(donors), dtype=bool))
    assert found[["label", "predicted", "n_cells", "n_paired"]].values.tolist() == [
        ["HSC", "Prog", 75, 3]
    ]
    label = np.concatenate([cells.roles["label"].codes, np.full(100, 2)])
    predicted = np.concatenate([cells.roles["predicted"].codes, np.full(100, 1)])
    more = Cells(label, predicted, np.concatenate([donors, np.zeros(100, dtype=int)]))
    found = failed_pairs(more, np.ones(len(label), dtype=bool))
    assert found["label"].tolist() == ["HSC", "T"]
    assert found["n_cells"].tolist() == [75, 100]
