"""Tiny datasets, made in code: 40 cells × 30 genes, 3 types, 4 donors, 2 days."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.helpers import two_components

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

_LONGEST = (
    "tests/test_tutorial.py", "tests/browser/", "tests/backend/hostile/", "tests/app/",
    "tests/mutants/", "tests/backend/studies/", "tests/backend/jobs/", "tests/backend/training/",
)  # fmt: skip
"""Files and folders whose files take longest, in the order in which workers are given them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: a worker that gets one last would work on alone."""

    def place(item: pytest.Item) -> int:
        ranks = (rank for rank, name in enumerate(_LONGEST) if item.nodeid.startswith(name))
        return next(ranks, len(_LONGEST))

    items.sort(key=place)


FINE_TYPES = ("HSC-like", "Mono", "T")

# Real symbols, so that files of these cells pass the check of gene names.
_SYMBOLS = [
    "CD34",
    "LYZ",
    "CD3D",
    "AVP",
    "S100A8",
    "CD3E",
    "CRHBP",
    "S100A9",
    "IL7R",
    "HOPX",
    "FCN1",
    "TRAC",
    "NPTX2",
    "VCAN",
    "CD2",
    "MLLT3",
    "CD14",
    "LCK",
    "SPINK2",
    "S100A12",
    "CD27",
    "HLF",
    "CTSS",
    "CCR7",
    "MEIS1",
    "MNDA",
    "LEF1",
    "NPR3",
    "CSTA",
    "TCF7",
]


@lru_cache(maxsize=8)
def _built(n_cells: int, n_genes: int, n_donors: int, n_unlabelled: int, seed: int) -> AnnData:
    rng = np.random.default_rng(seed)
    number = np.arange(n_cells)
    fine = np.array(FINE_TYPES, dtype=object)[number % 3]
    donor = np.array([f"AML{d + 1}" for d in number // 3 % n_donors], dtype=object)
    day = np.where(number // (3 * n_donors) % 2 == 0, 0, 14)
    genes = [*_SYMBOLS, *(f"GENE{g}" for g in range(len(_SYMBOLS), n_genes))][:n_genes]

    # Every type has its own third of the genes; every third gene of them is silent at times.
    rate = np.full((n_cells, n_genes), 1.0)
    rate[(number % 3)[:, None] == (np.arange(n_genes) % 3)] = 8.0
    counts = rng.poisson(rate).astype(np.float32)
    fine[n_cells - n_unlabelled :] = None
    lineage = [label and label.removesuffix("-like") for label in fine]
    samples = [f"{d}-D{t}" for d, t in zip(donor, day, strict=True)]
    obs = pd.DataFrame(
        {
            "cell_type_fine": pd.Categorical(fine),
            "cell_type_lineage": pd.Categorical(lineage),
            "timepoint": pd.Categorical(
                np.where(day == 0, "Diagnosis", "Post-treatment"),
                categories=["Diagnosis", "Post-treatment"],
                ordered=True,
            ),
            "donor": donor,
            "study": "tiny",
            "sample": samples,
            "day": pd.array(day, dtype="Int32"),
            "label_source": "classifier",
            "genotype": rng.choice(["mutant", "wildtype_only", "none"], n_cells),
            "is_malignant": pd.array(
                [None if label is None else label.endswith("-like") for label in fine],
                dtype="boolean",
            ),
            "n_counts": counts.sum(axis=1).astype(np.float32),
            "n_genes": (counts > 0).sum(axis=1).astype(np.int32),
        },
        index=pd.Index([f"{s}_cell{i}" for i, s in enumerate(samples)], name="cell_id"),
    )
    adata = ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes))
    adata.uns["faultline"] = {
        "name": "Tiny",
        "simulated": True,
        "source": "made in a test",
        "citation": "none",
        "licence_note": "none",
        "parent": "",
    }
    return adata


def build_adata(
    n_cells: int = 40,
    n_genes: int = 30,
    *,
    n_donors: int = 4,
    n_unlabelled: int = 0,
    seed: int = 0,
) -> AnnData:
    """Return a fresh copy of a tiny dataset in the layout that `backend.data.load` gives.

    Types HSC-like, Mono and T take turns over cells and each owns a third of the genes; donors
    are AML1, AML2, …; day 0 is Diagnosis and day 14 Post-treatment; the last `n_unlabelled`
    cells have no label. The first 30 genes bear human symbols.
    """
    return _built(n_cells, n_genes, n_donors, n_unlabelled, seed).copy()


@pytest.fixture(scope="session")
def make_adata() -> Callable[..., AnnData]:
    """Build tiny datasets of other sizes; see `build_adata`."""
    return build_adata


@pytest.fixture
def plain_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw maps by two components."""
    monkeypatch.setattr("backend.data.cell_map._umap", two_components)


@pytest.fixture
def tiny() -> AnnData:
    """40 labelled cells × 30 genes, 3 types, 4 donors, 2 days."""
    return build_adata()
