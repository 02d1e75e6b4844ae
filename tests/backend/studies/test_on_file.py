"""Whether training can work on a file is said from its columns, with a choice that works."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from backend.jobs.requests import RunRequest
from backend.studies.executors.common import read_dataset
from backend.studies.on_file import look_in_child, splits_of

GENES = ["CD3D", "CD3E", "CD34", "CD19", "MS4A1", "LYZ", "CD14", "HBB", "HBA1", "MPO"]


@pytest.fixture
def look(tmp_path):
    """Return a function that looks at a file of 90 cells with some columns."""

    def looked(*, donors, timepoints=("Diagnosis",), types=("T", "B"), **request):
        rng = np.random.default_rng(0)
        n = 90
        obs = {"cell_type": types, "donor": donors, "timepoint": timepoints}
        obs = {name: np.resize(np.array(values), n) for name, values in obs.items()}
        adata = ad.AnnData(
            csr_matrix(rng.poisson(2.0, (n, len(GENES))).astype(np.float32)),
            obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(n)]),
            var=pd.DataFrame(index=GENES),
        )
        adata.write_h5ad(tmp_path / "mine.h5ad")
        values = {"dataset": "mine", "model": "majority", **request}
        path = tmp_path / "mine.h5ad"
        return look_in_child(None, path, {}, splits_of(RunRequest.of(values).plan(path)))

    return looked


@pytest.mark.parametrize(
    ("columns", "message", "hint"),
    [
        ({"donors": ["A"]}, "one donor", "protocol random"),
        ({"donors": ["A", "B", "C"]}, "no cell is tested", "3 folds would work"),
        ({"donors": [*"ABCDEF"], "types": ["Unknown"]}, "No cell has a label", "predict with"),
        ({"donors": [*"ABCDEF"], "types": ["T"]}, "one type at most", "another protocol"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(look, columns, message, hint):
    found = look(**columns)
    assert message in found["message"]
    assert hint in found["hint"]


def test_what_a_reader_of_the_file_must_know_comes_with_its_cells(look, tmp_path):
    look(donors=[*"ABCDEF"], types=["T", "B", "Unknown"])
    *_, notes = read_dataset(tmp_path / "mine.h5ad", any_genes=False)
    assert any("30 cells have a label that names no type (Unknown)" in note for note in notes)


def test_fewer_donors_than_folds_at_a_timepoint_are_said_with_a_number_that_works(look):
    # Six donors at diagnosis, of whom three also at relapse.
    columns = {"donors": [*"ABCDEFABC"], "types": ["T"] * 9 + ["B"] * 9}
    columns["timepoints"] = ["Diagnosis"] * 6 + ["Relapse"] * 3
    found = look(**columns)
    assert found["gaps"] == ["Relapse has 3 donors for 5 folds: 2 folds test no Relapse cell."]
    assert found["folds"] == 3
    for request in ({"folds": 3}, {"fits": "final"}, {"protocol": "random"}):
        assert look(**columns, **request) == {"gaps": [], "folds": None}
