from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

import backend.data
from backend.data import vocabularies
from backend.data.labels import EXPECTED_TYPES
from backend.data.vocabularies import counterpart, names_no_type, tokens_of
from backend.evaluation.mapping import match_labels
from tests.backend.data.held_back import HELD_BACK

TABLE = Path(backend.data.__file__).with_name("vocabularies.csv")
with TABLE.open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))

# Labels of atlases that are not in the table: what the rules alone make of them.
OTHERS = {
    # Granja et al. 2019
    "01_HSC": "HSC", "02_Early.Eryth": "earlyEry", "03_Late.Eryth": "lateEry", "05_CMP.LMPP": "Prog",
    "07_GMP": "GMP", "09_pDC": "pDC", "10_cDC": "cDC", "11_CD14.Mono.1": "Mono", "13_CD16.Mono": "Mono",
    "15_CLP.2": "CLP", "16_Pre.B": "Pre-B", "17_B": "B", "18_Plasma": "Plasma", "19_CD8.N": "T",
    "20_CD4.N1": "T", "22_CD4.M": "T", "25_NK": "NK", "26_Unk": None, "04_Early.Baso": None,
    # Common habits of writing
    "CD14+": "Mono", "CD14-positive": "Mono", "CD4 T": "T", "HSC/MPP": "HSC", "HSC_MPP": "HSC",
    "Pro-B cells": "ProB", "pro_B": "ProB", "preB": "Pre-B", "B lymphocytes": "B", "NK-cells": "NK",
    "Tcells": "T", "CD8+ T-cells": "T", "CD4pos T cell": "T", "γδ T cells": "T", "gamma delta T": "T",
    "Naïve B": "B", "\u200bMonocytes": "Mono", "MONO": "Mono", "Mono_2": "Mono", "GMP1": "GMP",
    "CD16+ monocyte": "Mono", "intermediate monocytes": "Mono", "Th17": "T", "Tfh": "T", "Tregs": "T",
    "CD8 CTL": "CTL", "CD8 TEMRA": "CTL", "plasmacytoid dendritic cells": "pDC", "DC 2": "cDC",
    "conventional dendritic cell": "cDC", "activated CD8 T": "T", "NK CD56dim CD16+": "NK",
    "Erythroid (late)": "lateEry", "CFU-E": "earlyEry", "Switched memory B": "B", "IgA plasma": "Plasma",
    # Two types at once, other lineages, tissue: none is right
    "T/NK": None, "B/Plasma": None, "Myeloid": None, "Lymphoid": None, "CD16+": None, "Fibroblast": None,
    "Macrophage": None, "ILC2": None, "Stem cells": None, "3": None, "cluster 7": None, "AML blast": None,
    "Neutrophils": None, "Tumor": None, "Very low": None, "Mono/DC": None, "Endothelial": None,
}  # fmt: skip


def find(label, types=EXPECTED_TYPES):
    (match,) = match_labels({label: 1}, types)
    return match


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['vocabulary']}-{row['label']}")
def test_every_listed_label_is_found(row):
    match = find(row["label"])
    assert match.cell_type == (row["cell_type"] or None)
    if not row["cell_type"] and match.how == "none" and row["suggestion"]:
        assert match.suggestion == row["suggestion"]


@pytest.mark.parametrize(("label", "cell_type"), OTHERS.items())
def test_labels_of_other_vocabularies(label, cell_type):
    assert find(label).cell_type == cell_type


def found_and_wrong(rows):
    """Return the share of labels with a type that are found, and those that get another type."""
    found, wrong, n = 0, [], 0
    for label, cell_type in rows:
        right = (cell_type or "").split("|")
        match = find(label)
        n += bool(cell_type)
        found += bool(match.cell_type in right)
        if match.cell_type and match.cell_type not in right:
            wrong.append((label, match.cell_type))
    return found / n, wrong


def only_rows(monkeypatch, rows):
    """Let the table hold some of its rows only."""
    table = {
        vocabularies._key(tokens_of(row["label"])): vocabularies.Counterpart(
            row["cell_type"] or None, row["suggestion"] or None, row["term"], row["vocabulary"]
        )
        for row in reversed(rows)
    }
    monkeypatch.setattr(vocabularies, "_table", lambda: table)


def test_rules_alone_find_the_published_labels_and_none_is_wrong(monkeypatch):
    only_rows(monkeypatch, [])
    share, wrong = found_and_wrong((row["label"], row["cell_type"]) for row in ROWS)
    assert wrong == []
    assert share >= 0.95


def test_half_of_the_table_finds_the_other_half(monkeypatch):
    kept = set(random.Random(0).sample(range(len(ROWS)), len(ROWS) // 2))
    only_rows(monkeypatch, [ROWS[i] for i in sorted(kept)])
    others = [row for i, row in enumerate(ROWS) if i not in kept]
    share, wrong = found_and_wrong((row["label"], row["cell_type"]) for row in others)
    assert wrong == []
    assert share >= 0.95


def test_vocabularies_that_are_not_in_the_table():
    rows = [pair for labels in HELD_BACK.values() for pair in labels.items()]
    share, wrong = found_and_wrong(rows)
    assert wrong == []
    assert share >= 0.95


@pytest.mark.parametrize(
    "label",
    [
        "metamyelocyte",
        "plasmablast",
        "Eryth",
        "HSPC",
        "NKT cells",
        "late pro-B cell",
        "Pre-B I",
        "pre-BI cell",
        "IgG plasmablast",
        "Double-negative thymocytes",
    ],
)
def test_what_is_doubtful_is_offered_and_not_taken(label):
    assert find(label).cell_type is None


def test_a_suggestion_is_a_type_that_the_models_have():
    assert find("Plasmablasts").suggestion == "Plasma"
    assert find("Plasmablasts", ("B", "T", "NK")).suggestion is None


def test_writing_changes_nothing():
    """Case, plural, separators, cluster numbers and marks without width, drawn at random."""
    rng = random.Random(0)
    rows = [row for row in ROWS if row["cell_type"]]
    for row in rng.choices(rows, k=400):
        label = row["label"]
        words = label.split(" ")
        written = rng.choice([" ", "_", ".", "  "]).join(words)
        written = rng.choice([str, str.upper, str.lower])(written)
        written = (
            rng.choice(["", "7_", "12: ", "\ufeff"]) + written + rng.choice(["", " ", "\u200b"])
        )
        assert find(written).cell_type == row["cell_type"], (label, written)


def test_table_is_consistent():
    seen: dict[tuple[str, ...], tuple[str, str]] = {}
    for row in ROWS:
        assert not (row["cell_type"] and row["suggestion"])
        assert {row["cell_type"], row["suggestion"]} <= {"", *EXPECTED_TYPES}
        key = tuple(sorted(tokens_of(row["label"])))
        meaning = (row["cell_type"], row["suggestion"])
        assert seen.setdefault(key, meaning) == meaning, row


@pytest.mark.parametrize(
    "label",
    ["Unknown", "Doublets", "-", "Unclassified", "N/A", "nan", "", "?", "low quality cells", "Other",
     "not assigned", "unassigned", "Potential doublets", "NA", "None"],
)  # fmt: skip
def test_words_that_name_no_type(label):
    assert names_no_type(label)
    assert find(label).cell_type is None


@pytest.mark.parametrize("label", ["T cells", "Mono", "NK", "nonclassical monocyte", "B", "3"])
def test_words_that_may_name_a_type(label):
    assert not names_no_type(label)


def test_models_with_another_vocabulary_are_matched_by_term():
    types = ("HSC.MPP", "CD14.Mono", "CD16.Mono", "CD4.N", "B", "Pre.B")
    assert find("classical monocyte", types).cell_type in ("CD14.Mono", None)
    assert find("CD14+ Mono", types).cell_type == "CD14.Mono"
    assert find("CD4 Naive", types).cell_type == "CD4.N"
    assert find("pre B", types).cell_type == "Pre.B"
    assert find("NK", types).cell_type is None


@pytest.mark.parametrize("label", ["HSC-like", "HSC_like", "HSC-Like", "HSC.like"])
def test_malignant_states_have_a_normal_counterpart(label):
    assert find(label).cell_type == "HSC"


def test_nothing_is_made_of_nothing():
    assert counterpart("") is None
    assert counterpart("∅ — …") is None
