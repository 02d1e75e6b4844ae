"""Files for tests of `backend.data`: real gene symbols, foreign column names, hostile structures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

GENES = [
    "CD34",
    "MPO",
    "ELANE",
    "LYZ",
    "CD14",
    "FCN1",
    "CD1C",
    "IRF8",
    "GATA1",
    "KLF1",
    "HBB",
    "HBA1",
    "DNTT",
    "IL7R",
    "VPREB1",
    "PAX5",
    "MS4A1",
    "CD19",
    "MZB1",
    "SDC1",
    "CD3D",
    "CD3E",
    "CD8A",
    "NKG7",
    "GNLY",
    "SPINK2",
    "MECOM",
    "AZU1",
    "S100A8",
    "TCF4",
]

SHARED = Path(__file__).parents[4] / "shared"


def build_upload(n_cells: int = 40, *, seed: int = 0) -> AnnData:
    """40 cells × 30 genes as a stranger would save them: own column names, counts as floats."""
    rng = np.random.default_rng(seed)
    number = np.arange(n_cells)
    counts = rng.poisson(1.5, (n_cells, len(GENES))).astype(np.float32)
    obs = pd.DataFrame(
        {
            "celltype": pd.Categorical(np.array(["HSC-like", "Mono", "T"])[number % 3]),
            "patient": np.array(["P1", "P2", "P3", "P4"], dtype=object)[number // 3 % 4],
            "time_point": pd.Categorical(np.array(["dx", "remission"])[number % 2]),
            "percent_mito": rng.random(n_cells),
        },
        index=[f"cell{i}" for i in number],
    )
    var = pd.DataFrame(index=pd.Index(GENES))
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


@pytest.fixture
def upload() -> AnnData:
    return build_upload()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Write an AnnData and return its path."""

    def save(adata: AnnData, name: str = "upload.h5ad", **options: object) -> Path:
        path = tmp_path / name
        adata.write_h5ad(path, **options)
        return path

    return save


@pytest.fixture
def van_galen() -> Path:
    folder = SHARED / "data" / "vangalen2019"
    if not folder.is_dir():
        pytest.skip("the files of GSE116256 are not on this machine (shared/data/vangalen2019)")
    return folder
