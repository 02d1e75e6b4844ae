"""What becomes of the cells of files that people really have: training donors, no counts, labels."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from backend.cli import main
from backend.data.vocabularies import ABSTAINED
from backend.errors import InputError, LabelError
from backend.prediction.evaluate import evaluate
from backend.prediction.own_labels import read_own_labels
from backend.prediction.saved_models import find_saved_model
from backend.store.bundle import read_predictions, read_run
from tests.backend.prediction.conftest import run_of
from tests.backend.prediction.test_evaluate import new_cells


@pytest.fixture
def logreg(trained_home):
    return find_saved_model(run_of(trained_home, "logreg"), [trained_home])


@pytest.fixture
def write(tmp_path):
    def written(adata, name="upload.h5ad"):
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return written


def with_known_names(study=None):
    """Other cells, whose donors bear the names of training donors (of the study "tiny")."""
    adata = new_cells(60)
    adata.obs["donor"] = adata.obs["donor"].astype(str).str.removeprefix("NEW")
    if study is not None:
        adata.obs["study"] = study
    return adata


@pytest.mark.parametrize(
    ("study", "names", "n_scored", "words"),
    [
        ("another study", "ask", 60, "scored as other people: the studies differ"),
        ("tiny", "ask", 0, "--donor-names other"),
        (None, "ask", 0, "--donor-names other"),
        ("tiny", "other", 60, "scored as other people: as you said"),
        ("another study", "same", 0, "taken as training donors, as you said"),
    ],
)
def test_a_name_is_no_person(logreg, write, tmp_path, study, names, n_scored, words):
    done = evaluate(write(with_known_names(study)), [logreg], tmp_path, donor_names=names)
    assert done.n_scored == n_scored
    assert done.n_in_training == 60 - n_scored
    assert sum(words in note for note in done.notes) == 1


def test_the_cells_decide_whatever_is_said(logreg, trained_file, write, tmp_path):
    """Cells of training stay unscored under other names, and with them their whole donor."""
    seen = ad.read_h5ad(trained_file)[:30].copy()
    seen.obs = seen.obs[["cell_type_fine"]].rename(columns={"cell_type_fine": "cell_type"})
    more = new_cells(30, seed=12)
    both = ad.concat([seen, more], index_unique="-", keys=["a", "b"])
    both.obs["donor"] = "RENAMED"
    done = evaluate(write(both), [logreg], tmp_path, donor_names="other")
    assert (done.n_scored, done.n_in_training) == (0, 60)
    assert any("the same cells are there" in note for note in done.notes)


def test_another_column_for_one_role_keeps_the_guard(trained_home, trained_file, tmp_path, capsys):
    adata = ad.read_h5ad(trained_file)[:60].copy()
    adata.obs = adata.obs[["cell_type_fine", "donor", "study"]].rename(
        columns={"cell_type_fine": "annotated"}
    )
    adata.X.data += 1  # Processed anew: no count is the same.
    path = tmp_path / "again.h5ad"
    adata.write_h5ad(path)
    words = ["--run", run_of(trained_home, "logreg"), "--models", str(trained_home)]
    words += ["--dataset", str(path), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *words, "--role", "cell_type=annotated"]) == 0
    out = capsys.readouterr().out
    assert "60 cells in training: predicted, not scored." in out
    assert "No cell can be scored." in out


def test_unknown_choice_of_names_is_refused(logreg, write, tmp_path):
    with pytest.raises(InputError, match="no choice"):
        evaluate(write(new_cells(30)), [logreg], tmp_path, donor_names="maybe")


def test_cells_without_counts_get_no_call(logreg, write, tmp_path):
    adata = new_cells(90)
    counts = adata.X.toarray()
    counts[:9] = 0
    adata.X = counts
    done = evaluate(write(adata), [logreg], tmp_path)
    assert (done.n_empty, done.n_scored, done.n_in_training) == (9, 81, 0)
    frame = read_predictions(tmp_path / "runs" / done.run_ids[0])
    assert set(frame["predicted"][:9]) == {ABSTAINED}
    assert frame["label"][:9].isna().all()
    assert ABSTAINED not in set(frame["predicted"][9:])
    assert any(
        "9 cells have no counts" in note
        for note in read_run(tmp_path / "runs" / done.run_ids[0]).notes
    )


def test_labels_that_all_mean_nothing_are_refused_with_the_list(logreg, write, tmp_path):
    adata = new_cells(60)
    adata.obs["fine"] = list(adata.obs["cell_type"])
    adata.obs["cell_type"] = "native cell"
    path = write(adata)
    with pytest.raises(LabelError, match=r"None of the 1 labels .* native cell") as refused:
        evaluate(path, [logreg], tmp_path)
    assert "--role cell_type=fine" in refused.value.hint
    with pytest.raises(LabelError, match="None of the 3 labels"):
        evaluate(
            write(new_cells(60)), [logreg], tmp_path,
            given=dict.fromkeys(["HSC-like", "classical monocyte", "T cells"]),
        )  # fmt: skip
    assert not (tmp_path / "runs").exists()


def test_few_scored_cells_need_a_word(trained_home, tmp_path, capsys):
    adata = new_cells(60)
    labels = np.array(adata.obs["cell_type"].astype(str), dtype=object)
    labels[:40] = "fibroblast"
    adata.obs["cell_type"] = labels
    path = tmp_path / "few.h5ad"
    adata.write_h5ad(path)
    words = ["--run", run_of(trained_home, "logreg"), "--models", str(trained_home)]
    words += ["--dataset", str(path), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *words]) == 2
    told = capsys.readouterr().err
    assert "Only 20 of 60 labelled cells (33%)" in told
    assert "--few" in told
    assert main(["evaluate", *words, "--few"]) == 0
    assert "fibroblast → not scored" in capsys.readouterr().out


def test_own_labels_are_kept_with_what_became_of_them(logreg, trained_file, write, tmp_path):
    adata = new_cells(60)
    labels = np.array(adata.obs["cell_type"].astype(str), dtype=object)
    labels[:2], labels[2:4] = "fibroblast", "Unknown"
    adata.obs["cell_type"] = labels
    counts = adata.X.toarray()
    counts[4] = 0
    adata.X = counts
    adata.obs["donor"] = ["AML1" if n == 5 else d for n, d in enumerate(adata.obs["donor"])]
    done = evaluate(write(adata), [logreg], tmp_path)
    kept = read_own_labels(tmp_path, done.run_ids[0])
    assert kept["cell_id"].tolist() == adata.obs_names.tolist()
    assert kept["outcome"].tolist()[:7] == [
        *["not mapped"] * 2, *["no label"] * 2, "no counts", "in training", "scored",
    ]  # fmt: skip
    assert kept["own_label"][:4].tolist() == ["fibroblast", "fibroblast", None, None]
    assert (kept["outcome"] == "scored").sum() == done.n_scored


def test_important_genes_that_are_missing_are_said(logreg, write, tmp_path):
    """A share of all genes is no evidence: what counts is the weight that lies on them."""
    whole = evaluate(write(new_cells(60)), [logreg], tmp_path / "whole")
    assert not any("lacks" in note for note in whole.notes)
    names, weights = logreg.load().gene_weights()
    best = names[int(np.argmax(weights))]
    adata = new_cells(60)
    cut = adata[:, [name for name in adata.var_names if name != best]].copy()
    (note,) = [
        note
        for note in evaluate(write(cut, "cut.h5ad"), [logreg], tmp_path / "cut").notes
        if "lacks" in note
    ]
    share = weights.max() / weights.sum()
    assert f"lacks 1 of the {len(names)} genes that move its answers most ({best})" in note
    assert f"{share:.0%} of the weight" in note
