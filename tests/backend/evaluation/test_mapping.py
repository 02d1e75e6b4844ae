from __future__ import annotations

import pytest

from backend.data.labels import EXPECTED_TYPES
from backend.errors import LabelError
from backend.evaluation.mapping import (
    _TERMS,
    _names,
    common_types,
    given_names,
    match_labels,
    ontology_version,
)

TYPES = tuple(name for name in EXPECTED_TYPES if name not in ("CLP", "Pre-B"))


def of(label, types=TYPES, **given):
    (match,) = match_labels({label: 3}, types, given=given or None)
    return match.cell_type, match.how


@pytest.mark.parametrize(
    ("label", "cell_type", "how"),
    [
        ("Mono", "Mono", "exact"),
        ("mono", "Mono", "spelling"),
        ("B cells", "B", "spelling"),
        ("pro-b", "ProB", "spelling"),
        ("NK_cell", "NK", "spelling"),
        ("HSC-like", "HSC", "normal counterpart"),
        ("Monocytes", "Mono", "synonym"),
        ("T lymphocyte", "T", "synonym"),
        ("normoblast", "lateEry", "synonym"),
        ("hemopoietic stem cell", "HSC", "synonym"),
        ("CL:0000576", "Mono", "synonym"),
        ("CL_0000576", "Mono", "synonym"),
        ("classical monocyte", "Mono", "narrower term"),
        ("CD14-positive monocyte", "Mono", "narrower term"),
        ("naive B cell", "B", "narrower term"),
        ("regulatory T cell", "T", "narrower term"),
        ("fibroblast", None, "none"),
        ("CL:9999999", None, "none"),
        ("Unknown", None, "none"),
        ("cluster 7", None, "none"),
    ],
)
def test_labels_find_their_type(label, cell_type, how):
    assert of(label) == (cell_type, how)


@pytest.mark.parametrize("label", ["CLP", "clp", "common lymphoid progenitor", "CL:0000051"])
def test_a_type_that_the_models_lack_is_not_replaced_by_another(label):
    """A lymphoid progenitor is below the progenitors, and would hide among them."""
    (match,) = match_labels({label: 12}, TYPES)
    assert (match.cell_type, match.term) == (None, "is CLP, which the models cannot output")
    assert of(label, (*TYPES, "CLP"))[0] == "CLP"


def test_a_term_far_away_says_so():
    (match,) = match_labels({"fibroblast": 12}, TYPES)
    assert match.term == "CL:0000057 fibroblast; not below any type of the models"


def test_a_fine_model_keeps_malignant_types_apart():
    types = ("Mono", "Mono-like", "T")
    assert of("Mono-like", types) == ("Mono-like", "exact")
    assert of("mono-like", types) == ("Mono-like", "spelling")


def test_equally_near_types_are_not_chosen_between():
    parents = ("glial cell", "central nervous system macrophage")
    (match,) = match_labels({"microglial cell": 1}, parents)
    assert match.how == "none"
    assert "equally near" in match.term


def test_where_rules_and_ontology_disagree_the_type_is_offered():
    parents = ("cytotoxic T cell", "alpha-beta T cell")
    (match,) = match_labels({"CD8-positive, alpha-beta cytotoxic T cell": 1}, parents)
    assert (match.cell_type, match.suggestion) == (None, "cytotoxic T cell")
    (match,) = match_labels({"late pro-B cell": 1}, ("ProB", "Pre-B"))
    assert (match.cell_type, match.suggestion) == (None, "ProB")


def test_the_users_choice_wins():
    matches = match_labels(
        {"Mono": 5, "blob": 9, "T": 7}, TYPES, given={"Mono": None, "blob": "cDC"}
    )
    assert [(m.label, m.cell_type, m.how) for m in matches] == [
        ("blob", "cDC", "chosen"),
        ("T", "T", "exact"),
        ("Mono", None, "chosen"),
    ]
    with pytest.raises(LabelError, match="cannot output Fibroblast"):
        match_labels({"blob": 1}, TYPES, given={"blob": "Fibroblast"})
    with pytest.raises(LabelError, match="no label blub"):
        match_labels({"blob": 1}, TYPES, given={"blub": "Mono"})


def test_words_of_the_command_line():
    assert given_names(["a=b=Mono", "x="]) == {"a=b": "Mono", "x": None}
    for words in (["Mono"], ["=Mono"], ["a=T", "a=B"]):
        with pytest.raises(LabelError, match="not LABEL=TYPE"):
            given_names(words)


def test_types_that_all_models_have():
    assert common_types([("B", "T", "NK"), ("NK", "B")]) == ("B", "NK")
    assert common_types([]) == ()


def test_our_abbreviations_are_terms_of_the_ontology():
    terms = set().union(*_names().values())
    assert set(_TERMS) == set(EXPECTED_TYPES)
    assert set(_TERMS.values()) <= terms
    assert len(set(_TERMS.values())) == len(_TERMS)
    assert "1.11.1" in ontology_version()
    assert "v20" in ontology_version()
