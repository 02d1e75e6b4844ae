"""The id of a dataset, its facts and its table of cells."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from backend.data import CELLS_COLUMNS, cells_table, describe, load, read_chunks
from backend.data.dataset import describe_chunks


@pytest.fixture
def adata(upload, saved):
    return load(saved(upload))


def test_facts(adata):
    info = describe(adata)
    assert re.fullmatch(r"[0-9a-f]{16}", info.dataset_id)
    assert (info.n_cells, info.n_genes, info.n_donors) == (40, 30, 4)
    assert info.timepoints == ("Diagnosis", "Post-treatment")
    assert "CLP" in info.not_labelled
    assert "HSC" not in info.not_labelled
    assert info.parent is None
    assert json.loads(json.dumps(info.to_json()))["dataset_id"] == info.dataset_id
    with pytest.raises(AttributeError):
        info.n_cells = 3


def test_id_does_not_depend_on_the_bytes_of_the_file(upload, saved):
    plain = describe(load(saved(upload, "a.h5ad"))).dataset_id
    packed = describe(load(saved(upload, "b.h5ad", compression="gzip"))).dataset_id
    upload.X = upload.X.toarray()
    dense = describe(load(saved(upload, "c.h5ad"))).dataset_id
    assert plain == packed == dense


@pytest.mark.parametrize("size", [9, 64])
def test_id_does_not_depend_on_chunks(upload, saved, size):
    path = saved(upload)
    assert describe_chunks(read_chunks(path, size)) == describe(load(path))


def changed(adata, change):
    copy = adata.copy()
    change(copy)
    return copy


def set_count(adata):
    adata.X[0, 0] += 1


def set_label(adata):
    adata.obs.loc[adata.obs_names[0], "cell_type_fine"] = None


def set_day(adata):
    adata.obs.loc[adata.obs_names[0], "day"] = 3


def rename_cell(adata):
    adata.obs_names = ["other", *adata.obs_names[1:]]


def rename_gene(adata):
    adata.var_names = ["OTHER", *adata.var_names[1:]]


@pytest.mark.parametrize("change", [set_count, set_label, set_day, rename_cell, rename_gene])
def test_id_depends_on_the_content(adata, change):
    assert describe(changed(adata, change)).dataset_id != describe(adata).dataset_id


def test_id_does_not_depend_on_names_of_the_file_or_order_of_categories(adata):
    other = adata.copy()
    other.uns["faultline"]["name"] = "another name"
    other.obs["donor"] = other.obs["donor"].cat.reorder_categories(
        other.obs["donor"].cat.categories[::-1]
    )
    assert describe(other).dataset_id == describe(adata).dataset_id


def test_id_depends_on_the_order_of_cells(adata):
    assert describe(adata[::-1].copy()).dataset_id != describe(adata).dataset_id


def test_describe_changes_nothing(adata):
    before = adata.copy()
    describe(adata)
    cells_table(adata)
    pd.testing.assert_frame_equal(before.obs, adata.obs)
    np.testing.assert_array_equal(before.X.toarray(), adata.X.toarray())


def test_table_of_cells(adata, tmp_path):
    table = cells_table(adata)
    assert tuple(table.columns) == CELLS_COLUMNS
    assert table["cell_id"].tolist() == adata.obs_names.tolist()
    assert table["umap_x"].dtype == table["umap_y"].dtype == np.float32
    assert table[["umap_x", "umap_y"]].isna().all(axis=None)
    assert table["study"].tolist() == [None] * 40
    assert all(isinstance(value, str) for value in table["donor"])
    assert table["day"].dtype == "Int32"
    assert table["is_malignant"].dtype == "boolean"
    table.to_parquet(tmp_path / "cells.parquet")
    again = pd.read_parquet(tmp_path / "cells.parquet", dtype_backend="numpy_nullable")
    assert again["cell_type_fine"].tolist() == table["cell_type_fine"].tolist()


def test_import_is_light():
    code = (
        "import sys, backend.data; heavy = {'anndata', 'pandas', 'h5py', 'umap', 'scipy'}; "
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_refused():
    import backend.data

    with pytest.raises(AttributeError, match="nonsense"):
        _ = backend.data.nonsense
    assert set(backend.data.__all__) <= {*dir(backend.data), *backend.data._HOME_OF}


def test_ids_of_equal_text_in_other_places_differ(adata):
    """Joining must not let "ab" + "c" equal "a" + "bc"."""

    def cells_hash(names):
        part = adata[:2].copy()
        part.obs_names = names
        return describe(part).hashes["cells"]

    assert cells_hash(["ab", "c"]) != cells_hash(["a", "bc"])
