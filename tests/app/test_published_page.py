"""Published: the study's two figures with its statements beside our scores."""

from __future__ import annotations

import pytest

from app import cache
from app.components import frames
from app.sections.published import charts
from backend.types import TIMEPOINTS
from tests.app.conftest import REAL, SIMULATED
from tests.app.test_pages import words


@pytest.fixture
def drawn(seen):
    """Return a function that gives the page's three pictures of a dataset, as rows of values."""

    def drawn(dataset):
        scope = seen("published", dataset=dataset).session_state["faultline.scope"]
        view, averages = cache.published(scope), cache.averages(scope)
        scores, types = view.by_timepoint.scores, view.by_type.scores
        pairs = dict(zip(scores.configuration, scores.display_name, strict=True))
        made = (
            charts.course_beside(
                scores, view.by_timepoint.donors, view.rows, timepoints=TIMEPOINTS,
                models=list(pairs.values()), has_lines=True, dark=False,
            ),
            charts.three_averages(
                averages, view.rows, timepoints=TIMEPOINTS,
                configurations=list(pairs.items()), dark=True,
            ),
            charts.types_beside(
                types, view.rows, rows=frames.in_order(types.cell_type, "cell_type"),
                models=list(pairs.values()), dark=False,
            ),
        )  # fmt: skip
        return [list(chart.to_dict()["datasets"].values()) for chart in made]

    return drawn


def texts_in(datasets):
    return {
        value
        for rows in datasets
        for row in rows
        for value in row.values()
        if isinstance(value, str)
    }


def test_what_is_published_is_drawn_and_said_to_be_another_run(seen, drawn):
    by_timepoint, averages, types = drawn(SIMULATED)
    said = texts_in(by_timepoint)
    assert "scGPT > 0.90, published, other run" in said
    assert "scGPT < 0.75|published, other run" in said
    (boxes,) = [rows for rows in by_timepoint if len(rows) == 2 and "floor" in rows[0]]
    assert [(row["x"], row["floor"], row["ceiling"]) for row in boxes] == [
        (0, 0.9, 1),
        (3, 0, 0.75),
    ]
    # The average of F1 is not stated, so the ranges stand at weighted and at macro-F1.
    (ranges,) = [rows for rows in averages if rows and "floor" in rows[0]]
    assert [row["x"] for row in ranges] == pytest.approx([4.7, 7.7, 9.4, 12.4])
    assert {"Accuracy", "Weighted F1", "Macro-F1"} <= texts_in(averages)
    assert {charts.PUBLISHED, "low", "high"} <= texts_in(types)
    shown = words(seen("published", dataset=SIMULATED))
    assert "published, other run" in shown
    assert "Naziri et al. 2025" in shown


def test_data_without_relapse_say_so(seen, drawn):
    app = seen("published", dataset=REAL)
    assert "Not in this dataset: Relapse, Pre.B. Nothing is filled in." in words(app)
    by_timepoint, averages, _ = drawn(REAL)
    assert "no data" in texts_in(by_timepoint)
    assert "no data" in texts_in(averages)
    table = app.dataframe[-1].value
    assert list(table.beside[table.of == "Relapse"]) == ["no cells of this timepoint"]
    assert {"Figure 2", "Figure 3"} == set(table.figure)
