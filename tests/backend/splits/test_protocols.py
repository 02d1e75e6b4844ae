"""The registry of protocols: seeds that never change, words, and what one more entry does."""

import numpy as np
import pandas as pd
import pytest

from backend import protocols
from backend.config import project_root
from backend.errors import InputError
from backend.protocols import EXTERNAL, PROTOCOLS, Protocol, protocol_named, protocol_text
from backend.splits import Split, leakage_report, make_split, make_splits
from backend.splits.folds import Folds
from tests.backend.splits.test_splits import cohort

SHIPPED = sorted((project_root() / "precomputed" / "splits").glob("*.parquet"))


def halves_of_donors(frame: pd.DataFrame, folds: int, rng: np.random.Generator) -> Folds:
    """Hold out one half of the donors, then the other."""
    codes, names = pd.factorize(frame["donor"], sort=True)
    return Folds(rng.permutation(len(names))[codes] % 2, 2, [f"{folds} folds were asked for."])


HALVES = Protocol(
    key="halves",
    seed=3,
    unit="donor",
    label="half-held-out",
    text="one half of the donors is never trained on",
    tested_on="the other half",
    assign=f"{__name__}:halves_of_donors",
)


def test_seeds_are_what_runs_already_rest_on():
    assert {key: kept.seed for key, kept in PROTOCOLS.items()} == {
        "random": 0,
        "donor": 1,
        "study": 2,
    }


def test_every_protocol_has_a_seed_of_its_own():
    seeds = [kept.seed for kept in PROTOCOLS.values()]
    assert len({*seeds, 10, 11}) == len(seeds) + 2


@pytest.mark.skipif(not SHIPPED, reason="no shipped splits beside this copy")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_split_is_made_again_with_its_hash(path):
    shipped = Split.load(path)
    folder = project_root() / "precomputed" / "datasets" / shipped.dataset_id
    cells = pd.read_parquet(folder / "cells.parquet").set_index("cell_id").loc[shipped.cell_ids]
    made = make_split(
        cells,
        shipped.protocol,
        dataset_id=shipped.dataset_id,
        folds=5,
        seed=shipped.seed,
        budget=shipped.budget,
    )
    assert made.sha256 == shipped.sha256


def test_one_more_protocol_splits_and_changes_no_other(monkeypatch):
    cells = cohort()
    before = make_splits(cells, dataset_id="0" * 16, protocols=list(PROTOCOLS))
    more = {"halves": HALVES, **PROTOCOLS}
    monkeypatch.setattr(protocols, "PROTOCOLS", more)
    monkeypatch.setattr("backend.splits.make.PROTOCOLS", more)
    after = make_splits(cells, dataset_id="0" * 16, protocols=list(more))
    assert {key: after[key].sha256 for key in before} == {
        key: split.sha256 for key, split in before.items()
    }
    assert after["halves"].folds == 2
    assert after["halves"].warnings[0] == "5 folds were asked for."
    assert leakage_report(after["halves"], cells).is_clean


def test_unknown_protocol_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match='no protocol "halves"') as refused:
        make_split(cohort(100), "halves", dataset_id="0" * 16)
    assert "random, donor, study" in refused.value.hint


@pytest.mark.parametrize("kept", PROTOCOLS.values(), ids=lambda kept: kept.key)
def test_words_of_a_protocol_stand_in_the_documentation(kept):
    text = (project_root() / "docs" / "methods.md").read_text(encoding="utf-8")
    assert f"| `{kept.key}` | {kept.label}: {kept.text} |" in text
    assert protocol_named(kept.key) is kept


def test_external_has_words_too():
    assert "another dataset" in protocol_text(EXTERNAL)
    assert EXTERNAL not in PROTOCOLS


def test_compared_protocols_exist():
    for kept in PROTOCOLS.values():
        assert kept.compared_with in {"", *PROTOCOLS} - {kept.key}
