"""Reading: one layout whatever the file looks like, whole or in chunks."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from backend.data import Roles, describe, load, read_chunks
from backend.data.problems import Refusal
from backend.types import TIMEPOINTS

OBS_COLUMNS = [
    "cell_type_fine",
    "cell_type_lineage",
    "timepoint",
    "donor",
    "study",
    "sample",
    "day",
    "label_source",
    "genotype",
    "is_malignant",
    "n_counts",
    "n_genes",
]


def test_layout(upload, saved):
    adata = load(saved(upload))
    assert list(adata.obs.columns) == OBS_COLUMNS
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert list(adata.obs_names) == list(upload.obs_names)
    assert list(adata.var_names) == list(upload.var_names)
    assert adata.var.loc["CD34", "ensembl"] == "ENSG00000174059"
    obs = adata.obs
    assert list(obs["timepoint"].cat.categories) == list(TIMEPOINTS)
    assert obs["timepoint"].cat.ordered
    assert obs["day"].dtype == "Int32"
    assert obs["is_malignant"].dtype == "boolean"
    assert obs["n_counts"].dtype == np.float32
    assert obs["n_genes"].dtype == np.int32
    assert obs["study"].isna().all()
    assert set(obs["cell_type_lineage"]) == {"HSC", "Mono", "T"}
    assert set(obs["label_source"]) == {"unknown"}
    assert set(obs["genotype"]) == {"none"}
    np.testing.assert_array_equal(obs["n_counts"], upload.X.sum(axis=1).A1)
    assert adata.uns["faultline"]["name"] == "upload"
    assert adata.uns["faultline"]["simulated"] is False


def test_malignancy_follows_labels_where_no_column_says_it(upload, saved):
    obs = load(saved(upload)).obs
    is_like = obs["cell_type_fine"] == "HSC-like"
    assert obs.loc[is_like, "is_malignant"].all()
    assert obs.loc[~is_like, "is_malignant"].isna().all()


def test_file_without_any_role_can_be_loaded(upload, saved):
    upload.obs = upload.obs[["percent_mito"]].copy()
    adata = load(saved(upload))
    assert adata.obs["cell_type_fine"].isna().all()
    assert set(adata.obs["donor"]) == {"unknown"}


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        ("csr", "gzip"),
        ("csr", "lzf"),
        ("csc", None),
        ("csc", "gzip"),
        ("dense", None),
        ("dense", "lzf"),
        ("dense chunks", "gzip"),
        ("integers", None),
    ],
)
def test_storage_does_not_matter(upload, saved, storage, compression):
    expected = load(saved(upload, "expected.h5ad"))
    if storage == "csc":
        upload.X = sparse.csc_matrix(upload.X)
    elif storage == "dense":
        upload.X = upload.X.toarray()
    elif storage == "integers":
        upload.X = upload.X.astype(np.uint16)
    path = saved(upload, compression=compression)
    if storage == "dense chunks":
        with h5py.File(path, "r+") as file:
            del file["X"]
            values = upload.X.toarray()
            file.create_dataset("X", data=values, chunks=(40, 1), compression=compression)
    adata = load(path)
    np.testing.assert_array_equal(adata.X.toarray(), expected.X.toarray())
    pd.testing.assert_frame_equal(adata.obs, expected.obs)
    assert describe(adata).dataset_id == describe(expected).dataset_id


@pytest.mark.parametrize("storage", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("size", [7, 40])
def test_chunks_add_up_to_the_whole(upload, saved, storage, size, monkeypatch):
    monkeypatch.setattr("backend.data.matrix.SLAB_VALUES", 50)
    upload.X = storage(upload.X.toarray())
    path = saved(upload)
    whole = load(path)
    chunks = list(read_chunks(path, size=size))
    assert [chunk.n_obs for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    together = ad.concat(chunks, merge="same")
    np.testing.assert_array_equal(together.X.toarray(), whole.X.toarray())
    pd.testing.assert_frame_equal(pd.concat([chunk.obs for chunk in chunks]), whole.obs)


def test_unsorted_and_split_entries_are_summed(upload, saved):
    path = saved(upload)
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices", "indptr"):
            del file["X"][name]
        file["X/data"] = np.array([1, 2, 4, 0], "f4")
        file["X/indices"] = np.array([7, 3, 7, 1], "i4")
        file["X/indptr"] = np.array([0, 4] + [4] * 39, "i4")
    counts = load(path).X
    assert counts.has_sorted_indices
    assert counts.nnz == 2
    assert counts[0, 7] == 5


def test_chunk_size_must_be_positive(upload, saved):
    with pytest.raises(Refusal, match="0 cells"):
        next(read_chunks(saved(upload), size=0))


def test_load_finds_a_bad_value_that_samples_miss(upload, saved, monkeypatch):
    monkeypatch.setattr("backend.data.matrix.Matrix.sample", lambda self, seed: [np.ones(1)])
    upload.X.data[9] = 0.5
    with pytest.raises(Refusal, match="not whole"):
        load(saved(upload))


def test_damaged_values_are_refused(upload, saved):
    path = saved(upload, compression="gzip")
    with h5py.File(path) as file:
        start = file["X/data"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(Refusal) as caught:
        load(path)
    assert caught.value.code == "damaged"


def test_raw_genes_are_used_with_raw_counts(upload, saved):
    upload.raw = upload.copy()
    small = upload[:, :5].copy()
    small.X = np.log1p(small.X.toarray() / 3)
    adata = load(saved(small))
    assert adata.n_vars == 30
    np.testing.assert_array_equal(adata.X.toarray(), upload.X.toarray())


def test_roles_and_timepoint_words(upload, saved):
    upload.obs["visit"] = np.where(np.arange(40) < 20, "V1", "V7")
    roles = Roles(
        cell_type="celltype",
        donor="patient",
        timepoint="visit",
        timepoints={"V1": "Diagnosis", "V7": "Relapse"},
    )
    obs = load(saved(upload), roles).obs
    assert obs["timepoint"].value_counts()[["Diagnosis", "Relapse"]].tolist() == [20, 20]


def test_relapse_is_never_read_from_a_day(upload, saved):
    upload.obs["time_point"] = np.where(np.arange(40) < 20, "D0", "D300")
    obs = load(saved(upload)).obs
    assert (obs["timepoint"] == "Diagnosis").sum() == 20
    assert obs["timepoint"].isna().sum() == 20


def test_words_for_missing_labels(upload, saved):
    upload.obs["celltype"] = ["nan", "NA", " ", "T "] * 10
    obs = load(saved(upload)).obs
    assert obs["cell_type_fine"].notna().sum() == 10
    assert set(obs["cell_type_fine"].dropna()) == {"T"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.array([0, 14, None, 3] * 10, dtype="Int64"), [0, 14, None, 3]),
        (np.array([0, 14, np.nan, 3.5] * 10), [0, 14, None, None]),
        (["D0", "day 14", "", "-3"] * 10, [0, 14, None, -3]),
    ],
)
def test_days(upload, saved, values, expected):
    upload.obs["day"] = values
    days = load(saved(upload)).obs["day"]
    assert [None if pd.isna(day) else int(day) for day in days[:4]] == expected


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False] * 20),
        pd.array([True, False] * 20, dtype="boolean"),
        ["malignant", "normal"] * 20,
        [1, 0] * 20,
    ],
)
def test_malignancy_columns(upload, saved, values):
    upload.obs["is_malignant"] = values
    found = load(saved(upload)).obs["is_malignant"]
    assert found.tolist() == [True, False] * 20


def test_numbered_cells_and_types(upload, saved):
    upload.obs["celltype"] = np.arange(40) % 3
    adata = load(saved(upload))
    assert sorted(adata.obs["cell_type_fine"].unique()) == ["0", "1", "2"]


def test_categories_of_anndata_0_7(upload, saved):
    path = saved(upload)
    with h5py.File(path, "r+") as file:
        codes, names = file["obs/celltype/codes"][:], file["obs/celltype/categories"].asstr()[:]
        del file["obs/celltype"]
        file["obs/celltype"] = codes
        file["obs/__categories/celltype"] = names.astype(object)
        file["obs/celltype"].attrs["categories"] = file["obs/__categories/celltype"].ref
    assert set(load(path).obs["cell_type_fine"]) == {"HSC-like", "Mono", "T"}


def test_tables_in_one_block_are_refused_with_a_way_out(upload, saved):
    path = saved(upload)
    with h5py.File(path, "r+") as file:
        del file["obs"]
        file["obs"] = np.zeros(40, dtype=[("index", "S8"), ("celltype", "S8")])
    with pytest.raises(Refusal, match="old anndata"):
        load(path)


def test_text_that_is_not_utf8(upload, saved):
    path = saved(upload)
    with h5py.File(path, "r+") as file:
        file["obs/patient/categories"][0] = b"\xff\xfe"
    with pytest.raises(Refusal, match="UTF-8"):
        load(path)


def test_what_a_file_says_about_itself_is_only_short_text(upload, saved):
    upload.uns["faultline"] = {"name": "x" * 3000, "simulated": "yes", "parent": np.arange(3)}
    about = load(saved(upload)).uns["faultline"]
    assert len(about["name"]) == 1000
    assert about["simulated"] is False
    assert about["parent"] is None


def test_load_does_not_keep_the_file_open(upload, saved):
    path = saved(upload)
    load(path)
    with h5py.File(path, "r+") as file:
        file["new"] = 1
