import numpy as np
import pytest

from backend.evaluation.intervals import Estimate
from backend.evaluation.wording import (
    TimepointScore,
    budget_meaning,
    budget_text,
    cautions,
    difference_text,
    gap_sentence,
    init_text,
    label_sources_text,
    number,
    protocol_sentence,
    range_text,
    score_text,
    series_sentence,
    signed,
)

NONE = (np.nan, np.nan, "none")
HEALTHY = Estimate(0.71, *NONE, 3, "3 donors: no interval below 5")
DIAGNOSIS = Estimate(0.66, 0.58, 0.74, "jackknife", 13)
UNTESTED = Estimate(-0.05, *NONE, 3, "3 donors at Healthy: no interval below 5")
SOURCES = {"Healthy": ("clustering",), "Diagnosis": ("classifier",)}


def sentence(*scores: TimepointScore, **options) -> str:
    defaults = {
        "metric": "macro-F1",
        "types": "12 of 15 types",
        "label_sources": label_sources_text(SOURCES),
        "simulated": False,
    }
    return series_sentence("logreg", scores, **(defaults | options))


def test_the_sentence_of_the_first_page():
    text = sentence(
        TimepointScore("Healthy", HEALTHY, 939),
        TimepointScore("Diagnosis", DIAGNOSIS, 8113, difference=UNTESTED),
    )
    assert text == (
        "`logreg`: macro-F1 Healthy 0.71 (3 donors, 939 cells; no interval) vs "
        "Diagnosis 0.66 (0.58–0.74; 13 donors, 8,113 cells); 12 of 15 types. "
        "Difference −0.05; too few Healthy donors to test. "
        "Label sources differ: Healthy from clustering; Diagnosis from a classifier."
    )


def with_difference(value: float, low: float, high: float, kind: str = "jackknife") -> str:
    return sentence(
        TimepointScore("Healthy", Estimate(0.8, 0.7, 0.9, "jackknife", 12), 900),
        TimepointScore("Relapse", DIAGNOSIS, 800, difference=Estimate(value, low, high, kind, 12)),
    )


def test_loses_is_said_only_when_the_interval_excludes_0():
    assert "Against Healthy: Relapse loses 0.29 (0.20–0.38)." in with_difference(-0.29, -0.38, -0.2)
    assert "Relapse gains 0.10 (0.01–0.19)" in with_difference(0.1, 0.01, 0.19)
    text = with_difference(-0.1, -0.21, 0.01)
    assert "Difference −0.10 (−0.21 to 0.01; the interval includes 0)." in text
    assert "loses" not in text


def test_few_donors_are_marked():
    few = Estimate(0.6, 0.4, 0.8, "few donors", 7)
    assert score_text(few, n_cells=1) == "0.60 (0.40–0.80; few donors: 7, 1 cell)"
    assert "few donors" in with_difference(-0.29, -0.38, -0.2, "few donors")


def test_more_than_two_timepoints_are_each_set_against_the_first():
    score = Estimate(0.8, 0.7, 0.9, "jackknife", 12)
    text = sentence(
        TimepointScore("Healthy", score, 900),
        TimepointScore(
            "Diagnosis", score, 900, difference=Estimate(0.0, -0.1, 0.1, "jackknife", 12)
        ),
        TimepointScore(
            "Relapse", score, 900, difference=Estimate(-0.3, -0.4, -0.2, "jackknife", 12)
        ),
    )
    assert "Against Healthy: Diagnosis 0.00 (−0.10 to 0.10; the interval includes 0); " in text
    assert "Relapse loses 0.30 (0.20–0.40)." in text


def test_a_simulated_dataset_is_called_simulated():
    assert sentence(TimepointScore("Healthy", HEALTHY, 9), simulated=True).startswith(
        "`logreg` on *simulated* data:"
    )


def test_an_incomplete_series_has_no_number():
    text = sentence(is_complete=False, status="3 of 5 folds, 1 failed")
    assert text == "`logreg`: 3 of 5 folds, 1 failed; no headline number."


def test_a_timepoint_with_two_donors_is_dots_only():
    nothing = Estimate(np.nan, *NONE, 2, "2 donors: shown as dots, does not set the panel")
    text = sentence(
        TimepointScore("Healthy", HEALTHY, 939),
        TimepointScore("Relapse", nothing, 40, is_dots_only=True),
    )
    assert "Relapse has 2 donors, shown as dots only." in text
    assert "no score" not in text
    alone = sentence(TimepointScore("", nothing, 40, is_dots_only=True))
    assert "The dataset has 2 donors, shown as dots only." in alone


def test_without_a_panel_there_is_no_number():
    nothing = Estimate(np.nan, *NONE, 6, "no type can be compared")
    text = sentence(TimepointScore("Healthy", nothing, 9), types="0 of 4 types")
    assert "`logreg`: no macro-F1, 0 of 4 types can be compared." in text


def test_seeds_and_the_truth_switch_are_named():
    text = sentence(TimepointScore("Healthy", HEALTHY, 9), n_seeds=3, truth="mutant")
    assert "mean of 3 seeds; 12 of 15 types; cells with a mutant transcript only." in text


def test_labels_of_one_source_are_named_once():
    assert label_sources_text({"a": ("expert",), "b": ("expert",)}) == "Labels come from an expert."
    assert label_sources_text({}) == ""
    both = label_sources_text({"a": ("clustering", "classifier"), "b": ("unknown",)})
    assert both == (
        "Label sources differ: a from a classifier and clustering; b from an unknown source."
    )


def test_simulated_label_sources_are_called_simulated():
    assert label_sources_text(SOURCES, simulated=True).startswith(
        "Label sources differ (simulated):"
    )
    assert label_sources_text({"a": ("expert",)}, prefix=False, simulated=True) == (
        "from an expert (simulated)"
    )


def test_the_caution_follows_from_source_and_label_source():
    (caution,) = cautions("GEO GSE116256", SOURCES)
    assert caution == (
        "AML labels are classifier calls from the same expression: "
        "F1 here is agreement with a random forest."
    )
    assert cautions("GEO GSE116256", {"Healthy": ("clustering",)}) == ()
    assert cautions("simulated", SOURCES)[0].endswith("agreement with that classifier.")
    (caution,) = cautions("Zenodo 5931689", SOURCES)
    assert "all studies but Granja 2019" in caution
    assert caution.endswith("agreement with SingleR with a healthy reference.")


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [
        (0.704, "0.70", "+0.70"),
        (-0.05, "−0.05", "−0.05"),
        (-0.001, "0.00", "0.00"),
        (0.0, "0.00", "0.00"),
    ],
)
def test_numbers_have_two_digits_and_a_true_minus(value, plain, with_sign):
    assert (number(value), signed(value)) == (plain, with_sign)


def test_ranges_with_a_negative_end_are_spelt_out():
    assert range_text(0.1, 0.2) == "0.10–0.20"
    assert range_text(-0.1, 0.2) == "−0.10 to 0.20"


def test_a_difference_that_cannot_be_tested_says_why():
    assert difference_text("Relapse", "Healthy", UNTESTED).endswith(
        "too few Healthy donors to test"
    )
    flat = Estimate(0.0, *NONE, 12, "no spread between donors")
    assert difference_text("Relapse", "Healthy", flat) == "Relapse 0.00; no spread between donors"


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        (Estimate(0.1, 0.02, 0.18, "jackknife", 12), "It loses 0.10 (0.02–0.18) on new patients."),
        (
            Estimate(-0.1, -0.18, -0.02, "jackknife", 12),
            "It gains 0.10 (0.02–0.18) on new patients.",
        ),
        (
            Estimate(-0.1, -0.2, 0.1, "jackknife", 12),
            "Gap −0.10 (−0.20 to 0.10; the interval includes 0).",
        ),
        (
            Estimate(0.1, *NONE, 4, "4 donors: no interval below 5"),
            "Gap +0.10; 4 donors: no interval",
        ),
    ],
)
def test_a_gap_is_worded_by_its_interval_and_never_clipped(gap, said):
    text = gap_sentence(
        "hgb", 0.7, 0.6, gap, metric="macro-F1", types="9 of 9 types", n_cells=100, simulated=False
    )
    assert text.startswith("`hgb`: macro-F1 0.70 on known patients and 0.60 on new patients (")
    assert said in text


def test_a_model_says_what_it_starts_from():
    assert (
        init_text(preset=None, init="scratch", checkpoint=None) == "fitted on training cells only"
    )
    assert "published weights not used" in init_text(
        preset="scgpt.small", init="scratch", checkpoint=None
    )
    assert init_text(preset="x", init="frozen", checkpoint="whole").endswith("(whole)")
    # Nobody here knows what an imported model was fitted on.
    assert init_text(preset=None, init="scratch", checkpoint=None, is_imported=True) == "not known"
    own = init_text(
        preset="x",
        init="pretrained",
        checkpoint="mine",
        display_name="X small, pretrained in-house",
    )
    assert "(mine)" in own
    assert "published weights not used" in own


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ("cap300", "at most 300 training cells a patient"),
        ("cap1", "at most 1 training cell a patient"),
        ("cap12000", "at most 12,000 training cells a patient"),
        ("equal", "equal training size"),
        ("full", "all training cells"),
        ("some", "some"),
    ],
)
def test_a_training_size_is_said_in_plain_words(budget, text):
    assert budget_text(budget) == text
    assert "cap" not in budget_meaning(budget)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("donor", "Tested on new patients (donor-held-out: "),
        ("random", "Tested on known patients (random: "),
        ("external", "Tested on another dataset (external: "),
    ],
)
def test_a_protocol_is_said_in_plain_words_before_its_name(protocol, said):
    assert protocol_sentence(protocol).startswith(said)
