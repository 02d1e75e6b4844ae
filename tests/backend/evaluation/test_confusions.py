"""Confusions and disagreement against a count by hand, and at their edges."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backend.errors import InputError
from backend.evaluation.outcomes import error_kind
from backend.evaluation.views import AGREEMENTS, confusions, disagreement
from backend.evaluation.wording import plain
from backend.store.bundle import RunRecord, predictions_frame, write_dataset, write_run
from backend.types import Scope, Series
from tests.cells import judged_cells
from tests.helpers import draw_cells, open_store

STRANGE = (
    "<script>alert('x')</script>",
    "say \"T\" & 'NK'",
    "x" * 200,
    "🩸 *cells*",
    "תאי דם",
    "$E=mc^2$ [link](http://h.st) :red[B] :smile:",
    "=1+1",
)


def write_labelled(root, labels, predicted, *, classes=None, level="fine", model="logreg", folds=2):
    """Write cells with these labels and one series that predicts these types."""
    n = len(labels)
    cells = draw_cells(samples={"Diagnosis": 4}, cells_per_sample=max(n // 2, 6)).iloc[:n].copy()
    assert len(cells) == n
    cells["cell_type_fine"] = cells["cell_type_lineage"] = np.array(labels, dtype=object)
    cells["donor"] = [f"D{i % 4}" for i in range(n)]
    info = {"dataset_id": "a" * 16, "name": "Strange", "simulated": False, "source": "made here"}
    write_dataset(root, info, cells)
    classes = classes or sorted(set(predicted))
    series = Series(
        dataset_id="a" * 16, protocol="donor", folds=folds, model=model, label_level=level
    )
    for fold in range(folds):
        rows = np.flatnonzero(np.arange(n) % folds == fold)
        proba = np.full((len(rows), len(classes)), 0.1 / max(len(classes) - 1, 1))
        proba[np.arange(len(rows)), [classes.index(predicted[i]) for i in rows]] = 0.9
        record = RunRecord.for_series(
            series, fold=fold, status="done", split_sha256="5" * 64, display_name=model.title(),
            classes=tuple(classes), n_test=len(rows),
        )  # fmt: skip
        ids, truth = cells["cell_id"].to_numpy()[rows], cells["cell_type_fine"].to_numpy()[rows]
        frame = predictions_frame(ids, truth, proba, classes, fold, "test")
        write_run(root, record, frame)
    return Scope(dataset_id="a" * 16, label_level=level)


@pytest.fixture
def labelled(tmp_path):
    """Return a function that gives store and scope of some labels and predictions."""
    stores = []

    def opened(labels, predicted, **options):
        scope = write_labelled(tmp_path, labels, predicted, **options)
        stores.append(open_store(tmp_path))
        return stores[-1], scope

    yield opened
    for store in stores:
        store.close()


@pytest.mark.parametrize("level", ["lineage", "fine"])
def test_confusions_equal_a_count_by_hand(store, results, level):
    scope = results.scope(label_level=level, timepoints=("Healthy", "Relapse"))
    view = confusions(store, scope, "logreg")
    cells = judged_cells(store, scope, "logreg").dropna(subset=["label", "predicted"])
    by_hand = cells.groupby(["label", "predicted"]).agg(
        n_cells=("cell_id", "size"), n_donors=("donor", "nunique")
    )
    found = view.cells.set_index(["label", "predicted"]).sort_index()
    pd.testing.assert_frame_equal(found[["n_cells", "n_donors"]], by_hand, check_dtype=False)
    assert view.n_cells == len(cells)
    assert view.n_donors == cells.donor.nunique()
    assert view.n_wrong == (cells.label != cells.predicted).sum()
    assert view.cells.groupby("label").row_share.sum().to_numpy() == pytest.approx(1)
    assert view.cells.groupby("predicted").column_share.sum().to_numpy() == pytest.approx(1)
    assert view.cells.n_cells.is_monotonic_decreasing
    kinds = pd.Series(
        [error_kind(a, b) for a, b in zip(cells.label, cells.predicted, strict=True)]
    ).value_counts()
    told = view.kinds.set_index("kind")
    assert told.n_cells[told.n_cells > 0].to_dict() == kinds.to_dict()
    assert told.share.sum() == pytest.approx(1)
    assert told.share_of_wrong.sum() == pytest.approx(1)
    assert ("malignant ↔ normal" in told.index) == (level == "fine")


def test_small_labels_are_marked(store, results):
    view = confusions(store, results.scope(timepoints=("Relapse",)), "logreg")
    small = view.labels[view.labels.is_small]
    assert len(small)
    assert ((small.n_cells < 20) | (small.n_donors < 3)).all()
    assert set(view.cells.label[view.cells.is_small]) == set(small.cell_type)


def test_seed_is_told(store, results):
    view = confusions(store, results.scope(), "logreg", seed=1)
    assert view.seed == 1
    assert "Seed 1 of 2 seeds is shown." in view.sentences[0]
    with pytest.raises(InputError, match="has no seed 7"):
        confusions(store, results.scope(), "logreg", seed=7)
    with pytest.raises(InputError, match='No series "gone"'):
        confusions(store, results.scope(), "gone")


def test_labels_that_cannot_be_output_and_predictions_that_are_not_labelled_are_kept(labelled):
    view = confusions(
        *labelled(["T"] * 6 + ["CLP"] * 4, ["T"] * 6 + ["NK"] * 4, classes=["NK", "T"]), "logreg"
    )
    labels = view.labels.set_index("cell_type")
    assert labels.n_folds_able.to_dict() == {"T": 2, "CLP": 0}
    assert labels.note["CLP"] == "the model cannot output this type"
    absent = view.predictions[view.predictions.is_absent]
    assert absent.cell_type.tolist() == ["NK"]
    text = " ".join(view.sentences)
    assert "cannot output CLP: no training fold has it (4 cells, all of them wrong)" in text
    assert "no cell here is labelled so: NK (4 cells)" in text


def test_all_correct_is_a_sentence(labelled):
    view = confusions(*labelled(["T", "B"] * 5, ["T", "B"] * 5), "logreg")
    assert view.sentences == ("**Logreg** calls all 10 labelled cells (4 donors) rightly.",)
    assert view.n_wrong == 0
    assert view.kinds.share_of_wrong.isna().all()


def test_all_wrong_is_a_sentence(labelled):
    view = confusions(*labelled(["T", "NK"] * 5, ["NK", "T"] * 5), "logreg")
    assert "is wrong on 10 of 10 labelled cells (100%; 4 donors)" in view.sentences[0]
    assert view.labels.n_right.tolist() == [0, 0]


def test_one_type_is_a_sentence(labelled):
    view = confusions(*labelled(["T"] * 8, ["T"] * 8), "logreg")
    assert "Every labelled cell is T; there is no other type" in view.sentences[1]


def test_no_scored_cell_is_a_sentence(store, results):
    view = confusions(store, results.scope(timepoints=("Healthy",), truth="mutant"), "logreg")
    assert view.n_cells == 0
    assert "has no scored cell in this choice" in view.sentences[0]
    assert view.cells.empty


def test_many_types(labelled):
    names = [f"type {i:03d}" for i in range(150)]
    view = confusions(*labelled(names * 2, names + names[1:] + names[:1]), "logreg")
    assert len(view.labels) == 150
    assert view.kinds.set_index("kind").n_cells["family unknown"] == 150
    assert "Most often: type 000 called" in " ".join(view.sentences)


def test_strange_labels_stay_text(labelled):
    shifted = [*STRANGE[1:], STRANGE[0]]
    view = confusions(*labelled(list(STRANGE) * 2, list(STRANGE) + shifted), "logreg")
    assert set(view.labels.cell_type) == set(STRANGE)
    text = " ".join(view.sentences)
    assert "<script>" not in text
    assert "[link](" not in text


@pytest.mark.parametrize("text", [*STRANGE, "a_b_c", "`code`", "# title", "1. one", ":material/x:"])
def test_plain_text_survives_markdown(text):
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": True}).render(plain(text))
    inner = html.removeprefix("<p>").rstrip().removesuffix("</p>")
    for name, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        assert sign not in inner.replace(name, "") or sign == "&"
        inner = inner.replace(name, sign)
    assert inner.replace("\u2060", "") == " ".join(text.split())


def test_disagreement_equals_a_count_by_hand(store, results):
    scope = results.scope(timepoints=("Diagnosis",))
    found = disagreement(store, scope, "logreg", "majority")
    ours, others = (judged_cells(store, scope, name) for name in ("logreg", "majority"))
    known = ours.label.notna() & ours.predicted.notna() & others.predicted.notna()
    right, other_right = ours.label == ours.predicted, others.label == others.predicted
    same = ours.predicted == others.predicted
    masks = (
        right & other_right, right & ~other_right, ~right & other_right,
        ~right & ~other_right & same, ~right & ~other_right & ~same,
    )  # fmt: skip
    for name, mask in zip(AGREEMENTS, masks, strict=True):
        chosen = ours[known & mask]
        row = found.totals.set_index("agreement").loc[name]
        assert (row.n_cells, row.n_donors) == (len(chosen), chosen.donor.nunique())
        of_type = found.types[found.types.agreement == name].set_index("cell_type").n_cells
        assert of_type.to_dict() == chosen.label.value_counts().to_dict()
    assert found.n_cells == known.sum()
    assert found.totals.share.sum() == pytest.approx(1)
    assert "both predict, only **Logistic regression" in found.sentence


def test_model_agrees_with_itself(store, results):
    found = disagreement(store, results.scope(), "logreg", "logreg")
    n = found.totals.set_index("agreement").n_cells
    assert n["only the first right"] == n["only the second right"] == 0
    assert n["both wrong, other types"] == 0


def test_models_without_a_cell_in_common_are_a_sentence(store, results):
    scope = results.scope(timepoints=("Healthy",), truth="mutant")
    found = disagreement(store, scope, "logreg", "majority")
    assert found.n_cells == 0
    assert found.sentence.startswith("No labelled cell has a prediction of both")
