"""Words: lineages, families, label sources, roles and timepoints."""

from __future__ import annotations

import pytest

from backend.data.labels import (
    EXPECTED_TYPES,
    FAMILIES,
    chart_order,
    family,
    is_malignant_label,
    normalise_genotype,
    normalise_label_source,
    not_labelled,
    to_lineage,
)
from backend.data.roles import Roles, guess_roles, map_timepoint
from backend.errors import InputError, LabelError


@pytest.mark.parametrize(
    ("label", "lineage"),
    [("HSC-like", "HSC"), ("HSC", "HSC"), ("Mono-like", "Mono"), ("-like", "-like")],
)
def test_lineage(label, lineage):
    assert to_lineage(label) == lineage
    assert is_malignant_label(label) is (label != lineage)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("HSC-like", "Stem and progenitor"),
        ("CLP", "Stem and progenitor"),
        ("lateEry", "Erythroid"),
        ("cDC-like", "Monocytic and dendritic"),
        ("Pre-B", "B lineage"),
        ("CTL", "T and NK"),
        ("CD8+ T cell", "T and NK"),
        ("CD14 Monocyte", "Monocytic and dendritic"),
        ("naive B cell", "B lineage"),
        ("plasmablast", "B lineage"),
        ("erythroblast", "Erythroid"),
        ("hematopoietic stem cell", "Stem and progenitor"),
        ("early Ery", "Erythroid"),
        ("Very late", "Other"),
        ("artery", "Other"),
        ("unknown", "Other"),
        ("Stromal", "Stromal"),
        ("mesenchymal stem cell", "Stromal"),
        ("Prog_Mk", "Stem and progenitor"),
        ("Megakaryocytes/platelets", "Megakaryocytic"),
        ("Pre.B", "B lineage"),
        ("B naive", "B lineage"),
        ("Early.Eryth", "Erythroid"),
        ("Neutrophils", "Other"),
        ("", "Other"),
    ],
)
def test_family(label, expected):
    assert family(label) == expected


def test_every_expected_type_has_a_family():
    assert "Other" not in {family(name) for name in EXPECTED_TYPES} <= set(FAMILIES)


def test_charts_follow_families_and_maturation():
    mixed = ["Plasma", "T", "B", "HSC-like", "GMP", "Mesenchymal", "HSC", "Pre-B", "what", "ProB"]
    assert sorted(mixed, key=chart_order) == [
        "HSC", "HSC-like", "GMP", "ProB", "Pre-B", "B", "Plasma", "T", "Mesenchymal", "what",
    ]  # fmt: skip
    assert sorted(["Plasma", "B", "Pre.B"], key=chart_order) == ["Pre.B", "B", "Plasma"]


def test_not_labelled_names_what_is_missing():
    labels = [name for name in EXPECTED_TYPES if name not in ("CLP", "Pre-B")]
    assert not_labelled([*labels, "HSC-like"]) == ("CLP", "Pre-B")
    assert not_labelled(EXPECTED_TYPES) == ()


def test_not_labelled_says_nothing_about_another_vocabulary():
    assert not_labelled(["CD14 Monocyte", "CD8 T cell", "HSC"]) == ()
    assert not_labelled([]) == ()


def test_label_sources():
    assert normalise_label_source(" Manual ") == "expert"
    assert normalise_label_source("clusters") == "clustering"
    with pytest.raises(LabelError, match="oracle"):
        normalise_label_source("oracle")


def test_genotype_proves_only_what_it_says():
    assert normalise_genotype("Wildtype only") == "wildtype_only"
    assert normalise_genotype("probably") == "none"


def test_guessed_roles():
    roles = guess_roles(["Patient ID", "CellType", "Time_Point", "orig.ident", "dataset", "x"])
    assert roles.columns() == {
        "cell_type": "CellType",
        "donor": "Patient ID",
        "timepoint": "Time_Point",
        "study": "dataset",
        "sample": "orig.ident",
    }


def test_the_most_telling_column_wins():
    assert guess_roles(["label", "cell_type"]).cell_type == "cell_type"
    assert guess_roles(["cell_type_fine", "cell_type"]).cell_type == "cell_type_fine"


def test_nothing_is_guessed_from_nothing():
    assert guess_roles([]) == Roles()
    assert guess_roles(["percent_mito"]).columns() == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Healthy", "Healthy"),
        ("normal", "Healthy"),
        ("Dx", "Diagnosis"),
        ("D0", "Diagnosis"),
        ("at diagnosis", "Diagnosis"),
        ("post_treatment", "Post-treatment"),
        ("Complete Remission", "Post-treatment"),
        ("relapsed", "Relapse"),
        ("D29", None),
        ("D300", None),
        ("", None),
    ],
)
def test_timepoint_words(value, expected):
    assert map_timepoint(value) == expected


def test_given_timepoints_win():
    assert map_timepoint("D29", {"D29": "Relapse"}) == "Relapse"
    with pytest.raises(InputError, match="Remission"):
        Roles(timepoints={"D29": "Remission"})
