"""Rows of `var`: which of them are genes, and what their names are without decorations.

Files of several assays hold antibodies, hashtags, peaks or guides beside the genes. None of them is
a gene: they are left out of every model, depth and distance. Programs also decorate the names of
genes, with the genome (`GRCh38_CD34`), quotes, or two names in one (`ENSG00000174059|CD34`).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["GENE_KINDS", "KIND_COLUMNS", "kinds_by_name", "kinds_of", "undecorated"]

KIND_COLUMNS: Final = ("feature_types", "feature_type", "modality")
"""Columns of `var` that say what a row is; 10x and muon write them."""
GENE_KINDS: Final = frozenset(
    ["gene expression", "gene", "genes", "rna", "gex", "expression", "mrna"]
)

# Names of rows that are no genes, where no column says so. None of them is a human gene.
_KINDS_BY_NAME: Final = (
    (
        "peak",
        re.compile(r"(chr[0-9XYMTUn_a-z]+|[0-9]{1,2}|[XY])[:_-]\d{2,}[-_]\d{2,}", re.IGNORECASE),
    ),
    (
        "hashtag",
        re.compile(r"(hash(tag)?|hto|cmo|multiplexing)[ _.-]?[a-z]?[ _.-]?\d+.*", re.IGNORECASE),
    ),
    (
        "antibody",
        re.compile(
            r"anti[ _.-].+|.+[ _.-](totalseq|adt|ab|prot|protein|capture)[a-z]?|"
            r"(adt|ab|prot|protein)[ _.-].+|(mouse|rat|hamster)?[ _.-]?ig[gma]\d?[a-z]?[ _.-].*"
            r"(control|ctrl|isotype).*|isotype.*|.*_totalseq.*",
            re.IGNORECASE,
        ),
    ),
    (
        "guide",
        re.compile(
            r".+[ _.-](sgrna|grna|guide)[ _.-]?\d*|sg[A-Z0-9]{2,}[ _.-]\d+|non[ _.-]?targeting.*",
            re.IGNORECASE,
        ),
    ),
    ("mouse gene", re.compile(r"(mm10|mm39|grcm3[89])_+.+|ENSMUSG\d{11}(\.\d+)?", re.IGNORECASE)),
)

_BYTES: Final = re.compile(r"""b(['"])(.*)\1""")
_GENOME: Final = re.compile(
    r"(?:GRCh3[78]|hg19|hg38|b37|T2T|human|homo_sapiens)(?:[-.][\w.-]*?)?_+(?=\w)", re.IGNORECASE
)
_WITH_ID: Final = re.compile(r"(?:^|[|:;_\s(-])(ENSG\d{11}(?:\.\d+)?)(?=$|[|:;_\s)-])")
_INVISIBLE: Final = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060"))


def kinds_of(values: Sequence[str]) -> np.ndarray:
    """Return what each row is called by a column of kinds: "" for a gene.

    Parameters
    ----------
    values
        (n_rows,) of the column.

    Returns
    -------
    (n_rows,) str. All are "" when no row is called a gene: then the column says something else.
    """
    folded = np.array([str(value).strip().casefold() for value in values], dtype=object)
    is_gene = np.array([value in GENE_KINDS for value in folded], dtype=bool)
    if not is_gene.any():
        return np.full(len(folded), "", dtype=object)
    named = np.array([str(value).strip() or "nothing" for value in values], dtype=object)
    return np.where(is_gene, "", named)


def kinds_by_name(names: Sequence[str], is_known: Callable[[str], bool]) -> np.ndarray:
    """Return what each row is by its name: "" for what may be a gene.

    Parameters
    ----------
    is_known
        Says whether a name is a gene's; such a row is one whatever its name looks like.
    """
    kinds = np.full(len(names), "", dtype=object)
    for place, name in enumerate(names):
        for kind, pattern in _KINDS_BY_NAME:
            if pattern.fullmatch(name) and not is_known(name):
                kinds[place] = kind
                break
    return kinds


def undecorated(
    names: Sequence[str], is_known: Callable[[str], bool]
) -> tuple[list[str], tuple[str, ...]]:
    """Take off what programs put around the names of genes.

    Returns
    -------
    names
        In the same order; a name that is known as it stands is never changed.
    decorations
        What was taken off, as words for a note.
    """
    found: list[str] = []
    seen: Counter[str] = Counter()
    for name in names:
        if is_known(name):
            found.append(name)
            continue
        plain, what = _plain_name(name)
        if what and (is_known(plain) or "Ensembl" in what or "genome" in what):
            seen[what] += 1
            found.append(plain)
        else:
            found.append(name)
    return found, tuple(f"{what} ({n:,} names)" for what, n in seen.most_common())


def _plain_name(name: str) -> tuple[str, str]:
    """Return a name without its decorations, and what they were, "" for none."""
    text, what = name.translate(_INVISIBLE).strip(), ""
    if text != name:
        what = "blanks"
    if match := _BYTES.fullmatch(text):
        text, what = match[2], "b'…'"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text, what = text[1:-1].strip(), "quotes"
    if match := _GENOME.match(text):
        text, what = text[match.end() :], f"the genome {match[0].rstrip('_')}"
    if (match := _WITH_ID.search(text)) and match[1] != text:
        text, what = match[1], "a second name beside the Ensembl id"
    return text, what
