"""Gene names: Ensembl ids (with or without version) and old symbols to current symbols.

The current names are those of GENCODE v44, which the package `celltypist` ships as a table. Old
symbols come from `old_symbols.csv` beside this module.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from backend.data.features import kinds_by_name
from backend.data.problems import Refusal
from backend.errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scipy.sparse import csr_matrix

__all__ = ["GeneMap", "GeneTable", "gene_table", "is_known_gene", "map_genes", "strip_version"]

_ENSEMBL: Final = re.compile(r"^(ENS[A-Z]*G\d{11})(\.\d+)?(_PAR_Y)?$")
_MADE_UNIQUE: Final = re.compile(r"^(.+)-\d+$")
SMALLEST_SHARE_MATCHED: Final = 0.01
"""Below this share of known names nothing of the file can be trusted to be a human gene."""


@dataclass(frozen=True, slots=True)
class GeneTable:
    """Current human gene names.

    symbol_of : Ensembl id without version → symbol
    ensembl_of : symbol → Ensembl id (the first of the table where a symbol has several)
    current_of : old symbol → current symbol
    """

    symbol_of: Mapping[str, str]
    ensembl_of: Mapping[str, str]
    current_of: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GeneMap:
    """How the genes of a file become genes of a dataset.

    symbols : (n_out,) unique symbols, in order of first appearance
    ensembl : (n_out,) Ensembl id or ""
    target : (n_in,) int32, the place of each input gene in `symbols`; -1 for what is no gene
    n_matched : input genes known to the table
    n_renamed : of these, input genes that had an old or altered symbol
    id_kind : "symbol", "ensembl" or "symbol and ensembl"
    unmatched : some input names that are unknown
    left_out : kind ("antibody", …) → names of input rows that are no genes
    """

    symbols: tuple[str, ...]
    ensembl: tuple[str, ...]
    target: np.ndarray
    n_matched: int
    n_renamed: int
    id_kind: str
    unmatched: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def n_genes_in(self) -> int:
        """Input rows that are genes."""
        return len(self.target) - sum(map(len, self.left_out.values()))

    @property
    def n_summed(self) -> int:
        """Input genes that joined another one."""
        return self.n_genes_in - len(self.symbols)

    @property
    def is_identity(self) -> bool:
        """Whether every gene stays its own, in place."""
        return not self.left_out and len(self.target) == len(self.symbols)

    def apply(self, counts: csr_matrix) -> csr_matrix:
        """Sum the columns of cells × input genes that became one gene; drop what is no gene."""
        from scipy.sparse import csr_matrix

        if self.is_identity:
            return counts
        n = len(self.symbols)
        merged = csr_matrix(
            # What is no gene goes to a column of its own at the end, which is cut off.
            (counts.data, np.where(self.target < 0, n, self.target)[counts.indices], counts.indptr),
            shape=(counts.shape[0], n + 1),
            copy=True,
        )
        merged.sum_duplicates()
        return merged[:, :n]


def strip_version(name: str) -> str | None:
    """Return an Ensembl gene id without its version, or None for any other name."""
    match = _ENSEMBL.match(name)
    return match[1] if match else None


@lru_cache(maxsize=1)
def gene_table() -> GeneTable:
    """Read the gene names once per process.

    Raises
    ------
    ModelUnavailable
        If `celltypist`, which ships the table, is not installed.
    """
    package = importlib.util.find_spec("celltypist")
    if package is None or package.origin is None:
        msg = "The gene table of GENCODE v44 is missing: the package celltypist is not installed."
        raise ModelUnavailable(msg, "Install the packages of requirements.txt.")
    table = Path(package.origin).parent / "data" / "samples" / "GENCODEv44_Gene_id2name.csv"
    symbol_of: dict[str, str] = {}
    ensembl_of: dict[str, str] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for ensembl, symbol in csv.reader(file):
            symbol_of[ensembl] = symbol
            ensembl_of.setdefault(symbol, ensembl)
    with Path(__file__).with_name("old_symbols.csv").open(encoding="utf-8", newline="") as file:
        current_of = {
            row["old"]: row["current"]
            for row in csv.DictReader(file)
            if row["old"] not in ensembl_of and row["current"] in ensembl_of
        }
    return GeneTable(symbol_of, ensembl_of, current_of)


def map_genes(
    names: Sequence[str],
    ensembl: Sequence[str] | None = None,
    *,
    kinds: Sequence[str] | None = None,
    any_genes: bool = False,
) -> GeneMap:
    """Map the gene names of a file to unique current symbols.

    Parameters
    ----------
    names
        The index of `var`, or the column that holds symbols.
    ensembl
        Ensembl ids of the same genes, where the file has them; they win over symbols.
    kinds
        What each row is, "" for a gene; all others are left out. Without it, and for human genes,
        the names decide: see `backend.data.features`, and `CD34-1` beside `CD34`, unless two genes
        share that symbol.
    any_genes
        Take unknown names as they are, however many: genes of another species.

    Raises
    ------
    Refusal
        If less than 1 % of the names is known, unless `any_genes`.
    """
    table = gene_table()
    present = set(names)
    if kinds is None:
        kinds = [""] * len(names) if any_genes else _kinds_by_name(names, ensembl, table, present)
    left_out: dict[str, list[str]] = {}
    symbols: dict[str, int] = {}
    ids: list[str] = []
    target = np.empty(len(names), dtype=np.int32)
    unmatched: list[str] = []
    n_matched = n_renamed = n_from_id = n_from_symbol = 0
    for place, name in enumerate(names):
        if kinds[place]:
            left_out.setdefault(kinds[place], []).append(name)
            target[place] = -1
            continue
        given = strip_version(ensembl[place]) if ensembl is not None else None
        own = strip_version(name)
        known_id = next((i for i in (given, own) if i is not None and i in table.symbol_of), None)
        if known_id is not None:
            symbol, gene_id = table.symbol_of[known_id] or known_id, known_id
            n_from_id += 1
        elif (current := _current_symbol(name, table, present)) is not None:
            symbol, gene_id = current, table.ensembl_of[current]
            n_from_symbol += 1
            n_renamed += current != name
        else:
            unmatched.append(name)
            symbol, gene_id = own or name, given or own or ""
        n_matched += symbol in table.ensembl_of or gene_id in table.symbol_of
        if symbol not in symbols:
            symbols[symbol] = len(ids)
            ids.append(gene_id)
        target[place] = symbols[symbol]
    n_genes = len(names) - sum(map(len, left_out.values()))
    if not any_genes and n_matched < max(1, SMALLEST_SHARE_MATCHED * n_genes):
        _refuse_genes(names, n_matched)
    kinds = [kind for kind, n in (("symbol", n_from_symbol), ("ensembl", n_from_id)) if n]
    return GeneMap(
        symbols=tuple(symbols),
        ensembl=tuple(ids),
        target=target,
        n_matched=n_matched,
        n_renamed=n_renamed,
        id_kind=" and ".join(kinds),
        unmatched=tuple(unmatched[:5]),
        left_out={kind: tuple(rows) for kind, rows in left_out.items()},
    )


def is_known_gene(name: str) -> bool:
    """Say whether a name is a human gene's: a current or old symbol, or an Ensembl id."""
    table = gene_table()
    return (
        name in table.ensembl_of
        or name in table.current_of
        or strip_version(name) in table.symbol_of
    )


def _kinds_by_name(
    names: Sequence[str], ensembl: Sequence[str] | None, table: GeneTable, present: set[str]
) -> list[str]:
    kinds = kinds_by_name(names, is_known_gene)
    for place, name in enumerate(names):
        made = _MADE_UNIQUE.match(name)
        if not made or made[1] not in present or made[1] not in table.ensembl_of:
            continue
        has_id = ensembl is not None and strip_version(ensembl[place]) is not None
        if made[1] not in _shared_symbols() and name not in table.ensembl_of and not has_id:
            # A second row of one gene's name is what AnnData makes of an antibody beside it.
            kinds[place] = "name made unique beside a gene"
    return list(kinds)


@lru_cache(maxsize=1)
def _shared_symbols() -> frozenset[str]:
    """Return the symbols that several Ensembl ids have."""
    counts = Counter(gene_table().symbol_of.values())
    return frozenset(symbol for symbol, n in counts.items() if n > 1)


def _current_symbol(name: str, table: GeneTable, present: set[str]) -> str | None:
    """Find the current symbol of a name: itself, an old one, or one altered by a program."""
    if name in table.ensembl_of:
        return name
    if name in table.current_of:
        return table.current_of[name]
    # R's make.names writes HLA.A for HLA-A.
    dashed = name.replace(".", "-")
    if dashed in table.ensembl_of:
        return dashed
    # AnnData's var_names_make_unique writes MATR3-1 for a second MATR3.
    made = _MADE_UNIQUE.match(name)
    if made and made[1] in present and made[1] in table.ensembl_of:
        return made[1]
    return None


def _refuse_genes(names: Sequence[str], n_matched: int) -> None:
    shown = ", ".join(f'"{name}"' for name in list(names)[:5])
    msg = (
        f"Only {n_matched:,} of {len(names):,} genes are known human genes. "
        f"The first names are {shown}."
    )
    if all(re.fullmatch(r"\d+", name) for name in list(names)[:50]):
        hint = "The genes are numbered: put gene symbols or Ensembl ids into the index of `var`."
    elif sum(name[:1].isupper() and name[1:].islower() for name in list(names)[:200]) > 20 or any(
        name.startswith("ENSMUSG") for name in list(names)[:200]
    ):
        hint = (
            "They look like mouse genes; only human data can be used, but for `pretrain` and "
            "`run` with --any-genes."
        )
    else:
        hint = "Put human gene symbols or Ensembl ids (ENSG…) into the index of `var`."
    raise Refusal(msg, hint, code="no_genes")
