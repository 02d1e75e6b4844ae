"""A made-up file in the form of the atlas of Ennis et al. 2023, as its authors publish it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from tests.backend.data.conftest import GENES

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

LABELS_24 = (
    "CMP.LMPP", "HSC", "CD14.Mono.2", "Late.Eryth", "CD4.M", "GMP", "CD4.N1", "CD14.Mono.1",
    "GMP.Neut", "CD8.CM", "Early.Eryth", "cDC", "NK", "CD8.N", "B", "CD4.N2", "CD16.Mono",
    "CD8.EM", "pDC", "CLP.1", "Early.Baso", "Pre.B", "Plasma", "CLP.2",
)  # fmt: skip
LABELS_19 = (
    "HSC.MPP", "MEP", "GMP", "CLP", "Pre.B", "B", "Plasma", "CD14.Mono", "CD16.Mono", "cDC",
    "pDC", "Late.Eryth", "Megakaryocytes", "CD4.N", "CD4.M", "CD8.N", "CD8.M", "NK",
    "Mesenchymal",
)  # fmt: skip

# dataset, sample, donor, raw word of the timepoint, word after cleaning
SAMPLES = (
    ("nuig_1", "AML1_DG", "1", "DG", "Dia"),
    ("nuig_2", "AML1_R", "1", "R", "Rel"),
    ("nuig_2", "AML2_MRD", "2", "MRD", "MRD"),
    ("petti", "508084", "1", "Diagnosis", "Dia"),
    ("petti", "Normal_sorted_170531", "N1", None, None),
    ("petti", "Normal_1", "N2", None, None),
    ("oetjen", "A", "A", "Healthy", "Hea"),
    ("vanG", "AML328-D0", "AML328", "D0", "Dia"),
    ("vanG", "AML328-D171", "AML328", "D171", "TRT"),
    ("vanG", "BM5-34p", "BM5", "healthy", "Hea"),
    ("granja", "BMMC_D1T1", "D1", "Healthy", "Hea"),
    ("granja", "CD34_D2T1", "D2", "Healthy", "Hea"),
)


def build_atlas(*, stage: int = 24, seed: int = 0) -> AnnData:
    """Every sample has each label once: 24 raw ones, or 19 clean ones beside `tp`."""
    rng = np.random.default_rng(seed)
    labels = LABELS_24 if stage == 24 else LABELS_19
    rows = [(*sample, label) for sample in SAMPLES for label in labels]
    columns = ["dataset", "sample", "donor", "timepoint", "tp", "label"]
    obs = pd.DataFrame(rows, columns=columns, index=[f"{r[1]}_{i}-1" for i, r in enumerate(rows)])
    obs["batch"] = obs["sample"]
    obs["size_factors"] = rng.uniform(0.5, 2.0, len(obs))
    obs["doublet"], obs["dbl_score"] = "singlet", rng.random(len(obs))
    raw_of = {name: LABELS_24[i] for i, name in enumerate(LABELS_19)}
    obs["celltype"] = obs["label"] if stage == 24 else obs["label"].map(raw_of)
    if stage == 19:
        obs["celltype_final"] = obs["label"]
    else:
        obs = obs.drop(columns="tp")
    obs = obs.drop(columns="label")
    for name in set(obs.columns) - {"size_factors", "dbl_score"}:
        obs[name] = pd.Categorical(obs[name])
    counts = rng.poisson(1.5, (len(obs), len(GENES))).astype(np.float32)
    counts[:, 0] += 1
    normal = np.log1p(counts / obs["size_factors"].to_numpy()[:, None]).astype(np.float32)
    var = pd.DataFrame({"n_cells": (counts > 0).sum(axis=0)}, index=pd.Index(GENES))
    layers = {"counts": sparse.csr_matrix(counts)}
    return ad.AnnData(sparse.csr_matrix(normal), obs=obs, var=var, layers=layers)


def as_cellxgene(adata: AnnData, *, keep: tuple[str, ...] = ()) -> AnnData:
    """Return it as CELLxGENE lays data out: counts in `raw`, Ensembl ids, terms of ontologies.

    Parameters
    ----------
    keep
        Columns of the authors that stay beside those of the schema.
    """
    from backend.data.genes import map_genes

    terms = {"B": "B cell", "Pre.B": "precursor B cell", "CLP": "common lymphoid progenitor"}
    raw = adata.obs.get("celltype_final", adata.obs["celltype"]).astype(str)
    is_healthy = adata.obs["timepoint"].astype(str).str.casefold() == "healthy"
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(
                raw.map(lambda name: terms.get(name, "hematopoietic cell"))
            ),
            "disease": pd.Categorical(np.where(is_healthy, "normal", "acute myeloid leukemia")),
            "donor_id": pd.Categorical(adata.obs["donor"].astype(str)),
            "tissue": pd.Categorical(["bone marrow"] * adata.n_obs),
        },
        index=adata.obs_names,
    )
    for name in keep:
        obs[name] = adata.obs[name]
    ensembl = list(map_genes(adata.var_names.to_numpy(dtype=object)).ensembl)
    var = pd.DataFrame({"feature_name": pd.Categorical(list(adata.var_names))}, index=ensembl)
    made = ad.AnnData(adata.layers["counts"], obs=obs, var=var)
    raw_part = made.copy()
    made.X = adata.X.copy()
    made.raw = raw_part
    made.uns["schema_version"] = "5.2.0"
    made.uns["title"] = "Hematopoietic Niche scRNA-seq (Acute Myeloid Leukemia)"
    return made


def write_old(adata: AnnData, path: Path) -> Path:
    """Write as anndata 0.7.5 did: codes in `obs`, their words apart in `__categories`."""
    adata.write_h5ad(path)
    text = h5py.string_dtype()
    with h5py.File(path, "r+") as file:
        for part in ("encoding-type", "encoding-version"):
            file.attrs.pop(part, None)
        for group in ("layers", "uns", "obsm", "varm", "obsp", "varp"):
            for part in ("encoding-type", "encoding-version"):
                if group in file:
                    file[group].attrs.pop(part, None)
        for table in ("obs", "var"):
            group = file[table]
            group.attrs["encoding-version"] = "0.1.0"
            apart = group.create_group("__categories")
            for name in [name for name in group if isinstance(group[name], h5py.Group)]:
                if name == "__categories":
                    continue
                words = [str(word.decode()) for word in group[name]["categories"][:]]
                codes = group[name]["codes"][:]
                del group[name]
                apart.create_dataset(name, data=words, dtype=text)
                group.create_dataset(name, data=codes.astype(np.int8))
                group[name].attrs["categories"] = apart[name].ref
    return path
