"""Map the labels of a file to the types that a model can output.

Four ways are tried in this order: the same name; the same name but for case, marks and the word
"cell"; the field's published vocabularies and the rules by which their labels are written
(`backend.data.vocabularies`); and the Cell Ontology, by label, synonym or identifier, where a
narrower term counts as the nearest type above it. A doubtful find is offered as a suggestion. What
nothing finds is for the user to say, and not scored until then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal

from backend.data.labels import is_malignant_label, to_lineage
from backend.data.problems import some
from backend.data.vocabularies import RULES, Counterpart, counterpart, names_no_type
from backend.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "LabelMatch",
    "check_matches",
    "common_types",
    "given_names",
    "match_labels",
    "ontology_version",
]

How = Literal[
    "exact",
    "spelling",
    "normal counterpart",
    "vocabulary",
    "synonym",
    "narrower term",
    "chosen",
    "none",
]

_TERMS: Final = {
    "HSC": "CL:0000037",
    "Prog": "CL:0008001",
    "GMP": "CL:0000557",
    "CLP": "CL:0000051",
    "earlyEry": "CL:0000038",
    "lateEry": "CL:0000765",
    "ProMono": "CL:0000559",
    "Mono": "CL:0000576",
    "cDC": "CL:0000990",
    "pDC": "CL:0000784",
    "ProB": "CL:0000826",
    "Pre-B": "CL:0000817",
    "B": "CL:0000236",
    "Plasma": "CL:0000786",
    "T": "CL:0000084",
    "CTL": "CL:0000910",
    "NK": "CL:0000623",
}
"""Cell Ontology terms of the study's abbreviations, which are no names of the ontology."""

_OWN_TYPES: Final = {term: name for name, term in _TERMS.items()}
_BROAD: Final = "CL:0008001"
"""Precursor: so wide that what is merely below it is offered, not taken."""


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """What becomes of one label.

    cell_type : the model's type, or None: predicted, not scored
    how : the way it was found, or "chosen" by the user, or "none"
    term : the vocabulary or the term of the Cell Ontology that led there, or why there is none
    suggestion : a type that may be meant, for the user to take or leave
    """

    label: str
    n_cells: int
    cell_type: str | None
    how: How
    term: str = ""
    suggestion: str | None = None


def ontology_version() -> str:
    """Name the ontology that labels are looked up in."""
    package = "cellxgene-ontology-guide"
    return f"Cell Ontology {_parser_release()} ({package} {version(package)})"


def common_types(classes: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the types that every one of some models can output, in the order of the first."""
    answers = list(classes)
    shared = set(answers[0]).intersection(*answers[1:]) if answers else set()
    return tuple(name for name in answers[0] if name in shared) if answers else ()


def given_names(words: Iterable[str]) -> dict[str, str | None]:
    """Read `LABEL=TYPE` words; an empty type means "not scored".

    Raises
    ------
    LabelError
        If a word has no `=`, or a label is given twice.
    """
    given: dict[str, str | None] = {}
    for word in words:
        label, mark, cell_type = word.rpartition("=")
        if not mark or not label or label in given:
            msg = f'"{word}" is not LABEL=TYPE, or its label was given before.'
            raise LabelError(msg, 'Write each label once, for example "CD14+ Mono=Mono".')
        given[label] = cell_type or None
    return given


def match_labels(
    counts: Mapping[str, int],
    types: Sequence[str],
    *,
    given: Mapping[str, str | None] | None = None,
) -> tuple[LabelMatch, ...]:
    """Find the type of every label of a file.

    Parameters
    ----------
    counts
        Label → number of cells.
    types
        What the models can output.
    given
        The user's own choices, which win; None as a type leaves the label out of all scores.

    Returns
    -------
    One match a label, those of most cells first.

    Raises
    ------
    LabelError
        If `given` names a label that the file does not have, or a type that is none.
    """
    given = dict(given or {})
    if strange := sorted(set(given) - set(counts)):
        msg = f"The file has no label {some(strange)}. It has {some(counts)}."
        raise LabelError(msg, "Map labels of the file, written as they are there.")
    chosen = {cell_type for cell_type in given.values() if cell_type is not None}
    if strange := sorted(chosen - set(types)):
        msg = f"The models cannot output {some(strange)}. They can output {some(types, 20)}."
        raise LabelError(msg, "Choose one of their types, or leave the label out.")
    matcher = _Matcher(types)
    matches = []
    for label, n_cells in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if label in given:
            matches.append(LabelMatch(label, n_cells, given[label], "chosen"))
        else:
            matches.append(LabelMatch(label, n_cells, *matcher.find(label)))
    return tuple(matches)


def check_matches(matches: Sequence[LabelMatch], *, least_scored: float = 0.0) -> None:
    """Refuse labels of which none, or too few cells, have a type of the models.

    Raises
    ------
    LabelError
        With the labels that have none.
    """
    n = sum(match.n_cells for match in matches)
    n_mapped = sum(match.n_cells for match in matches if match.cell_type is not None)
    if not n or (n_mapped and n_mapped >= least_scored * n):
        return
    lost = [match.label for match in matches if match.cell_type is None]
    if not n_mapped:
        msg = f"None of the {len(matches):,} labels has a type that the models can output: {some(lost, 10)}."
        hint = "Map at least one of them, choose another column for the cell type, or predict only."
        raise LabelError(msg, hint)
    msg = (
        f"Only {n_mapped:,} of {n:,} labelled cells ({n_mapped / n:.0%}) have a label that the "
        f"models can output. Without a type: {some(lost, 10)}."
    )
    raise LabelError(
        msg, "Map more labels, or say that so few shall be scored: --few on the command line."
    )


class _Matcher:
    """The types of some models, ready to be looked up."""

    def __init__(self, types: Sequence[str]) -> None:
        self.types = tuple(types)
        self.by_spelling: dict[str, set[str]] = {}
        self.by_term: dict[str, set[str]] = {}
        for name in types:
            for word in _spellings(name):
                self.by_spelling.setdefault(word, set()).add(name)
            known = counterpart(name)
            term = _TERMS.get(name) or (known.term if known else None) or _only(_terms_named(name))
            if term is not None:
                self.by_term.setdefault(term, set()).add(name)

    def find(self, label: str) -> tuple[str | None, How, str, str | None]:
        """Return type, way, term and suggestion of one label."""
        if label in self.types:
            return label, "exact", "", None
        if names_no_type(label):
            return None, "none", "says that the type is not known", None
        found = self._find(label)
        if found[0] is None and is_malignant_label(label):
            normal = self._find(to_lineage(label))
            if normal[0] is not None:
                how: How = "normal counterpart" if normal[1] in ("exact", "spelling") else normal[1]
                return normal[0], how, *normal[2:]
            found = (*found[:3], normal[3])
        return found

    def _find(self, label: str) -> tuple[str | None, How, str, str | None]:
        if label in self.types:
            return label, "exact", "", None
        for word in _spellings(label):
            if name := _only(self.by_spelling.get(word, ())):
                return name, "spelling", "", None
        terms = _terms_named(label)
        term = _only(terms)
        if (known := counterpart(label)) is not None:
            listed = self._listed(known)
            by_name = self._by_term(term) if term is not None else listed
            is_contested = by_name[0] is not None and by_name[0] != listed[0]
            if known.source == RULES and is_contested and listed[0] is not None:
                shown = f"{by_name[2]} is {by_name[0]} by the ontology; not certain"
                return None, "none", shown, listed[0]
            # Where both agree, the term of the ontology says more than the name of a vocabulary.
            return by_name if by_name[0] == listed[0] is not None else listed
        if lacking := self._lacking(_OWN_TYPES.get(term or ""), term):
            return lacking
        if term is None:
            why = "several terms of the Cell Ontology" if terms else "no term of the Cell Ontology"
            return None, "none", why, None
        return self._by_term(term)

    def _listed(self, known: Counterpart) -> tuple[str | None, How, str, str | None]:
        """Return what an entry of a vocabulary means to these models."""
        suggestion = known.suggestion if known.suggestion in self.types else None
        # The rules name one of our types; its term leads to what other models call it.
        term = known.term or _TERMS.get(known.cell_type or "", "")
        if known.cell_type in self.types:
            return known.cell_type, "vocabulary", known.source, None
        if lacking := self._lacking(known.cell_type, term):
            return lacking
        if suggestion is not None or not term:
            return None, "none", f"{known.source}: not certain", suggestion
        found = self._by_term(term)
        # What the table holds without a type of ours is not below one of ours either.
        is_ours = known.cell_type is None and found[0] in _TERMS
        return (None, "none", found[2], None) if is_ours else found

    def _lacking(self, name: str | None, term: str | None) -> tuple[None, How, str, None] | None:
        """Refuse a type of its own that the models lack: it is not counted as the one above it."""
        if name is None or name in self.types or term in self.by_term:
            return None
        return None, "none", f"is {name}, which the models cannot output", None

    def _by_term(self, term: str) -> tuple[str | None, How, str, str | None]:
        shown = f"{term} {_parser().get_term_label(term)}"
        if name := _only(self.by_term.get(term, ())):
            return name, "synonym", shown, None
        above = _parser().get_term_ancestors_with_distances(term)
        distances = {t: distance for t, distance in above.items() if t in self.by_term}
        nearest = [t for t, d in distances.items() if d == min(distances.values())]
        names = {name for t in nearest for name in self.by_term[t]}
        if name := _only(names):
            if nearest == [_BROAD]:
                return None, "none", f"{shown}; not certain", name
            return name, "narrower term", shown, None
        why = f"; {some(names)} are equally near" if names else "; not below any type of the models"
        return None, "none", shown + why, None


def _only(names: Iterable[str]) -> str | None:
    listed = list(names)
    return listed[0] if len(listed) == 1 else None


def _folded(text: str) -> str:
    """Drop case, marks and plurals: "Pro-B cells" and "ProB cell" are one."""
    words = re.findall(r"[a-z0-9+]+", text.casefold())
    return "".join(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words)


def _spellings(text: str) -> tuple[str, ...]:
    folded = _folded(text)
    short = folded.removesuffix("cell")
    return (folded, short) if short and short != folded else (folded,)


@lru_cache(maxsize=1)
def _parser() -> Any:
    from cellxgene_ontology_guide.ontology_parser import OntologyParser

    return OntologyParser()


def _parser_release() -> str:
    return str(_parser().cxg_schema.supported_ontologies["CL"]["version"])


@lru_cache(maxsize=1)
def _names() -> dict[str, frozenset[str]]:
    """Return folded label or synonym → terms; labels before synonyms, deprecated terms left out."""
    parser = _parser()
    labels: dict[str, set[str]] = {}
    synonyms: dict[str, set[str]] = {}
    for label, term in parser.get_term_label_to_id_map("CL").items():
        if parser.is_term_deprecated(term):
            continue
        labels.setdefault(_folded(label), set()).add(term)
        for synonym in parser.get_term_synonyms(term):
            synonyms.setdefault(_folded(synonym), set()).add(term)
    merged = synonyms | labels
    return {name: frozenset(terms) for name, terms in merged.items()}


def _terms_named(label: str) -> frozenset[str]:
    """Return the terms that a label may mean: by identifier, or by name with or without "cell"."""
    if match := re.fullmatch(r"\s*CL[:_](\d{7})\s*", label):
        term = f"CL:{match[1]}"
        return frozenset({term}) if term in set().union(*_names().values()) else frozenset()
    folded = _folded(label)
    return _names().get(folded) or _names().get(f"{folded}cell") or frozenset()
