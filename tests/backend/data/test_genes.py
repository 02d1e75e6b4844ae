"""Gene names: Ensembl ids, versions, old symbols, duplicates."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from backend.data.genes import gene_table, map_genes, strip_version
from backend.data.problems import Refusal
from tests.backend.data.conftest import GENES, SHARED


def test_current_symbols_stay():
    genes = map_genes(GENES)
    assert genes.symbols == tuple(GENES)
    assert genes.is_identity
    assert genes.n_matched == 30
    assert genes.n_renamed == 0
    assert genes.id_kind == "symbol"


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("ENSG00000174059", "CD34"),
        ("ENSG00000174059.17", "CD34"),
        ("ENSG00000174059_PAR_Y", "CD34"),
        ("SEPT9", "SEPTIN9"),
        ("MARCH1", "MARCHF1"),
        ("HIST1H4C", "H4C3"),
        ("H2AFZ", "H2AZ1"),
        ("GNB2L1", "RACK1"),
        ("MLL", "KMT2A"),
        ("WHSC1", "NSD2"),
        ("KIAA0101", "PCLAF"),
        ("IL8", "CXCL8"),
        ("IGJ", "JCHAIN"),
        ("HLA.A", "HLA-A"),
        ("MT.ND1", "MT-ND1"),
    ],
)
def test_names_that_are_mapped(name, symbol):
    genes = map_genes([name, "MPO"])
    assert genes.symbols == (symbol, "MPO")
    assert genes.n_matched == 2


def test_versions():
    assert strip_version("ENSG00000174059.17") == "ENSG00000174059"
    assert strip_version("CD34") is None
    assert strip_version("ENSG123") is None
    assert strip_version("ENSMUSG00000016494.4") == "ENSMUSG00000016494"


def test_duplicates_are_summed():
    genes = map_genes(["CD34", "SEPT9", "MPO", "SEPTIN9", "ENSG00000174059.3"])
    assert genes.symbols == ("CD34", "SEPTIN9", "MPO")
    assert genes.n_summed == 2
    counts = sparse.csr_matrix(np.array([[1, 2, 3, 4, 5], [0, 0, 0, 1, 0]], dtype=np.float32))
    summed = genes.apply(counts)
    np.testing.assert_array_equal(summed.toarray(), [[6, 6, 3], [0, 1, 0]])
    assert summed.has_canonical_format
    np.testing.assert_array_equal(counts.toarray()[0], [1, 2, 3, 4, 5])


def test_names_that_anndata_made_unique_are_summed():
    genes = map_genes(["MATR3", "MATR3-1", "HLA-A", "CD34-7"])
    assert genes.symbols == ("MATR3", "HLA-A", "CD34-7")


def test_unknown_names_are_kept():
    genes = map_genes([*GENES, "ERCC-00002", "ENSG00000999999.2"])
    assert genes.symbols[-2:] == ("ERCC-00002", "ENSG00000999999")
    assert genes.ensembl[-2:] == ("", "ENSG00000999999")
    assert genes.n_matched == 30
    assert genes.unmatched == ("ERCC-00002", "ENSG00000999999.2")


def test_ids_win_over_symbols():
    genes = map_genes(["alias", "MPO"], ["ENSG00000174059.1", ""])
    assert genes.symbols == ("CD34", "MPO")
    assert genes.id_kind == "symbol and ensembl"


@pytest.mark.parametrize(
    "names", [["x1", "x2"], ["1", "2", "3"], [n.capitalize() for n in GENES], ["", " "]]
)
def test_nothing_known_is_refused(names):
    with pytest.raises(Refusal, match="known human genes"):
        map_genes(names)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([*GENES, "SEPT9", "SEPTIN9", "ENSG00000174059.2", "odd"]), min_size=5)
)
def test_mapping_keeps_every_count(names):
    names = [*names, "MPO"]
    genes = map_genes(names)
    assert len(set(genes.symbols)) == len(genes.symbols) == len(genes.ensembl)
    counts = sparse.csr_matrix(np.arange(1, len(names) + 1, dtype=np.float32)[None])
    assert genes.apply(counts).sum() == counts.sum()
    assert map_genes(genes.symbols).symbols == genes.symbols


def test_old_symbols_file_is_clean():
    path = Path(__file__).parents[3] / "backend" / "data" / "old_symbols.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    old = [row["old"] for row in rows]
    table = gene_table()
    assert old == sorted(set(old))
    assert set(old) == set(table.current_of)
    assert not set(old) & set(table.ensembl_of)


def test_old_symbols_agree_with_hgnc():
    path = SHARED / "vocab" / "gene_mapping" / "hgnc_complete_set.txt.gz"
    if not path.is_file():
        pytest.skip("the HGNC table is not on this machine (shared/vocab/gene_mapping)")
    table = gene_table()
    earlier: dict[str, set[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            symbol = table.symbol_of.get(row["ensembl_gene_id"], row["symbol"])
            names = [row["symbol"], *row["prev_symbol"].split("|"), *row["alias_symbol"].split("|")]
            for name in filter(None, names):
                earlier.setdefault(name, set()).add(symbol)
    unsupported = [
        (old, current)
        for old, current in table.current_of.items()
        if old in earlier and current not in earlier[old]
    ]
    assert unsupported == []
