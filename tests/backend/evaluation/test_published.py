"""What a study reports beside what is found: the table, its words and what is judged."""

from __future__ import annotations

import math

import pytest

from app.sections.published.words import beside_sentences, rows_in_words
from backend.evaluation.published import STUDIES, Statement, statements
from backend.evaluation.views import NOT_RUN, f1_by_cell_type, published, scores_by_timepoint
from tests.helpers import draw_cells, open_store, write_results


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Four timepoints and CLP, under scGPT and a baseline."""
    root = tmp_path_factory.mktemp("published")
    models = {"scgpt": ("scGPT", (0,)), "logreg": ("Logistic regression (L1)", (0,))}
    return write_results(root, models=models, fine=(), failed=(), protocols=("donor",))


@pytest.fixture(scope="module")
def course_store(course):
    opened = open_store(course.root)
    yield opened
    opened.close()


def said_of(view):
    """Return the sentences as a reader sees them."""
    return [text.replace("\\", "").replace("\u2060", "") for text in beside_sentences(view)]


def test_the_table_holds_what_the_study_says_and_nothing_else():
    said = {
        (one.figure, one.model, one.timepoint or one.cell_type, one.text) for one in statements()
    }
    assert said == {
        ("2", "scgpt", "Healthy", "> 0.90"),
        ("2", "scgpt", "Relapse", "< 0.75"),
        ("3", "", "CLP", "low"),
        ("3", "", "Pre.B", "low"),
        ("3", "", "B", "high"),
    }
    for one in statements():
        assert one.study in STUDIES
        assert bool(one.timepoint) != bool(one.cell_type)
        assert one.note
        assert (one.value is None) == (one.relation in ("low", "high"))


def test_limits_are_those_of_the_words():
    made = [
        Statement("naziri2025", "2", "", "", "Healthy", "", "F1", *rest, "")
        for rest in (("above", 0.9), ("below", 0.75), ("low", None))
    ]
    assert [one.limits for one in made] == [(0.9, 1.0), (0.0, 0.75), None]


def test_our_scores_stand_beside_the_statements(course, course_store):
    view = published(course_store, course.scope())
    rows = view.rows
    scores = scores_by_timepoint(course_store, course.scope()).scores
    for timepoint, limit, is_above in (("Healthy", 0.90, True), ("Relapse", 0.75, False)):
        (row,) = rows[rows.timepoint == timepoint].itertuples()
        mine = scores[(scores.timepoint == timepoint) & (scores.configuration == "scgpt")]
        assert row.display_name == "scGPT"
        assert row.value == mine.value.item()
        assert (row.low, row.high) == pytest.approx((mine.low.item(), mine.high.item()))
        assert (row.n_donors, row.n_cells) == (mine.n_donors.item(), mine.n_cells.item())
        is_within = row.value > limit if is_above else row.value < limit
        assert row.beside == ("within" if is_within else "not within")
    types = f1_by_cell_type(course_store, course.scope()).scores
    for cell_type in ("CLP", "B"):
        mine = rows[rows.cell_type == cell_type]
        assert set(mine.display_name) == {"scGPT", "Logistic regression (L1)"}
        assert set(mine.beside) == {"no number was published"}
        assert sorted(mine.value) == sorted(types.f1[types.cell_type == cell_type])
    (absent,) = rows[rows.cell_type == "Pre.B"].itertuples()
    assert absent.beside == "not labelled in this dataset"
    assert math.isnan(absent.value)
    assert view.absent == ("Pre.B",)


def test_sentences_give_both_sides_with_their_support(course, course_store):
    first, absent = said_of(published(course_store, course.scope()))
    assert "scGPT at Healthy: > 0.90 published, macro-F1 0." in first
    assert "6 donors, " in first
    assert absent == "Not in this dataset: Pre.B. Nothing is filled in."


def test_what_a_dataset_lacks_is_said(small, small_store):
    """Three Healthy donors, two at Relapse, and no scGPT."""
    view = published(small_store, small.scope())
    said = " ".join(said_of(view))
    assert "speaks of scGPT, which was not run here." in said
    assert "Not in this dataset: Pre.B." in said
    assert set(view.rows.beside[view.rows.model == "scGPT"]) == {NOT_RUN}
    only = published(small_store, small.scope(timepoints=("Healthy", "Diagnosis")))
    assert only.absent == ("Relapse", "Pre.B")
    assert "Not in this dataset: Relapse, Pre.B." in " ".join(said_of(only))


def test_a_type_is_found_whatever_marks_its_name_has(tmp_path):
    cells = draw_cells(samples={"Healthy": 3, "Diagnosis": 4}, cells_per_sample=60)
    for column in ("cell_type_fine", "cell_type_lineage"):
        cells[column] = cells[column].replace({"GMP": "Pre-B"})
    made = write_results(
        tmp_path, cells=cells, models={"logreg": ("L1", (0,))}, fine=(), protocols=("donor",)
    )
    store = open_store(tmp_path)
    rows = published(store, made.scope()).rows
    (row,) = rows[rows.cell_type == "Pre-B"].itertuples()
    assert row.n_cells > 0
    store.close()


def test_rows_for_a_table_name_what_they_speak_of(course, course_store):
    rows = rows_in_words(published(course_store, course.scope()).rows)
    assert list(rows.of[:2]) == ["Healthy", "Relapse"]
    assert set(rows.figure) == {"Figure 2", "Figure 3"}
    assert set(rows.model) == {"scGPT", "all models"}
