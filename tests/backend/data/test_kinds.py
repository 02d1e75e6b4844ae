"""Kinds of files that people really have, each with the right outcome."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from backend.data import load
from backend.data.check import check
from backend.data.features import kinds_by_name, undecorated
from backend.data.genes import is_known_gene
from backend.data.roles import Roles, parse_roles
from backend.errors import InputError
from tests.backend.data.conftest import GENES


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def with_rows(upload, names, kinds=None):
    """The cells with further rows of `var`, all of them with high counts."""
    n = upload.n_obs
    more = ad.AnnData(
        sparse.csr_matrix(np.full((n, len(names)), 900, dtype=np.float32)),
        obs=upload.obs,
        var=pd.DataFrame(index=names),
    )
    both = ad.concat([upload, more], axis=1, merge="first")
    if kinds is not None:
        both.var["feature_types"] = ["Gene Expression"] * upload.n_vars + kinds
    return both


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["CD34-1", "Hashtag1"], ["Antibody Capture", "Antibody Capture"]),
        (["chr1:100-200", "chr1:300-400"], ["Peaks", "Peaks"]),
        (["CD34-1", "anti-CD14", "chr1:100-200", "HTO_A1", "MPO_sgRNA1", "CD3_TotalSeqB"], None),
    ],
)
def test_rows_that_are_no_genes_are_left_out(upload, saved, names, kinds):
    plain = load(saved(upload))
    path = saved(with_rows(upload, names, kinds))
    read = load(path)
    assert list(read.var_names) == GENES
    assert (read.X != plain.X).nnz == 0
    np.testing.assert_array_equal(read.obs["n_counts"], plain.obs["n_counts"])
    report = check(path)
    assert report.facts["n_left_out"] == len(names)
    assert any(names[0] in note and "no genes" in note for note in report.notes)


def test_a_gene_is_never_taken_for_another_kind():
    names = [*GENES, "HLA-A", "MT-ND1", "PRTN3", "IGHG1", "AC123456.1"]
    assert not any(kinds_by_name(names, is_known_gene))


@pytest.mark.parametrize(
    "decorate",
    [
        "GRCh38_{}",
        "hg19_{}",
        "GRCh38-2020-A______{}",
        "b'{}'",
        '"{}"',
        " {} ",
        "\ufeff{}",
    ],
)
def test_decorated_gene_names(upload, saved, decorate):
    upload.var_names = [decorate.format(name) for name in upload.var_names]
    path = saved(upload)
    assert list(load(path).var_names) == GENES
    assert any("Taken off" in note for note in check(path).notes)


def test_a_name_beside_an_ensembl_id():
    names = ["ENSG00000174059|CD34", "CD34_ENSG00000174059.3", "MPO"]
    plain, told = undecorated(names, is_known_gene)
    assert plain == ["ENSG00000174059", "ENSG00000174059.3", "MPO"]
    assert "2 names" in told[0]


def test_numbered_genes_with_names_in_any_column(upload, saved):
    upload.var["features"] = list(upload.var_names)
    upload.var_names = [str(number) for number in range(upload.n_vars)]
    path = saved(upload)
    assert list(load(path).var_names) == GENES
    assert any('"features"' in note for note in check(path).notes)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_cells_without_counts_are_counted(upload, saved, storage):
    counts = upload.X.toarray()
    counts[:7] = 0
    made = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[storage]
    upload.X = made(counts)
    report = check(saved(upload))
    assert report.facts["n_empty_cells"] == 7
    assert "7 cells have no counts: they get no call and no score." in report.notes


def test_counts_in_raw_win_over_a_cut_matrix(upload, saved):
    upload.raw = upload.copy()
    path = saved(upload[:, :8].copy())
    report = check(path)
    assert report.facts["counts"] == "raw/X"
    assert report.facts["n_genes_matched"] == 30
    assert any('"X" is cut to 8' in note for note in report.notes)
    assert check(path, roles=Roles(counts="X")).facts["n_genes_matched"] == 8


def test_rounding_is_offered_and_done_on_request(upload, saved):
    counts = load(saved(upload)).X.toarray()
    upload.X = sparse.csr_matrix(np.expm1(np.log1p(counts)).astype(np.float32))
    # 2.000001 and the like, whatever the logarithm of this machine gives.
    upload.X.data += np.float32(1e-5)
    path = saved(upload)
    (problem,) = check(path).problems
    assert problem.code == "not_counts"
    assert "log-normalised" not in problem.message
    assert "by up to" in problem.message
    assert "--round" in problem.hint
    rounded = load(path, Roles(is_rounded=True))
    np.testing.assert_array_equal(rounded.X.toarray(), counts)
    notes = check(path, roles=Roles(is_rounded=True)).notes
    assert any("were rounded" in note for note in notes)


def test_values_without_ambient_rna_are_not_called_log_normalised(upload, saved):
    rng = np.random.default_rng(0)
    upload.X.data = upload.X.data + rng.uniform(0.05, 0.45, upload.X.nnz).astype(np.float32)
    (problem,) = check(saved(upload)).problems
    assert "100.0% of those looked at" in problem.message
    assert "log" not in problem.message


def test_normalised_values_are_not_rounded(upload, saved):
    totals = np.asarray(upload.X.sum(axis=1)).ravel()
    upload.X = sparse.csr_matrix(upload.X.multiply(1e3 / totals[:, None]).log1p())
    path = saved(upload)
    for roles in (None, Roles(is_rounded=True)):
        (problem,) = check(path, roles=roles).problems
        assert problem.code == "log_normalised"
        assert "--round" not in problem.hint


def test_an_option_changes_its_role_only(upload, saved):
    upload.obs["fine"] = list(upload.obs["celltype"])
    upload.obs["celltype"] = "native cell"
    path = saved(upload)
    before = check(path).facts["roles"]
    roles = parse_roles(["cell_type=fine"])
    assert check(path, roles=roles).facts["roles"] == before | {"cell_type": "fine"}
    none = parse_roles(["donor="])
    assert "donor" not in check(path, roles=none, purpose="evaluate").facts["roles"]
    assert any("--role cell_type=fine" in note for note in check(path).notes)


def test_the_refusal_names_columns_by_their_values(upload, saved):
    upload.obs = pd.DataFrame(
        {
            "x1": np.where(np.arange(40) % 2, "CD14+ Mono", "NK cells"),
            "x2": [f"person {n % 4}" for n in range(40)],
            "x3": np.arange(40.0),
        },
        index=upload.obs_names,
    )
    (problem,) = check(saved(upload)).problems
    assert "--role cell_type=x1" in problem.hint
    assert "--role donor=x2" in problem.hint


def test_timepoints_are_named_by_words():
    roles = parse_roles([], ["Day 0=Diagnosis", "a=b=Relapse"])
    assert roles.timepoints == {"Day 0": "Diagnosis", "a=b": "Relapse"}
    with pytest.raises(InputError, match="does not name a value"):
        parse_roles([], ["Diagnosis"])
    with pytest.raises(InputError, match="Unknown timepoints: Remission"):
        parse_roles([], ["D29=Remission"])


def test_words_that_name_no_type_are_no_labels(upload, saved):
    words = ["Unknown", "Doublet", "-", "unclassified cells", "Low quality", "T"]
    upload.obs["celltype"] = [words[n % 6] for n in range(40)]
    path = saved(upload)
    assert set(load(path).obs["cell_type_fine"].dropna()) == {"T"}
    report = check(path)
    assert report.facts["n_unlabelled"] == 34
    assert any("names no type" in note and "Doublet" in note for note in report.notes)


def test_numbers_as_labels_are_said(upload, saved):
    upload.obs["celltype"] = pd.Categorical([str(n % 5) for n in range(40)])
    assert any("All 5 labels are numbers" in note for note in check(saved(upload)).notes)


def test_categories_of_nullable_text(upload, saved):
    upload.obs["celltype"] = pd.Categorical(upload.obs["celltype"])
    path = saved(upload)
    expected = load(path).obs["cell_type_fine"].tolist()

    def change(file: h5py.File):
        column = file["obs/celltype"]
        words = column["categories"][:]
        del column["categories"]
        group = column.create_group("categories")
        group.attrs.update({"encoding-type": "nullable-string-array", "encoding-version": "0.1.0"})
        group["values"] = words
        group["mask"] = np.zeros(len(words), dtype=bool)

    edit(path, change)
    assert load(path).obs["cell_type_fine"].tolist() == expected


def test_an_empty_place_for_a_matrix_is_skipped(upload, saved):
    upload.layers["counts"] = upload.X.copy()
    path = saved(upload)

    def change(file: h5py.File):
        del file["X"]
        file.create_dataset("X", data=h5py.Empty("f4"))
        file["X"].attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})

    edit(path, change)
    assert check(path).facts["counts"] == "layers/counts"


def test_the_genes_of_mudata_are_read(upload, saved, tmp_path):
    plain = load(saved(upload))
    path = tmp_path / "both.h5mu"
    with h5py.File(saved(upload)) as source, h5py.File(path, "w") as file:
        for name in ("rna", "prot"):
            group = file.create_group(f"mod/{name}")
            for part in source:
                source.copy(part, group)
    read = load(path)
    assert (read.X != plain.X).nnz == 0
    assert read.obs["cell_type_fine"].tolist() == plain.obs["cell_type_fine"].tolist()
    assert any('its modality "rna" was read' in note for note in check(path).notes)
    with h5py.File(path, "r+") as file:
        file.move("mod/rna", "mod/atac")
    (problem,) = check(path).problems
    assert "atac, prot" in problem.message


def test_files_of_cell_ranger_are_read_to_predict(upload, saved, tmp_path):
    plain = load(saved(upload))
    counts = upload.X.tocsr().astype(np.int32)
    path = tmp_path / "filtered.h5"
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["data"], matrix["indices"] = counts.data, counts.indices.astype(np.int64)
        matrix["indptr"] = counts.indptr.astype(np.int64)
        matrix["shape"] = np.array([upload.n_vars, upload.n_obs], dtype=np.int32)
        matrix["barcodes"] = np.array(upload.obs_names, dtype="S20")
        matrix["features/name"] = np.array(upload.var_names, dtype="S20")
        matrix["features/id"] = np.array(plain.var["ensembl"], dtype="S20")
        matrix["features/feature_type"] = np.array(["Gene Expression"] * 29 + ["Custom"], "S20")
    read = load(path)
    assert list(read.var_names) == GENES[:29]
    np.testing.assert_array_equal(read.X.toarray(), plain.X.toarray()[:, :29])
    assert read.obs_names.tolist() == plain.obs_names.tolist()
    assert check(path, purpose="predict").is_usable
    assert [problem.code for problem in check(path, purpose="evaluate").problems] == ["no_labels"]
