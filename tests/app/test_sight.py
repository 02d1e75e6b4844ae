"""What pictures and sentences of the first pages say: support in the picture, donors counted once."""

from __future__ import annotations

import pandas as pd
import pytest

from app.components import frames, heatmap
from app.components.course_lines import bars_words, course_lines
from app.components.frames import is_floor, outcome_sentence
from app.sections.blasts.charts import by_course, state_bars
from app.sections.blasts.words import blast_sentences
from app.sections.donors.rows import donor_sentence, laid_out
from app.sections.overview.words import dots_words
from app.sections.protocols.charts import _spread
from app.sections.protocols.words import gap_sentence, notes_in_words
from app.sections.timepoints.patients import change_sentences
from app.sections.timepoints.words import course_sentence
from backend.evaluation.metrics import METRICS
from tests.helpers import as_read


def scores(shares: list[float]) -> pd.DataFrame:
    names = ["Diagnosis", "Post-treatment"]
    return pd.DataFrame({
        "configuration": "logreg", "display_name": "L1", "metric": "sensitivity",
        "timepoint": names, "value": [0.4, 0.6], "low": [0.3, 0.5], "high": [0.5, 0.7],
        "interval": "jackknife", "n_donors": [9, 7], "n_cells": [600, 180],
        "top_donor_share": shares,
    })  # fmt: skip


def rows_of(chart) -> list[dict]:
    return next(iter(chart.to_dict()["datasets"].values()))


@pytest.mark.parametrize(("n_columns", "said"), [(2, "1,147 / 7 · ‡93%"), (9, "1,147 / 7")])
def test_the_largest_donors_share_stands_in_a_cell_with_room(n_columns, said):
    cells = pd.DataFrame({
        "cell_type": ["ProMono-like", "B"], "column": "Diagnosis", "f1": [0.2, float("nan")],
        "n_cells": [1147, 0], "n_donors": [7, 0], "top_donor_share": [0.93, float("nan")],
    })  # fmt: skip
    chart = heatmap.heatmap(
        cells, row="cell_type", column="column", rows=["ProMono-like", "B"],
        columns=["Diagnosis", *map(str, range(n_columns - 1))], row_title="", column_title="",
        dark=True,
    )  # fmt: skip
    first, empty = rows_of(chart)
    assert (first["value_text"], first["n_text"]) == ("0.20‡", said)
    # Without a label there is nothing to count, and no fill behind the text.
    assert (empty["value_text"], empty["n_text"]) == ("–", "")
    assert empty["ink"] not in ("black", "white")


@pytest.mark.parametrize(("share", "is_said"), [(0.8, True), (0.3, False)])
def test_a_timepoint_that_is_mostly_one_donor_says_so_at_its_axis(share, is_said):
    table = scores([0.2, share])
    chart = course_lines(table, table.head(0).assign(donor=""), timepoints=["Diagnosis", "Post-treatment"], dark=False)  # fmt: skip
    text = str(chart.to_dict())
    assert ("Post-treatment|7 donors|180 cells|80% one donor" in text) == is_said
    assert "Diagnosis|9 donors|600 cells'" in text


def test_a_state_that_is_mostly_one_donor_says_so_in_its_row():
    states = pd.DataFrame({
        "label": ["HSC-like", "GMP-like"], "called": "another normal type", "share": 1.0,
        "n_cells": [60, 30], "n_label": [60, 30], "n_label_donors": [7, 1],
        "label_top_donor_share": [0.8, 1.0],
    })  # fmt: skip
    text = str(state_bars(states, dark=False).to_dict())
    assert "HSC-like\\n60 cells, 7 donors\\n80% one donor's" in text
    assert "GMP-like\\n30 cells, 1 donor'" in text


def test_patients_stand_in_clinical_order_with_most_blasts_first():
    shares = pd.DataFrame({
        "timepoint": ["Post-treatment", "Diagnosis", "Diagnosis"], "donor": ["a", "b", "c"],
        "labelled_share": [0.9, 0.1, 0.5],
    })  # fmt: skip
    assert list(by_course(shares).donor) == ["c", "b", "a"]


def test_blasts_says_what_is_missing_and_whose_the_cells_are():
    said = blast_sentences(scores([0.2, 0.8]), missing=("Relapse",))
    assert (
        "60% of malignant cells are called normal (sensitivity 0.40, 0.30–0.50; 9 donors" in said[0]
    )
    assert "80% of the cells one donor's" in said[1]
    assert said[2].endswith("no data; nothing is filled in.")


def test_types_that_are_too_many_for_columns_stand_in_rows():
    donors, types = [f"d{i}" for i in range(30)], [f"t{i}" for i in range(60)]
    assert laid_out(donors, types)["rows"] == types
    assert laid_out(donors, types)["column"] == "donor_name"
    assert laid_out(donors, types[:15])["rows"] == donors


@pytest.mark.parametrize(
    ("n_donors", "height", "has_n"), [(24, 24 * 34, True), (30, 30 * 18, False)]
)
def test_rows_of_many_donors_stand_low(n_donors, height, has_n):
    donors = [f"d{i:02}" for i in range(n_donors)]
    cells = pd.DataFrame({"donor_name": donors, "cell_type": "B", "f1": 0.5, "n_cells": 40})
    chart = heatmap.heatmap(cells, **laid_out(donors, ["B"]), with_n=("n_cells",), dark=True)
    assert chart.height == height
    assert ("n_text" in rows_of(chart)[0]) == has_n
    # The support is always in the tooltip.
    assert "'title': 'Cells'" in str(chart.to_dict())


@pytest.mark.parametrize(("low", "is_said"), [(0.3, True), (float("nan"), False)])
def test_overview_explains_intervals_only_where_there_is_one(low, is_said):
    text = dots_words(pd.DataFrame({"low": [low, float("nan")]}), "95 % intervals: so.")
    assert ("95 % intervals" in text) == is_said
    assert ("there is no interval" in text) == (not is_said)
    assert ("Bars" in bars_words(pd.DataFrame({"low": [low]}))) == is_said


def test_a_change_says_over_which_types_before_its_numbers():
    changes = pd.DataFrame({
        "timepoint": ["Post-treatment"], "reference": "Diagnosis", "before": 0.5, "after": 0.82,
        "difference": 0.32, "low": float("nan"), "high": float("nan"), "n_donors": 2, "n_types": 1,
        "reason": "2 donors: no interval below 5",
    })  # fmt: skip
    (said,) = change_sentences(changes, METRICS["macro_f1"], "L1")
    assert as_read(said) == (
        "**L1**, 2 patients with both, over the 1 type labelled enough at both: macro-F1 0.50 at "
        "Diagnosis, 0.82 at Post-treatment, paired difference +0.32; 2 donors: no interval below 5."
    )


def test_a_donor_is_counted_once_over_timepoints():
    totals = pd.DataFrame({
        "donor": ["a", "a", "b"], "timepoint": ["Diagnosis", "Post-treatment", "Diagnosis"],
        "value": [0.5, 0.6, 0.7], "n_cells": [1, 50, 60], "metric": "macro_f1",
    })  # fmt: skip
    said = as_read(donor_sentence(totals, "L1"))
    assert "over 2 donors, each at its timepoints (3 scores)." in said
    assert "(a, Diagnosis, 1 cell)" in said


def test_models_stand_in_one_order_in_a_legend():
    table = scores([0.2, 0.2])
    both = pd.concat([table, table.assign(configuration="scgpt", display_name="scGPT")])
    chart = course_lines(both, table.head(0).assign(donor=""), timepoints=["Diagnosis", "Post-treatment"], models=["scGPT", "L1"], dark=False)  # fmt: skip
    assert "'sort': ['scGPT', 'L1']" in str(chart.to_dict())


def gaps(lows: list[float], highs: list[float]) -> pd.DataFrame:
    names = [f"m{i}" for i in range(len(lows))]
    return pd.DataFrame({
        "configuration": names, "display_name": names, "low": lows, "high": highs,
        "gap": [0.0 if low != low else (low + high) / 2 for low, high in zip(lows, highs, strict=True)],
        "n_donors": 17, "n_cells": 26784,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("lows", "highs", "said"),
    [
        ([0.02, 0.1, -0.01], [0.04, 0.3, 0.02], "For 2 of 3 models macro-F1 is higher on known than on new patients, by 0.03–0.20; their intervals exclude 0"),
        ([0.02, float("nan")], [0.04, float("nan")], "For 1 of 2 models"),
        ([0.02, 0.02], [0.04, 0.04], "by 0.03; their intervals"),
        ([-0.02, -0.3], [0.04, -0.1], "For none of 2 models is macro-F1 higher on known than on new patients by more than its interval; for 1 it is lower"),
    ],
)  # fmt: skip
def test_protocols_counts_a_gap_only_when_its_interval_excludes_0(lows, highs, said):
    text = gap_sentence(gaps(lows, highs), METRICS["macro_f1"])
    assert said in text
    assert text.endswith("(17 donors, 26,784 cells).")


def test_protocols_says_that_there_are_too_few_donors_for_an_interval():
    table = gaps([0.02, 0.1], [0.04, 0.3]).assign(low=float("nan"), high=float("nan"))
    text = gap_sentence(table, METRICS["macro_f1"])
    assert "0.03–0.20 over 2 models" in text
    assert "too few donors" in text


def test_what_holds_for_all_models_is_said_once():
    models = {"logreg": "L1", "hgb": "Boosting"}
    notes = ["logreg: sizes differ.", "hgb: sizes differ.", "hgb: one seed.", "One study."]
    assert (
        notes_in_words(notes, models) == "All models: sizes differ. Boosting: one seed. One study."
    )


def test_names_of_models_that_hold_a_comma_stay_apart():
    models = {"scgpt": "scGPT, scratch", "scbert": "scBERT, scratch", "hgb": "Boosting"}
    notes = ["scgpt: one seed.", "scbert: one seed."]
    assert as_read(notes_in_words(notes, models)) == "scGPT, scratch; scBERT, scratch: one seed."


def test_values_that_would_meet_stand_apart_around_their_mean():
    assert _spread([0.1, 0.60, 0.61, 0.9], gap=0.05) == pytest.approx([0.1, 0.58, 0.63, 0.9])


def test_the_majority_class_is_known_by_the_keys_of_uploads_too():
    keys = ["majority", "majority@fine", "majority-ab50e4", "majority_vote", "logreg-5e7abd"]
    assert is_floor(pd.Series(keys)).tolist() == [True, True, True, False, False]


def test_timepoints_says_what_models_reach_without_the_majority_class():
    table = scores([0.2, 0.2])
    other = table.assign(configuration="scgpt", display_name="scGPT", value=[0.3, 0.6])
    floor = table.assign(configuration="majority", display_name="Majority class", value=0.0)
    said = as_read(course_sentence(pd.concat([table, other, floor]), METRICS["macro_f1"]))
    assert said == (
        "**Macro-F1 of 2 models, the majority class left aside**: 0.30–0.40 at Diagnosis (9 donors, "
        "600 cells), 0.60 at Post-treatment (7 donors, 180 cells)."
    )
    assert as_read(course_sentence(floor, METRICS["macro_f1"])).startswith(
        "**Macro-F1 of Majority class**: 0.00 at Diagnosis"
    )


@pytest.mark.parametrize(
    ("threshold", "said"), [(0.51, "≥ 0.51"), (0.9961, "≥ 0.9961"), (0.99999, "above 0.9999")]
)
def test_the_failure_map_names_donors_and_never_rounds_a_threshold_to_1(threshold, said):
    counts = pd.DataFrame({"outcome": ["correct", "wrong"], "n_cells": [8, 2]})
    text = outcome_sentence(counts, "L1", threshold, n_donors=3)
    assert "2 of 10 labelled cells (20%; 3 donors)" in text
    assert f"(confidence {said})" in text


@pytest.mark.parametrize("is_upload", [False, True])
def test_cells_of_an_upload_are_not_called_unlabelled_because_they_are_not_scored(is_upload):
    counts = pd.DataFrame({"outcome": ["correct", "not scored"], "n_cells": [8, 3]})
    text = outcome_sentence(counts, "L1", 0.9, is_upload=is_upload)
    assert "Not scored: 3 cells without a label" in text
    assert ("with one that the models cannot output, or in training" in text) == is_upload


def test_a_lost_type_is_named_once_and_each_timepoint_with_what_happens_there(monkeypatch):
    written = []
    monkeypatch.setattr(frames.st, "markdown", written.append)
    lost = pd.DataFrame(
        [
            ("pDC", "Healthy", "F1 0", 39),
            ("pDC", "Post-treatment", "never predicted", 74),
            ("pDC", "Diagnosis", "never predicted", 28),
            ("Plasma", "Diagnosis", "F1 0", 211),
            ("Plasma", "Post-treatment", "F1 below 0.2", 813),
            ("GMP", "Diagnosis", "F1 below 0.2", 1333),
        ],
        columns=["cell_type", "timepoint", "kind", "n_cells"],
    ).assign(display_name="scGPT")
    frames.name_types(lost, by="kind")
    assert as_read(written[0]) == (
        "- **scGPT**: never predicted pDC (Diagnosis, Post-treatment; F1 0 at Healthy); "
        "F1 0 Plasma (Diagnosis; F1 below 0.2 at Post-treatment); F1 below 0.2 GMP (Diagnosis)"
    )
