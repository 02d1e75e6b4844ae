"""What the labels of other studies mean: spelling rules, and a table of published vocabularies.

`vocabularies.csv` lists labels of the field's common vocabularies with their Cell Ontology term and
their type among `EXPECTED_TYPES`. A type in the column `suggestion` is doubtful: it is offered to
the user and never taken. Neither means that the label has no counterpart.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["ABSTAINED", "RULES", "Counterpart", "counterpart", "names_no_type", "tokens_of"]

RULES: Final = "spelling rules"
"""Source of what no table lists."""
ABSTAINED: Final = "unassigned"
"""What stands as the prediction of a cell that a model gave no type: it is none of the types."""

_NO_TYPE: Final = frozenset(
    [
        "unknown",
        "unclear",
        "unclassified",
        "unassigned",
        "undefined",
        "undetermined",
        "unlabeled",
        "unlabelled",
        "unannotated",
        "unresolved",
        "unspecified",
        "unsure",
        "uncertain",
        "unidentified",
        "notassigned",
        "notavailable",
        "none",
        "null",
        "nan",
        "na",
        "nd",
        "tbd",
        "other",
        "others",
        "rest",
        "doublet",
        "multiplet",
        "lowquality",
        "lowq",
        "poorquality",
        "ambiguous",
        "mixed",
        "mixture",
        "debris",
        "artifact",
        "artefact",
        "contaminant",
        "contamination",
        "filtered",
        "removed",
        "excluded",
        "background",
        "empty",
        "emptydroplet",
        "junk",
        "fail",
        "failed",
        "notype",
        "nolabel",
        "miscellaneous",
        "misc",
    ]
)
_NO_TYPE_PART: Final = re.compile(r"doublet|multiplet|lowqual|unassign|unclass|unknown")

_GREEK: Final = {
    "α": " alpha ",
    "β": " beta ",
    "γ": " gamma ",
    "δ": " delta ",
    "κ": " kappa ",
    "λ": " lambda ",
}

# One word for each thing, so that "Classical Monocytes" and "mono classical" are one label.
_ONE_WORD: Final = (
    (r"\b(?:gamma|g) (?:delta|d)\b|\bgammadelta\b", "gd"),
    (r"\bnatural killer t\b", "nkt"),
    (r"\bnatural killer\b", "nk"),
    (r"\bnk t\b", "nkt"),
    (r"\blymphoid primed multipotent progenitor\b", "lmpp"),
    (r"\beryth(?:ro|roid)? myeloid progenitor\b", "emp"),
    (r"\bearly erythroid progenitor\b", "early erythroid"),
    (r"\bnon switched\b", "nonswitched"),
    (r"\b(?:plasmacytoid|p) (?:dendritic|dc)\b", "pdc"),
    (r"\b(?:conventional|classical|myeloid|c|m) (?:dendritic|dc)\b|\bmdc\b", "cdc"),
    (r"\bdendritic\b", "dc"),
    (r"\bcdc ([123])\b|\bdc ([123])\b", r"cdc\1\2"),
    (r"\bdc([123])\b", r"cdc\1"),
    (r"\b(?:mucosal associated invariant t|mucosa associated invariant t)\b", "mait"),
    (r"\bnon classical\b", "nonclassical"),
    (r"\b(?:monocyte|monocytic)\b", "mono"),
    (r"\b(?:pro mono|promono|promonocyte)\b", "promono"),
    (r"\b(?:erythroid|ery)\b", "eryth"),
    (r"\b(?:bfu ?e|bfue)\b", "bfue"),
    (r"\b(?:cfu ?e|cfue)\b", "cfue"),
    (r"\b(?:pro eryth\w*|proeryth\w*)\b", "proerythroblast"),
    (r"\bh(?:a)?ematopoietic stem\b|\bhemopoietic stem\b|\bhsc mpp\b", "hsc"),
    (r"\bh(?:a)?ematopoietic stem (?:and )?progenitor\b", "hspc"),
    (r"\bmultipotent(?:ial)? progenitor\b", "mpp"),
    (r"\bgranulocyte (?:mono|macrophage) progenitor\b", "gmp"),
    (r"\bcommon lymphoid progenitor\b", "clp"),
    (r"\bcommon myeloid progenitor\b", "cmp"),
    (r"\bmegakaryocyte eryth progenitor\b", "mep"),
    (r"\bregulatory t\b|\bt regulatory\b|\bt reg\b|\btreg\b", "treg"),
    (r"\bfollicular helper t\b|\bt follicular helper\b", "tfh"),
    (r"\bcentral memory\b", "cm"),
    (r"\beffector memory\b", "em"),
    (r"\b(?:t cm|cm t|tcm)\b", "t cm"),
    (r"\b(?:t em|em t|tem)\b", "t em"),
    (r"\btn\b", "t naive"),
    (r"\bpre pro ?b\b|\bpreprob\b", "preprob"),
    (r"\bpro ?b\b", "prob"),
    (r"\bpre bi\b", "preb i"),
    (r"\bpre ?b\b", "preb"),
    (r"\bplasma b\b", "plasma"),
    (r"\bcycle\b|\bcycling\b|\bproliferat(?:ing|ive)\b|\bprolif\b|\bdividing\b", "cycling"),
    (r"\bfcgr3a\b", "cd16"),
)
_ONE_WORD_COMPILED: Final = tuple((re.compile(pattern), word) for pattern, word in _ONE_WORD)

# What may stand beside the head of a name without making it another type of ours.
_STATES: Final = frozenset(
    [
        "naive",
        "memory",
        "mem",
        "activated",
        "resting",
        "cycling",
        "circulating",
        "mature",
        "inflammatory",
        "exhausted",
        "human",
        "cell",
        "population",
        "subset",
        "cluster",
        "peripheral",
        "blood",
        "bone",
        "marrow",
        "normal",
        "healthy",
        "other",
        "stimulated",
    ]
)
_T_WORDS: Final = frozenset(
    [
        "cm",
        "em",
        "n",
        "m",
        "effector",
        "helper",
        "central",
        "alphabeta",
        "ab",
        "conventional",
        "conv",
        "resident",
        "tissue",
        "trm",
        "alpha",
        "beta",
        "type",
        "diff",
        "terminal",
        "vd1",
        "vd2",
        "non",
        "cd103",
        "cd25",
        "cd25neg",
        "cd127",
        "crtam",
        "pd1",
    ]
)
_HEADS: Final[dict[str, tuple[re.Pattern[str], frozenset[str]]]] = {
    "T": (
        re.compile(r"t|cd[348]t|gdt?|treg|tfh|mait|th\d+|helper\d+|tconv|dnt"),
        _T_WORDS | {"cd3", "cd4", "cd8", "cd8a", "gd", "cd45ra", "cd45ro", "il7r", "ccr7"},
    ),
    "CTL": (
        re.compile(r"ctl|temra"),
        _T_WORDS | {"t", "cd3", "cd4", "cd8", "cd8a", "cytotoxic", "temra", "gzmb", "gzmk"},
    ),
    "NK": (
        re.compile(r"nk|nkcell"),
        frozenset(
            [
                "cd56",
                "cd16",
                "cd56bright",
                "cd56dim",
                "cd56high",
                "cd56low",
                "cd16neg",
                "bright",
                "dim",
                "adaptive",
                "transitional",
            ]
        ),
    ),
    "B": (
        re.compile(r"b"),
        frozenset(
            [
                "cd19",
                "cd20",
                "cd27",
                "ms4a1",
                "switched",
                "unswitched",
                "nonswitched",
                "cd11c",
                "class",
                "follicular",
                "marginal",
                "zone",
                "transitional",
                "germinal",
                "center",
                "centre",
                "igd",
                "igm",
                "igg",
                "iga",
                "atypical",
                "intermediate",
                "immature",
                "kappa",
                "lambda",
            ]
        ),
    ),
    "Mono": (
        re.compile(r"mono"),
        frozenset(
            ["cd14", "cd16", "classical", "nonclassical", "intermediate", "lyz", "s100a8", "s100a9"]
        ),
    ),
    "cDC": (
        re.compile(r"cdc[123]?|dc|mregdc"),
        frozenset({"cd1c", "clec9a", "cd141", "cdc", "migratory"}),
    ),
    "pDC": (re.compile(r"pdc"), frozenset({"lilra4", "clec4c"})),
    "Plasma": (re.compile(r"plasma"), frozenset({"igg", "iga", "igm", "cd138", "kappa", "lambda"})),
    "Prog": (
        re.compile(r"cmp|lmpp|mep|emp|memp|mpp|progenitor"),
        frozenset({"mkery", "myly", "mk", "ery", "eryth", "my", "ly"}),
    ),
    "HSC": (re.compile(r"hsc"), frozenset({"mpp", "cd34", "lt", "st", "quiescent", "g", "csf"})),
    "GMP": (re.compile(r"gmp"), frozenset({"early", "late", "mono", "neut", "neutrophil"})),
    "CLP": (re.compile(r"clp"), frozenset()),
    "earlyEry": (re.compile(r"cfue|bfue|earlyeryth"), frozenset()),
    "lateEry": (re.compile(r"lateeryth"), frozenset()),
    "ProMono": (re.compile(r"promono"), frozenset({"early", "late"})),
    "ProB": (re.compile(r"prob"), frozenset({"early", "late", "vdj", "cd34"})),
    "Pre-B": (re.compile(r"preb"), frozenset({"large", "small", "cd34neg"})),
}
# A marker alone that names one lineage.
_MARKERS: Final = {
    "cd3": "T", "cd4": "T", "cd8": "T", "cd14": "Mono", "cd19": "B", "cd20": "B", "cd56": "NK",
    "cd138": "Plasma",
}  # fmt: skip


# Of these stages it is not agreed to which of our types they belong.
_DOUBTFUL: Final = {
    frozenset({"plasmablast"}): "Plasma",
    frozenset({"thymocyte"}): "T",
    frozenset({"preb", "i"}): "ProB",
    frozenset({"nkt"}): "T",
}


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What a label of another vocabulary means here.

    cell_type : one of `EXPECTED_TYPES`, or None
    suggestion : a type that may be meant, to be offered and not taken, or None
    term : its Cell Ontology id, or ""
    source : the vocabulary that lists it, or `RULES`
    """

    cell_type: str | None
    suggestion: str | None
    term: str
    source: str


def names_no_type(label: str) -> bool:
    """Say whether a label says that the cell has no type: "Unknown", "Doublet", "-" and the like."""
    folded = "".join(re.findall(r"\w+", _plain(label))).replace("_", "").removesuffix("s")
    folded = folded.removesuffix("cell")
    if not folded or folded in _NO_TYPE or f"{folded}s" in _NO_TYPE:
        return True
    return bool(_NO_TYPE_PART.search(folded))


def counterpart(label: str) -> Counterpart | None:
    """Return what a label means: by the table of vocabularies, else by the rules, else None."""
    tokens = tokens_of(label)
    if not tokens:
        return None
    found = _table().get(_key(tokens))
    if found is None and len(tokens) > 1 and tokens[-1].isdigit():
        found = _table().get(_key(tokens[:-1]))
    if found is not None:
        return found
    for words, suggestion in _DOUBTFUL.items():
        if words <= set(tokens):
            return Counterpart(None, suggestion, "", RULES)
    cell_type = _by_head(tuple(t for t in tokens if not t.isdigit()))
    return None if cell_type is None else Counterpart(cell_type, None, "", RULES)


def tokens_of(label: str) -> tuple[str, ...]:
    """Split a label into words, one spelling for each: no case, marks, plurals or cluster numbers.

    `11_CD14.Mono.1` gives ("cd14", "mono", "1"), `CD14-positive monocytes` ("cd14", "mono").
    """
    text = _plain(label)
    text = re.sub(r"(?<=\w)(?:\+|[ -]?pos(?:itive)?\b|hi\b)", " ", text)
    text = re.sub(r"(?<=\d)(?:[-−](?=$|[^a-z0-9])|[ -]?neg(?:ative)?\b)", "neg ", text)
    text = re.sub(r"(?<=[a-z])(?=cd\d)", " ", text)
    words = re.findall(r"[a-z0-9]+", text.replace("_", " "))
    while len(words) > 1 and re.fullmatch(r"c?\d+", words[0]):
        words = words[1:]
    words = [word for word in map(_singular, words) if word not in {"cell", "lymphocyte", "the"}]
    words = [re.sub(r"^(hsc|mpp|gmp|clp|mono|nk|b|t|n|m)(?:\d)$", r"\1", word) for word in words]
    text = " ".join(words)
    for pattern, word in _ONE_WORD_COMPILED:
        text = pattern.sub(word, text)
    return tuple(dict.fromkeys(text.split()))


def _plain(label: str) -> str:
    text = unicodedata.normalize("NFKC", label).casefold()
    for letter, name in _GREEK.items():
        text = text.replace(letter, name)
    text = unicodedata.normalize("NFKD", text)
    # Accents, and marks without width such as a byte-order mark.
    return "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Cf")).strip()


def _singular(word: str) -> str:
    if word.endswith("cells") or (word.endswith("cell") and len(word) > 4):
        word = word.removesuffix("s").removesuffix("cell") or "cell"
    if word == "dcs":
        return "dc"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _key(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Words in any order are one label: "Memory B" and "B memory"."""
    return tuple(sorted(tokens))


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, ...], Counterpart]:
    found: dict[tuple[str, ...], Counterpart] = {}
    path = Path(__file__).with_name("vocabularies.csv")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            entry = Counterpart(
                row["cell_type"] or None, row["suggestion"] or None, row["term"], row["vocabulary"]
            )
            found.setdefault(_key(tokens_of(row["label"])), entry)
    return found


def _by_head(tokens: tuple[str, ...]) -> str | None:
    """Return the type of a name made of one head and of words that do not change it."""
    words = [token for token in tokens if token not in _STATES]
    if len(words) == 1 and words[0] in _MARKERS:
        return _MARKERS[words[0]]
    if {"early", "eryth"} == set(words) or {"late", "eryth"} == set(words):
        words = ["".join(sorted(words, key="eryth".__eq__))]
    if {"cd8", "terminal", "effector"} <= set(words):
        words.append("temra")
    if "cytotoxic" in words and {"t", "cd8"} & set(words) and "naive" in tokens:
        words.remove("cytotoxic")
    found = {
        name
        for name, (head, beside) in _HEADS.items()
        if any(head.fullmatch(word) for word in words)
        and all(word in beside or head.fullmatch(word) for word in words)
    }
    if not found and "t" in words and "cytotoxic" in words:
        found = {"CTL"} if set(words) <= _HEADS["CTL"][1] else set()
    if not found and words and {"cd4", "cd8"} & set(words):
        found = {"T"} if set(words) <= _HEADS["T"][1] else set()
    if found == {"T", "CTL"} or (found == {"T"} and {"cd8", "effector"} <= set(words)):
        found = {"CTL"}
    return found.pop() if len(found) == 1 else None
