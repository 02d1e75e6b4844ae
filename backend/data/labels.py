"""Cell-type labels: lineage of malignant states, families, and where the truth came from."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from backend.data.vocabularies import counterpart
from backend.errors import LabelError
from backend.types import GENOTYPES, LABEL_SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "EXPECTED_TYPES",
    "FAMILIES",
    "chart_order",
    "family",
    "is_malignant_label",
    "normalise_genotype",
    "normalise_label_source",
    "not_labelled",
    "to_lineage",
]

_MALIGNANT_SUFFIX: Final = re.compile(r"(?<=\w)[-_. ]like$", re.IGNORECASE)

FAMILIES: Final = (
    "Stem and progenitor",
    "Erythroid",
    "Megakaryocytic",
    "Monocytic and dendritic",
    "B lineage",
    "T and NK",
    "Stromal",
    "Other",
)
"""Families in the order in which charts group cell types."""

_FAMILY_OF: Final = {
    "HSC": "Stem and progenitor",
    "Prog": "Stem and progenitor",
    "GMP": "Stem and progenitor",
    "CLP": "Stem and progenitor",
    "earlyEry": "Erythroid",
    "lateEry": "Erythroid",
    "ProMono": "Monocytic and dendritic",
    "Mono": "Monocytic and dendritic",
    "cDC": "Monocytic and dendritic",
    "pDC": "Monocytic and dendritic",
    "ProB": "B lineage",
    "Pre-B": "B lineage",
    "B": "B lineage",
    "Plasma": "B lineage",
    "T": "T and NK",
    "CTL": "T and NK",
    "NK": "T and NK",
}

EXPECTED_TYPES: Final = tuple(_FAMILY_OF)
"""Lineage types that a study of AML bone marrow asks about, CLP and Pre-B included."""

_FOLDED: Final = {name.casefold(): group for name, group in _FAMILY_OF.items()}
_PLACES: Final = {name: place for place, name in enumerate(_FOLDED)}

# Words in the labels of other studies, tried in this order against a lower-cased label whose dots
# and underscores are spaces.
_FAMILY_WORDS: Final = (
    ("Erythroid", r"eryth|\b(early|mid|late)?[ ._-]?ery\b|red blood|normoblast"),
    ("B lineage", r"\bb[ -]?cell|plasma ?(cell|blast)|\b(pre|pro)[ -]?b\b"),
    ("T and NK", r"\bt[ -]?cell|\bcd[48]\b|\btreg|natural killer|\bnkt?\b|\bctl\b"),
    ("Monocytic and dendritic", r"mono|dendritic|\b[cp]?dc[0-9]*\b|macrophage"),
    # Before stem cells: mesenchymal ones are none of blood.
    ("Stromal", r"mesenchym|strom|fibroblast|\bmsc\b|osteo|adipo|pericyte"),
    (
        "Stem and progenitor",
        r"\bhsc|\bhspc|stem|progenitor|\bprog\b|\b(cmp|gmp|mep|lmpp|clp|mpp)\b|\bearly baso",
    ),
    ("Megakaryocytic", r"megakaryo|\bmk\b|platelet"),
)

_LABEL_SOURCE_WORDS: Final = {
    "cluster": "clustering",
    "clusters": "clustering",
    "classification": "classifier",
    "predicted": "classifier",
    "manual": "expert",
    "annotator": "expert",
    "": "unknown",
}


def is_malignant_label(label: str) -> bool:
    """Say whether a fine label names a malignant state (`X-like`)."""
    return _MALIGNANT_SUFFIX.search(label) is not None


def to_lineage(label: str) -> str:
    """Return the normal counterpart of a fine label; a normal label is returned unchanged."""
    return _MALIGNANT_SUFFIX.sub("", label)


@lru_cache(maxsize=4_096)
def family(label: str) -> str:
    """Return the family of a cell type at any label level; unknown names give "Other"."""
    lineage = to_lineage(label).casefold()
    if lineage in _FOLDED:
        return _FOLDED[lineage]
    words = re.sub(r"[._]", " ", lineage)
    for name, pattern in _FAMILY_WORDS:
        if re.search(pattern, words):
            return name
    meant = counterpart(lineage)
    return _FAMILY_OF.get(meant.cell_type or "", "Other") if meant else "Other"


@lru_cache(maxsize=4_096)
def chart_order(label: str) -> tuple[int, int, str, str]:
    """Return what cell types are sorted by: family, maturation, name; `X-like` follows `X`.

    A type of another vocabulary stands where its counterpart does, one without a counterpart at
    the end of its family.
    """
    lineage = to_lineage(label)
    place = _PLACES.get(lineage.casefold())
    if place is None:
        meant = counterpart(lineage)
        place = _PLACES.get((meant.cell_type or "").casefold()) if meant else None
    return FAMILIES.index(family(label)), len(_PLACES) if place is None else place, lineage, label


def not_labelled(labels: Iterable[str]) -> tuple[str, ...]:
    """Name the expected types without a single label.

    A label set of another vocabulary (less than half of its types are expected ones) gives an
    empty tuple: nothing can be said about it.
    """
    seen = {to_lineage(label).casefold() for label in labels}
    known = seen & set(_FOLDED)
    if not seen or 2 * len(known) < len(seen):
        return ()
    return tuple(name for name in EXPECTED_TYPES if name.casefold() not in seen)


def normalise_label_source(value: str) -> str:
    """Return one of `LABEL_SOURCES` for a word that means it.

    Raises
    ------
    LabelError
        If the word is none of them.
    """
    word = value.strip().casefold()
    word = _LABEL_SOURCE_WORDS.get(word, word)
    if word not in LABEL_SOURCES:
        msg = f'Unknown label source "{value}".'
        raise LabelError(msg, f"Use one of: {', '.join(LABEL_SOURCES)}.")
    return word


def normalise_genotype(value: str) -> str:
    """Return one of `GENOTYPES`; anything else is `none`, because it proves nothing."""
    word = value.strip().casefold().replace("-", "_").replace(" ", "_")
    return word if word in GENOTYPES else "none"
