"""GSE116256: pairing, parsing and what the names say."""

from __future__ import annotations

import errno
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.cli import main
from backend.data import describe, load
from backend.data.geo import import_geo, read_clinical, scan_folder
from backend.data.geo_counts import _parse_block, read_counts
from backend.errors import InputError
from tests.backend.data.conftest import GENES

ANNOTATION = "Cell\tMutTranscripts\tWtTranscripts\tPredictionRefined\tCellType\n"


def write(path: Path, text: str) -> None:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")


def write_sample(folder: Path, sample: str, n_cells: int = 6, *, parts: str = "dem anno") -> None:
    rng = np.random.default_rng(len(sample))
    cells = [f"{sample}_CELL{i}" for i in range(n_cells)]
    if "dem" in parts:
        counts = rng.poisson(0.7, (len(GENES), n_cells))
        lines = ["\t".join(["Gene", *cells])]
        lines += ["\t".join([g, *map(str, row)]) for g, row in zip(GENES, counts, strict=True)]
        write(folder / f"GSM1_{sample}.dem.txt.gz", "\n".join(lines) + "\n")
    if "anno" in parts:
        rows = [
            f"{cells[0]}\tNPM1.123\t\tmalignant\tHSC-like",
            f"{cells[1]}\t\tNPM1.5\tunclear\tMono",
            f"{cells[2]}\tDNMT3A.1\tDNMT3A.2\tnormal\tT",
            *(f"{cell}\t\t\tnormal\t" for cell in cells[3:]),
        ]
        write(folder / f"GSM2_{sample}.anno.txt.gz", ANNOTATION + "\n".join(rows) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "geo"
    folder.mkdir()
    for sample in ("AML328-D0", "AML328-D29", "AML420B-D0", "BM1", "BM5-34p38n"):
        write_sample(folder, sample)
    return folder


def test_scan_pairs_by_sample(folder):
    write_sample(folder, "AML921A-D0", parts="anno")
    write_sample(folder, "BM3", parts="dem")
    write_sample(folder, "MUTZ3")
    write_sample(folder, "AML328-D0-nanopore")
    (folder / "README.md").write_text("read me")
    found = scan_folder(folder)
    assert list(found.pairs) == ["AML328-D0", "AML328-D29", "AML420B-D0", "BM1", "BM5-34p38n"]
    assert found.without_counts == ("AML921A-D0",)
    assert found.without_annotation == ("BM3",)
    assert found.skipped == ("AML328-D0-nanopore", "MUTZ3")
    assert found.other_files == ("README.md",)


def test_names_and_annotation_become_columns(folder, tmp_path):
    out = tmp_path / "out.h5ad"
    report = import_geo(folder, out)
    assert report.n_cells == 30
    assert report.n_genes == 30
    assert report.n_unlabelled == 15
    obs = load(out).obs
    first = obs.loc["AML328-D0_CELL0"]
    assert first["cell_type_fine"] == "HSC-like"
    assert first["cell_type_lineage"] == "HSC"
    assert first["donor"] == "AML328"
    assert first["sample"] == "AML328-D0"
    assert first["timepoint"] == "Diagnosis"
    assert first["day"] == 0
    assert first["label_source"] == "classifier"
    assert first["genotype"] == "mutant"
    assert first["is_malignant"]
    assert obs.loc["AML328-D0_CELL1", "genotype"] == "wildtype_only"
    assert pd.isna(obs.loc["AML328-D0_CELL1", "is_malignant"])
    assert obs.loc["AML328-D0_CELL2", "genotype"] == "mutant"
    assert obs.loc["AML328-D0_CELL3", "genotype"] == "none"
    assert pd.isna(obs.loc["AML328-D0_CELL3", "cell_type_fine"])
    after = obs.loc["AML328-D29_CELL0"]
    assert (after["timepoint"], after["day"], after["donor"]) == ("Post-treatment", 29, "AML328")
    healthy = obs[obs["donor"] == "BM5"]
    assert set(healthy["timepoint"]) == {"Healthy"}
    assert set(healthy["sort"]) == {"34p38n"}
    assert set(healthy["label_source"]) == {"clustering"}
    assert healthy["day"].isna().all()
    assert not healthy["is_malignant"].any()
    assert healthy["is_malignant"].notna().all()
    assert obs.loc[obs["donor"] == "BM1", "sort"].isna().all()


def test_genes_and_counts_are_kept_as_they_are(folder, tmp_path):
    import anndata as ad

    import_geo(folder, tmp_path / "out.h5ad")
    adata = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(adata.var_names) == list(GENES)
    assert adata.X.dtype.kind == "i"
    table = pd.read_csv(folder / "GSM1_BM1.dem.txt.gz", sep="\t", index_col=0)
    np.testing.assert_array_equal(adata[table.columns].X.toarray(), table.to_numpy().T)
    assert adata.uns["faultline"]["citation"].startswith("van Galen")


def test_same_folder_gives_the_same_dataset(folder, tmp_path):
    for name in ("a.h5ad", "b.h5ad"):
        import_geo(folder, tmp_path / name)
    ids = {describe(load(tmp_path / name)).dataset_id for name in ("a.h5ad", "b.h5ad")}
    assert len(ids) == 1


def test_relapse_comes_from_the_clinical_table_only(folder, tmp_path):
    table = tmp_path / "samples.csv"
    table.write_text("sample,timepoint\nAML328-D29,Relapse\nAML1-D0,Healthy\n")
    report = import_geo(folder, tmp_path / "out.h5ad", clinical=read_clinical(table))
    obs = load(tmp_path / "out.h5ad").obs
    assert set(obs.loc[obs["sample"] == "AML328-D29", "timepoint"]) == {"Relapse"}
    assert set(obs.loc[obs["sample"] == "AML328-D29", "day"]) == {29}
    assert report.notes == (
        "Timepoints by the clinical table: AML328-D29 Relapse.",
        "The clinical table names samples that are not here: AML1-D0.",
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sample,when\nA,Relapse\n", "one column timepoint, but has 0. Found: sample, when"),
        ("sample;timepoint\nA;Relapse\n", "Found: sample;timepoint"),
        ("sample,timepoint,timepoint\nA,Relapse,Healthy\n", "but has 2"),
        ("sample,timepoint\nA,Later\n", 'Line 2 .* unknown timepoint "Later"'),
        ("sample,timepoint\nA,D29\n", 'unknown timepoint "D29"'),
        ("sample,timepoint\n\nA,Relapse\nA,Healthy\n", "Line 4 .* twice"),
        ("sample,timepoint\nA,\n", "Line 2 .* Found: A,"),
        ("sample,timepoint\n,Relapse\n", "Line 2 .* Found: ,Relapse"),
        ("sample,timepoint\nA\n", "Line 2 .* Found: A"),
        ("sample,timepoint\nA,Relapse,2019\n", "Line 2 .* Found: A,Relapse,2019"),
        ('sample,timepoint\n"A,Relapse\n', "not a CSV"),
        ("", "Found: nothing"),
    ],
)
def test_clinical_tables_that_are_refused(tmp_path, text, match):
    path = tmp_path / "samples.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=match):
        read_clinical(path)


@pytest.mark.parametrize("word", ["Relapse", "relapse", "relapsed", "at relapse", "Rel"])
def test_words_of_a_clinical_table_are_those_of_any_file(folder, tmp_path, word):
    table = tmp_path / "samples.csv"
    table.write_text(f"Sample,Timepoint,note\nAML328-D29, {word},\n\n", encoding="utf-8-sig")
    assert read_clinical(table) == {"AML328-D29": "Relapse"}
    report = import_geo(folder, tmp_path / "out.h5ad", clinical=read_clinical(table))
    assert report.notes == ("Timepoints by the clinical table: AML328-D29 Relapse.",)


def test_two_samples_of_a_donor_on_one_day_are_both_read(folder, tmp_path):
    write_sample(folder, "AML328-D029")
    write_sample(folder, "AML328-D29-2")
    report = import_geo(folder, tmp_path / "out.h5ad")
    assert report.folder.left_out == {"AML328-D29-2": "not a sample name of GSE116256"}
    obs = load(tmp_path / "out.h5ad").obs
    samples = obs.loc[(obs["donor"] == "AML328") & (obs["day"] == 29), "sample"]
    assert set(samples) == {"AML328-D29", "AML328-D029"}


@pytest.mark.parametrize("sample", ["AML328-D99999999999", "AML328-D２9", "AML328-29"])
def test_a_day_that_is_none_is_left_out_by_name(folder, tmp_path, sample):
    write_sample(folder, sample)
    report = import_geo(folder, tmp_path / "out.h5ad")
    assert report.folder.left_out == {sample: "not a sample name of GSE116256"}


def test_cells_without_annotation_are_kept_without_label(folder, tmp_path):
    path = folder / "GSM2_BM1.anno.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    write(path, "\n".join([*lines[:-2], "BM1_OTHER\t\t\tnormal\tT"]) + "\n")
    report = import_geo(folder, tmp_path / "out.h5ad")
    assert report.n_cells_without_annotation == 2
    assert report.n_annotations_without_cell == 1
    assert report.n_cells == 30
    assert report.notes == (
        "Cells with counts but without annotation, kept without label: 2 (BM1 2).",
        "Annotated cells without counts, left out: 1 (BM1 1).",
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (ANNOTATION, "None of the 6 cells .* no cell"),
        (ANNOTATION + "BM2_CELL0\t\t\tnormal\tT\n", "None of the 6 cells .* BM2_CELL0"),
        (ANNOTATION + "BM1_CELL0\t\t\tnormal\tT\tmore\n", "Line 2 .* 6 values"),
        (ANNOTATION + "BM1_CELL0\t\t\tnormal\tT\nBM1_CELL1\t\n", "Line 3 .* 2 values"),
        ("Cell\tCellType\tCellType\nBM1_CELL0\tT\tMono\n", "a column twice: CellType"),
        ("", "lacks the columns Cell, CellType. Found: nothing"),
    ],
)
def test_annotation_that_is_refused(folder, tmp_path, text, match):
    write(folder / "GSM2_BM1.anno.txt.gz", text)
    with pytest.raises(InputError, match=match):
        import_geo(folder, tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ("anno", r"annotation without counts \(.dem.txt.gz\): AML921A-D0\."),
        ("dem", r"counts without annotation \(.anno.txt.gz\): AML921A-D0\."),
        ("", "holds no sample .* Found: nothing"),
    ],
)
def test_folder_without_a_usable_sample(tmp_path, parts, match):
    folder = tmp_path / "geo"
    folder.mkdir()
    write_sample(folder, "AML921A-D0", parts=parts)
    with pytest.raises(InputError, match=match):
        import_geo(folder, tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()


def test_folder_of_everything_but_a_sample_says_what_it_holds(tmp_path):
    write_sample(tmp_path, "MUTZ3")
    write(tmp_path / "GSM9_AML328.nanopore.txt.gz", "cell\tcall\n")
    write(tmp_path / "GSE116256_RAW.tar", "")
    with pytest.raises(InputError) as caught:
        scan_folder(tmp_path)
    for said in ("a cell line, not a patient: MUTZ3", "AML328.nanopore", "GSE116256_RAW.tar"):
        assert said in caught.value.message


@pytest.mark.parametrize("kind", ["dem", "anno", "folder"])
def test_what_may_not_be_read_is_named(folder, tmp_path, monkeypatch, kind):
    """Permissions do not bind the superuser, so the system's answer is given in its place."""

    def refused(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    if kind == "folder":
        monkeypatch.setattr(Path, "iterdir", refused)
    else:
        opened = gzip.open
        monkeypatch.setattr(
            gzip,
            "open",
            lambda path, *a: refused() if f".{kind}." in path.name else opened(path, *a),
        )
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)") as caught:
        import_geo(folder, tmp_path / "out.h5ad")
    assert "right to read" in caught.value.hint
    assert not (tmp_path / "out.h5ad").exists()


def test_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        scan_folder(tmp_path / "absent")


def test_two_files_of_one_sample(folder):
    write_sample(folder, "BM1")
    (folder / "GSM1_BM1.dem.txt.gz").rename(folder / "GSM9_BM1.dem.txt.gz")
    write_sample(folder, "BM1")
    with pytest.raises(InputError, match="same part"):
        scan_folder(folder)


def head(n: int = 2) -> str:
    return "\t".join(["Gene", *(f"C{i}" for i in range(n))]) + "\n"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (head() + "A\t1\t2.5\n", 'whole counts.*gene "A"'),
        (head() + "A\t1\t2\nB\t1\t-2\n", 'gene "B"'),
        (head() + "A\t1\tNA\n", "whole counts"),
        (head() + "A\t1\t1e3\n", "whole counts"),
        (head() + "A\t1\t\n", "whole counts"),
        (head() + "A\t\t1\n", "whole counts"),
        (head() + "A\t1\t007\n", "whole counts"),
        (head() + "A\t1\n", '1 values for gene "A"'),
        (head() + "A\t1\t2\t3\n", '3 values for gene "A"'),
        (head() + "A\t1\t2\nB\n", 'gene "B"'),
        (head() + "A\t1\t99999999999\n", "above 2,147,483,647"),
        (head() + "A\t1\t2147483648\n", "above 2,147,483,647"),
        (head() + "A\t1\t2\nA\t1\t2\n", "a gene twice"),
        (head() + "\t1\t2\n", "not at all"),
        (head(), "names no gene"),
        ("Gene\tC0\tC0\nA\t1\t2\n", "each cell once"),
        ("Gene\nA\n", "each cell once"),
        ("Barcode\tC0\tC1\nA\t1\t2\n", 'begins with "Barcode", not with "Gene"'),
        ("C0\tC1\nA\t1\t2\n", 'begins with "C0"'),
        ("", "each cell once"),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_counts_that_are_refused(tmp_path, text, match, suffix):
    path = tmp_path / f"BM1.dem{suffix}"
    write(path, text)
    with pytest.raises(InputError, match=match):
        read_counts(path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_counts_cut_off(folder, tmp_path, share):
    path = folder / "GSM1_BM1.dem.txt.gz"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match="cut off or damaged"):
        import_geo(folder, tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_annotation_cut_off(folder, tmp_path):
    path = folder / "GSM2_BM1.anno.txt.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut off or damaged"):
        import_geo(folder, tmp_path / "out.h5ad")


def test_annotation_without_its_columns(folder, tmp_path):
    write(folder / "GSM2_BM1.anno.txt.gz", "Cell\tType\nBM1_CELL0\tT\n")
    with pytest.raises(InputError, match="lacks the columns CellType"):
        import_geo(folder, tmp_path / "out.h5ad")


def test_annotation_of_a_cell_twice(folder, tmp_path):
    path = folder / "GSM2_BM1.anno.txt.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    write(path, text + "BM1_CELL0\t\t\tnormal\tT\n")
    with pytest.raises(InputError, match="twice"):
        import_geo(folder, tmp_path / "out.h5ad")


def test_samples_with_other_genes(folder, tmp_path):
    write(folder / "GSM1_BM1.dem.txt.gz", "Gene\tBM1_CELL0\nCD34\t1\n")
    with pytest.raises(InputError, match="other genes"):
        import_geo(folder, tmp_path / "out.h5ad")


def test_windows_line_ends(tmp_path):
    path = tmp_path / "BM1.dem.txt"
    path.write_bytes(b"Gene\tC0\tC1\r\nA\t0\t12\r\nB\t3\t0\r\n")
    cells, genes, counts = read_counts(path)
    assert list(cells) == ["C0", "C1"]
    assert genes == ["A", "B"]
    np.testing.assert_array_equal(counts.toarray(), [[0, 3], [12, 0]])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parsing_equals_splitting(data):
    n_cells = data.draw(st.integers(1, 6))
    numbers = st.one_of(st.just(0), st.integers(0, 30), st.integers(0, 2**31 - 1))
    rows = data.draw(
        st.lists(st.lists(numbers, min_size=n_cells, max_size=n_cells), min_size=1, max_size=8)
    )
    lines = [b"\t".join([b"G", *(str(n).encode() for n in row)]) for row in rows]
    genes, cells, values = _parse_block(lines, n_cells, 0, Path("x"))
    found = np.zeros((len(rows), n_cells), dtype=np.int64)
    found[genes, cells] = values
    np.testing.assert_array_equal(found, rows)
    assert (values > 0).all()


# The command.


def test_command_lists_what_was_left_out(folder, tmp_path, capsys):
    write_sample(folder, "AML921A-D0", parts="anno")
    write_sample(folder, "MUTZ3")
    (folder / "GSM1_BM2.dem.txt (1).gz").touch()
    assert main(["data", "import-geo", str(folder), str(tmp_path / "out.h5ad")]) == 0
    printed = capsys.readouterr().out
    assert "1 left out (annotation without counts (.dem.txt.gz)): AML921A-D0." in printed
    assert "1 left out (a cell line, not a patient): MUTZ3." in printed
    assert "1 left out (no file of a sample): GSM1_BM2.dem.txt (1).gz." in printed


def test_command_as_json(folder, tmp_path, capsys):
    write_sample(folder, "AML921A-D0", parts="anno")
    assert main(["data", "import-geo", str(folder), str(tmp_path / "out.h5ad"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_cells"] == 30
    assert report["without_counts"] == ["AML921A-D0"]


def test_command_refuses_annotation_without_counts(tmp_path, capsys):
    folder = tmp_path / "geo"
    folder.mkdir()
    write_sample(folder, "AML921A-D0", parts="anno")
    assert main(["data", "import-geo", str(folder), str(tmp_path / "out.h5ad")]) == 2
    captured = capsys.readouterr()
    assert "AML921A-D0" in captured.err
    assert "hint" in captured.err
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.slow
def test_the_real_files(van_galen, tmp_path):
    out = tmp_path / "vangalen.h5ad"
    report = import_geo(van_galen, out)
    assert (report.n_cells, report.n_genes, len(report.samples)) == (27_567, 27_899, 35)
    assert report.folder.left_out == {
        "AML921A-D0": "annotation without counts (.dem.txt.gz)",
        "BM4": "annotation without counts (.dem.txt.gz)",
        "MUTZ3": "a cell line, not a patient",
        "OCI-AML3": "a cell line, not a patient",
        "AML328.nanopore": "mutation calls by nanopore sequencing, no counts",
        "AML707B.nanopore": "mutation calls by nanopore sequencing, no counts",
    }
    assert (report.n_unlabelled, report.n_cells_without_annotation) == (783, 0)
    adata = load(out)
    info = describe(adata)
    assert (info.n_donors, info.timepoints) == (17, ("Healthy", "Diagnosis", "Post-treatment"))
    assert info.not_labelled == ("CLP", "Pre-B")
    obs = adata.obs
    assert obs["cell_type_fine"].nunique() == 21
    assert dict(obs["timepoint"].value_counts()) == {
        "Healthy": 3_960, "Diagnosis": 9_547, "Post-treatment": 14_060, "Relapse": 0,
    }  # fmt: skip
    assert obs.loc[obs["sort"].notna(), "donor"].unique().tolist() == ["BM5"]
    is_normal = obs["timepoint"] == "Healthy"
    assert not obs.loc[is_normal, "is_malignant"].any()
    assert obs.loc[~is_normal, "is_malignant"].isna().sum() > 0


def test_a_sample_without_any_label_is_read(folder, tmp_path):
    write_sample(folder, "BM5-34p")
    path = folder / "GSM2_BM5-34p.anno.txt.gz"
    cells = [f"BM5-34p_CELL{i}" for i in range(6)]
    write(path, ANNOTATION + "\n".join(f"{cell}\t\t\t\t" for cell in cells) + "\n")
    out = tmp_path / "out.h5ad"
    report = import_geo(folder, out)
    assert report.n_unlabelled == 15 + 6
    obs = load(out).obs
    sorted_cells = obs[obs["sample"] == "BM5-34p"]
    assert sorted_cells["cell_type_fine"].isna().all()
    assert sorted_cells["cell_type_lineage"].isna().all()
    assert set(sorted_cells["donor"]) == {"BM5"}
    assert set(obs["cell_type_lineage"].dropna()) == {"HSC", "Mono", "T"}


def test_a_folder_of_unlabelled_samples_only_is_read(tmp_path):
    folder = tmp_path / "geo"
    folder.mkdir()
    write_sample(folder, "BM1")
    cells = [f"BM1_CELL{i}" for i in range(6)]
    write(folder / "GSM2_BM1.anno.txt.gz", ANNOTATION + "\n".join(f"{c}\t\t\t\t" for c in cells))
    assert import_geo(folder, tmp_path / "out.h5ad").n_unlabelled == 6


def test_what_is_left_out_is_named_with_the_reason(folder, tmp_path, capsys):
    write_sample(folder, "AML921A-D0", parts="anno")
    write_sample(folder, "BM3", parts="dem")
    write_sample(folder, "MUTZ3")
    write_sample(folder, "OCI-AML3")
    write(folder / "GSM9_AML328.nanopore.txt.gz", "cell\tcall\n")
    assert scan_folder(folder).left_out == {
        "AML921A-D0": "annotation without counts (.dem.txt.gz)",
        "BM3": "counts without annotation (.anno.txt.gz)",
        "MUTZ3": "a cell line, not a patient",
        "OCI-AML3": "a cell line, not a patient",
        "AML328.nanopore": "mutation calls by nanopore sequencing, no counts",
    }
    assert main(["data", "import-geo", str(folder), str(tmp_path / "out.h5ad")]) == 0
    said = capsys.readouterr().out
    assert "2 left out (a cell line, not a patient): MUTZ3, OCI-AML3." in said
    assert "1 left out (mutation calls by nanopore sequencing, no counts): AML328.nanopore." in said


def test_a_donor_with_post_treatment_samples_only(tmp_path):
    folder = tmp_path / "geo"
    folder.mkdir()
    write_sample(folder, "AML329-D20")
    write_sample(folder, "AML329-D37")
    import_geo(folder, tmp_path / "out.h5ad", clinical={"AML329-D37": "Relapse"})
    obs = load(tmp_path / "out.h5ad").obs
    assert obs.groupby("sample", observed=True)["timepoint"].first().to_dict() == {
        "AML329-D20": "Post-treatment",
        "AML329-D37": "Relapse",
    }
    assert set(obs["donor"]) == {"AML329"}
