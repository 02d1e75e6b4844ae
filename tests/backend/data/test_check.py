"""What makes a well-formed file unusable, and that both checks say it in the same words."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from backend.data.check import check
from backend.data.roles import Roles
from backend.errors import InputError


def problems(path, **options):
    """Return the problems of a file; both checks must find the same ones."""
    full, quick = check(path, **options), check(path, quick=True, **options)
    assert full.problems == quick.problems
    assert all(problem.message and problem.hint for problem in full.problems)
    return full.problems


def only_problem(path, **options):
    (problem,) = problems(path, **options)
    return problem


def with_values(adata, change):
    dense = adata.X.toarray()
    adata.X = sparse.csr_matrix(change(dense).astype(np.float32))
    return adata


def test_usable_file_has_facts(upload, saved):
    report = check(saved(upload))
    assert report.is_usable
    assert report.facts["n_cells"] == 40
    assert report.facts["n_genes_matched"] == 30
    assert report.facts["counts"] == "X"
    assert report.facts["n_donors"] == 4
    assert report.facts["n_cell_types"] == 3
    assert report.facts["timepoints"] == {"Diagnosis": 20, "Post-treatment": 20}
    assert report.facts["roles"] == {
        "cell_type": "celltype",
        "donor": "patient",
        "timepoint": "time_point",
    }
    assert report.to_json()["usable"]


# Roles.


def test_no_roles(upload, saved):
    upload.obs = upload.obs[["percent_mito"]].copy()
    problem = only_problem(saved(upload))
    assert problem.code == "roles"
    assert "cell type" in problem.message
    assert "percent_mito" in problem.message


@pytest.mark.parametrize(
    ("columns", "purpose", "usable"),
    [
        (["celltype", "patient"], "train", True),
        (["celltype"], "train", False),
        (["patient"], "train", False),
        (["celltype"], "evaluate", True),
        (["patient"], "evaluate", False),
        ([], "predict", True),
    ],
)
def test_roles_that_a_purpose_needs(upload, saved, columns, purpose, usable):
    upload.obs = upload.obs[columns].copy()
    assert check(saved(upload), quick=True, purpose=purpose).is_usable is usable


def test_empty_label_column(upload, saved):
    upload.obs["celltype"] = pd.Categorical([None] * 40, categories=["T"])
    assert only_problem(saved(upload)).code == "roles"


def test_role_of_an_absent_column(upload, saved):
    roles = Roles(cell_type="lineage", donor="patient")
    problem = only_problem(saved(upload), roles=roles)
    assert problem.code == "roles"
    assert "lineage" in problem.message


def test_given_roles_are_used(upload, saved):
    upload.obs["cluster"] = upload.obs.pop("celltype")
    path = saved(upload)
    assert not check(path).is_usable
    assert check(path, roles=Roles(cell_type="cluster", donor="patient")).is_usable


def test_unknown_purpose(upload, saved):
    assert only_problem(saved(upload), purpose="sell").code == "argument"


# Counts.


def test_log_normalised_with_no_other_layer(upload, saved):
    path = saved(with_values(upload, lambda x: np.log1p(x / 3)))
    problem = only_problem(path)
    assert problem.code == "log_normalised"
    assert "log-normalised" in problem.message
    assert "counts" in problem.hint


def test_log_normalised_with_counts_in_an_odd_layer(upload, saved):
    upload.layers["umi"] = upload.X.copy()
    path = saved(with_values(upload, lambda x: np.log1p(x / 3)))
    problem = only_problem(path)
    assert '`layers["umi"]`' in problem.hint
    roles = Roles(cell_type="celltype", donor="patient", counts="layers/umi")
    assert check(path, roles=roles).facts["counts"] == "layers/umi"


def test_counts_are_found_in_the_counts_layer(upload, saved):
    upload.layers["counts"] = upload.X.copy()
    path = saved(with_values(upload, lambda x: np.log1p(x / 3)))
    assert check(path).facts["counts"] == "layers/counts"


def test_counts_are_found_in_raw(upload, saved):
    upload.raw = upload.copy()
    path = saved(with_values(upload[:, :10].copy(), lambda x: np.log1p(x / 3)))
    facts = check(path).facts
    assert facts["counts"] == "raw/X"
    assert facts["n_genes"] == 30


def test_x_comes_before_the_counts_layer(upload, saved):
    upload.layers["counts"] = upload.X.copy()
    assert check(saved(upload)).facts["counts"] == "X"


def test_wanted_matrix_that_is_absent(upload, saved):
    roles = Roles(cell_type="celltype", donor="patient", counts="layers/umi")
    problem = only_problem(saved(upload), roles=roles)
    assert problem.code == "no_counts"
    assert "layers/umi" in problem.message


def test_no_matrix_at_all(upload, saved):
    path = saved(ad.AnnData(obs=upload.obs, var=upload.var))
    assert only_problem(path).code == "no_counts"


def test_zeros_only(upload, saved):
    problem = only_problem(saved(with_values(upload, lambda x: x * 0)))
    assert problem.code == "no_counts"
    assert "zeros" in problem.message


def test_scaled_values(upload, saved):
    assert only_problem(saved(with_values(upload, lambda x: x * 100.5))).code == "not_counts"


def test_negative_values(upload, saved):
    path = saved(with_values(upload, lambda x: x - 1))
    problem = only_problem(path)
    assert problem.code == "negative"
    assert "-1" in problem.message


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_not_finite(upload, saved, value, word, storage):
    dense = upload.X.toarray()
    dense[3, 4] = value
    upload.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[storage](
        dense
    )
    problem = only_problem(saved(upload))
    assert problem.code == "not_finite"
    assert f"1 {word}" in problem.message or f"and 1 {word}" in problem.message


def test_one_bad_value_among_many_is_found_by_the_full_check(saved):
    n = 20_000
    counts = sparse.random(n, 30, 0.1, format="csr", random_state=0, dtype=np.float32)
    counts.data[:] = 1
    rows = np.arange(n)
    from tests.backend.data.conftest import GENES

    obs = pd.DataFrame(
        {"cell_type": rows % 3, "donor": rows % 4}, index=[f"c{row}" for row in rows]
    ).astype("category")
    counts.data[counts.nnz // 2] = -2
    path = saved(ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES)))
    assert check(path).problems[0].code == "negative"


def test_counts_too_high_for_counts(upload, saved):
    path = saved(with_values(upload, lambda x: x * 2.0**25))
    assert only_problem(path).code == "not_counts"


# Cells and genes.


def test_repeated_ids(upload, saved):
    upload.obs_names = ["same", "same", *upload.obs_names[2:]]
    problem = only_problem(saved(upload))
    assert problem.code == "repeated_id"
    assert "same" in problem.message


def test_empty_id(upload, saved):
    upload.obs_names = ["", *upload.obs_names[1:]]
    assert only_problem(saved(upload)).code == "empty_id"


def test_no_gene_matched(upload, saved):
    upload.var_names = [f"feature_{i}x" for i in range(30)]
    problem = only_problem(saved(upload))
    assert problem.code == "no_genes"
    assert "feature_0x" in problem.message


def test_mouse_genes_are_named_as_such(upload, saved):
    upload.var_names = [name.capitalize() for name in upload.var_names]
    assert "mouse" in only_problem(saved(upload)).hint


def test_numbered_genes_are_named_as_such(upload, saved):
    upload.var_names = [str(i) for i in range(30)]
    assert "numbered" in only_problem(saved(upload)).hint


def test_symbols_in_a_column(upload, saved):
    upload.var["gene_symbols"] = upload.var_names
    upload.var_names = [str(i) for i in range(30)]
    assert check(saved(upload)).facts["n_genes_matched"] == 30


def test_wrong_orientation(upload, saved):
    turned = ad.AnnData(
        upload.X.T.tocsr(),
        obs=pd.DataFrame({"celltype": "T", "patient": "P1"}, index=upload.var_names),
        var=pd.DataFrame(index=upload.obs_names),
    )
    problem = only_problem(saved(turned))
    assert problem.code == "orientation"
    assert "Transpose" in problem.hint


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(group, name, values):
    del group[name]
    group[name] = values


def test_matrix_the_wrong_way_round(upload, saved):
    upload.X = upload.X.toarray()
    path = edit(saved(upload), lambda file: replace(file, "X", np.ones((30, 40), "f4")))
    assert only_problem(path).code == "orientation"


@pytest.mark.parametrize(
    "change",
    [
        lambda file: replace(file["X"], "indptr", file["X/indptr"][:-1]),
        lambda file: replace(file["X"], "indptr", file["X/indptr"][:][::-1].copy()),
        lambda file: replace(file["X"], "indptr", file["X/indptr"][:] + 1),
        lambda file: replace(file["X"], "indptr", file["X/indptr"][:].astype("f4")),
        lambda file: replace(file["X"], "data", file["X/data"][:-1]),
        lambda file: replace(file["X"], "data", file["X/data"][:][None]),
        lambda file: replace(file["X"], "data", np.array(["a"] * file["X/data"].size, dtype="S")),
        lambda file: replace(file["X"], "indices", file["X/indices"][:-1]),
        lambda file: file["X"].attrs.__setitem__("shape", [40, 31]),
        lambda file: file["X"].attrs.__setitem__("encoding-type", "coo_matrix"),
        lambda file: file["X"].attrs.__delitem__("shape"),
        lambda file: file["X"].__delitem__("indptr"),
        lambda file: replace(file, "X", np.ones((40, 30, 2))),
        lambda file: replace(file, "X", np.ones((41, 30))),
        lambda file: replace(file["obs"], "percent_mito", np.ones(3)),
        lambda file: replace(file["obs/celltype"], "codes", np.zeros(3, "i1")),
    ],
)
def test_shapes_that_do_not_fit(upload, saved, change):
    path = edit(saved(upload), change)
    roles = Roles(cell_type="celltype", donor="patient", sort="percent_mito")
    assert problems(path, roles=roles)[0].code == "shape"


@pytest.mark.parametrize("storage", [sparse.csr_matrix, sparse.csc_matrix])
def test_positions_outside_the_matrix(upload, saved, storage):
    upload.X = storage(upload.X)

    def change(file):
        file["X/indices"][5] = 4000

    path = edit(saved(upload), change)
    assert check(path).problems[0].code == "shape"


def test_categories_that_do_not_exist(upload, saved):
    path = edit(saved(upload), lambda file: file["obs/celltype/codes"].__setitem__(0, 77))
    assert only_problem(path).code == "column"


def test_not_anndata(tmp_path):
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(4)
    problem = only_problem(path)
    assert problem.code == "not_anndata"
    assert "numbers" in problem.message


def test_no_cells(upload, saved):
    assert only_problem(saved(upload[:0].copy())).code == "empty"


def test_several_problems_are_all_named(upload, saved):
    upload.obs = upload.obs[["percent_mito"]].copy()
    upload.obs_names = ["same", "same", *upload.obs_names[2:]]
    path = saved(with_values(upload, lambda x: x - 1))
    assert [problem.code for problem in problems(path)] == ["repeated_id", "roles", "negative"]


def test_load_refuses_with_the_first_problem(upload, saved):
    from backend.data import load

    upload.var_names = [f"feature_{i}x" for i in range(30)]
    with pytest.raises(InputError, match="known human genes"):
        load(saved(upload))


def test_progress_reaches_the_end(upload, saved):
    seen = []
    check(saved(upload), progress=lambda *event: seen.append(event))
    assert seen[-1][0] == seen[-1][1] == upload.X.nnz


def test_the_file_is_never_changed(upload, saved):
    path = saved(upload)
    before = path.read_bytes()
    check(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
