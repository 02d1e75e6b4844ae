"""The genes that models know, and models of one fixed, ordered gene panel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp

from backend.errors import InputError
from backend.models.base import FoundationModel, GeneReport, ModelConfig
from backend.models.baselines.expression import MIN_CELLS, check_counts, log_cp10k, variable_genes
from backend.models.ragged import join

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from anndata import AnnData
    from torch import Tensor

    from backend.models.base import TokenStore

__all__ = [
    "PanelModel",
    "align_to_panel",
    "choose_panel",
    "count_genes",
    "find_file",
    "model_config",
    "read_gene_list",
    "row_totals",
]

MIN_SHARE_MATCHED: Final = 0.05
"""Below this share of the genes that could match, the file is taken for another vocabulary."""


def align_to_panel(
    counts: sp.spmatrix, genes: Sequence[str], panel: Sequence[str]
) -> sp.csr_matrix:
    """Return the counts in panel order, (n_cells, n_panel) float32.

    Symbols match exactly. A panel gene that the data lack is zero, a gene outside the panel is
    dropped, and the first of several columns with one symbol counts. Indices come out sorted,
    without stored zeros.
    """
    counts = sp.csr_matrix(counts)
    names = pd.Index(genes)
    position = pd.Index(panel).get_indexer(names)
    position[names.duplicated()] = -1
    column = position[counts.indices]
    is_kept = (column >= 0) & (counts.data != 0)
    kept_before = np.concatenate([[0], np.cumsum(is_kept)])
    aligned = sp.csr_matrix(
        (
            counts.data[is_kept].astype(np.float32, copy=False),
            column[is_kept].astype(np.int32),
            kept_before[counts.indptr],
        ),
        shape=(counts.shape[0], len(panel)),
    )
    aligned.sort_indices()
    return aligned


def row_totals(counts: sp.csr_matrix) -> np.ndarray:
    """Return the sum of each row in float64, (n_cells,)."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def count_genes(
    names: Sequence[str],
    is_known: np.ndarray,
    *,
    vocabulary: str,
    n_vocabulary: int,
    hint: str | None = None,
    notes: Sequence[str] = (),
) -> GeneReport:
    """Count the genes that a model knows, or refuse data that has (almost) none of them.

    Parameters
    ----------
    vocabulary
        What genes are looked up in, such as "scGPT's vocabulary".
    hint
        How genes must be named; by default as human symbols.

    Raises
    ------
    InputError
        If no gene is known, or less than 5 % of those that could be.
    """
    n_matched = int(is_known.sum())
    if n_matched == 0 or n_matched < MIN_SHARE_MATCHED * min(len(names), n_vocabulary):
        found = ", ".join(map(str, names[:5]))
        msg = (
            f"Only {n_matched:,} of {len(names):,} genes match {vocabulary} "
            f"({n_matched / max(len(names), 1):.0%}). Found: {found}."
        )
        if hint is None:
            hint = "Use human gene symbols, in their usual case, as gene names."
            if str(names[0]).startswith("ENSG"):
                hint = "The file seems to use Ensembl ids; put gene symbols into `var_names`."
        raise InputError(msg, hint)
    unknown = (str(name) for name, known in zip(names, is_known, strict=True) if not known)
    return GeneReport(
        n_genes=len(names),
        n_matched=n_matched,
        n_vocabulary=n_vocabulary,
        unmatched_examples=tuple(sorted(unknown)[:5]),
        notes=tuple(notes),
    )


def model_config(name: str, sizes: Any) -> ModelConfig:
    """Return the preset of some sizes and options; `sizes.SHAPE` names what is published."""
    published = type(sizes)()
    is_published = all(getattr(sizes, size) == getattr(published, size) for size in sizes.SHAPE)
    return ModelConfig(name, asdict(sizes), is_published)


class PanelModel(FoundationModel):
    """A foundation model that reads the values of one ordered gene panel.

    Parameters
    ----------
    config
        Sizes and options of `sizes_type`.
    panel
        The ordered genes.
    weights
        Tensors of a checkpoint.
    seed
        Of the weights that no checkpoint gives; None draws from torch's current generator.
    """

    sizes_type: ClassVar[type[Any]]

    def __init__(
        self,
        config: ModelConfig,
        panel: Sequence[str],
        *,
        weights: Mapping[str, Tensor] | None = None,
        seed: int | None = None,
    ) -> None:
        self.config = config
        self.sizes = self.sizes_of(config)
        self.panel = tuple(panel)
        self.weights = weights
        self.seed = seed

    @classmethod
    def sizes_of(cls, config: ModelConfig) -> Any:
        """Read the sizes and options of a preset, refusing unknown names."""
        known = {field.name for field in fields(cls.sizes_type)}
        if unknown := sorted(set(config.values) - known):
            msg = f"{cls.display_name} has no option {', '.join(unknown)}."
            raise InputError(msg, f"Choose from: {', '.join(sorted(known))}.")
        return cls.sizes_type(**config.values)

    @classmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build the model with random weights over the panel `genes`."""
        return cls(config, genes, seed=seed)

    @classmethod
    def scratch_on(cls, config: ModelConfig, train: AnnData, *, seed: int) -> Self:
        """Build the model with random weights over a panel chosen on training cells."""
        return cls(config, choose_panel(train, cls.sizes_of(config).panel_size), seed=seed)

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return the same model with some of `options` changed."""
        self.check_options(options)
        config = model_config(self.config.name, replace(self.sizes, **options))
        return type(self)(config, self.panel, weights=self.weights, seed=self.seed)

    def state(self) -> dict[str, Any]:
        """Return all but the weights as JSON values."""
        return {"preset": self.config.name, "sizes": asdict(self.sizes), "panel": list(self.panel)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the model that `state` described, with random weights."""
        config = model_config(state["preset"], cls.sizes_type(**state["sizes"]))
        return cls(config, state["panel"])

    def check_input(self, adata: AnnData) -> GeneReport:
        """Refuse data that cannot be aligned; otherwise count the known genes.

        Raises
        ------
        InputError
            If values are not raw counts, symbols repeat, or (almost) no gene is in the panel.
        """
        check_counts(adata)
        is_known = adata.var_names.isin(self.panel)
        n_panel, notes = len(self.panel), []
        if absent := n_panel - int(is_known.sum()):
            notes.append(f"{absent:,} of {n_panel:,} panel genes are not in the data: read as zero")
        totals = row_totals(sp.csr_matrix(adata.X)[:, np.flatnonzero(is_known)])
        if n_empty := int((totals == 0).sum()):
            notes.append(f"{n_empty:,} cells have no count in the panel")
        if self.sizes.panel_size is not None:
            notes.append(f"not as published: {n_panel:,} genes chosen on training cells")
        return count_genes(
            adata.var_names,
            is_known,
            vocabulary=f"{self.display_name}'s panel of {n_panel:,}",
            n_vocabulary=n_panel,
            notes=[*notes, *self._notes(adata)],
        )

    @abstractmethod
    def _notes(self, adata: AnnData) -> list[str]:
        """Return what a reader must know of these options and cells."""

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0) -> TokenStore:
        """Turn the expressed panel genes of each cell into tokens; `ids` are panel positions.

        Nothing is drawn at random, so `seed` changes nothing.
        """
        del seed
        return join(
            self._tokens(align_to_panel(chunk.X, chunk.var_names, self.panel)) for chunk in chunks
        )

    @abstractmethod
    def _tokens(self, aligned: sp.csr_matrix) -> TokenStore:
        """Return the tokens of cells in panel order."""


def choose_panel(train: AnnData, n_genes: int | None) -> tuple[str, ...]:
    """Return the genes that vary most over the training cells, in alphabetical order.

    Only genes detected in 10 training cells count, unless there are none; all when `n_genes` is
    None.
    """
    # By name, so that the order of the file's columns changes nothing.
    order = np.argsort(train.var_names.to_numpy().astype(str), kind="stable")
    counts = sp.csr_matrix(train.X)[:, order]
    n_cells = np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1])
    candidates = np.flatnonzero(n_cells >= MIN_CELLS)
    if len(candidates) == 0:
        candidates = np.arange(counts.shape[1])
    if n_genes is not None and n_genes < len(candidates):
        candidates = candidates[variable_genes(log_cp10k(counts)[:, candidates], n_genes)]
    return tuple(map(str, train.var_names[order[candidates]]))


def find_file(folder: Path, names: Sequence[str], pattern: str) -> Path | None:
    """Return the first of `names` in a folder, or the only file of another name like `pattern`."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob(pattern))
    if len(others) > 1:
        found = ", ".join(path.name for path in others[:5])
        msg = f"Several files could be `{names[0]}`. Found: {found}."
        raise InputError(msg, f"Keep one of them, or name the right one `{names[0]}`.")
    return others[0] if others else None


def read_gene_list(path: Path) -> tuple[str, ...]:
    """Return the symbols of a panel file, one a line (or the first of tab-separated columns).

    A header line `gene_name<tab>index` is skipped. Symbols keep trailing blanks: matching is exact.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        msg = f"`{path.name}` is not a text file ({error.reason})."
        raise InputError(msg, "Use the panel file of the model's authors.") from None
    rows = [line.rstrip("\r").split("\t")[0] for line in lines]
    if rows and rows[0] == "gene_name":
        rows = rows[1:]
    genes = tuple(row for row in rows if row)
    if not genes:
        msg = f"The gene panel `{path.name}` is empty."
        raise InputError(msg, "Use the panel file of the model's authors, one symbol a line.")
    if len(set(genes)) < len(genes):
        repeated = sorted(pd.Index(genes)[pd.Index(genes).duplicated()])
        msg = f"The gene panel `{path.name}` repeats symbols. Found: {', '.join(repeated[:5])}."
        raise InputError(msg, "Use the panel file of the model's authors; its symbols are unique.")
    return genes
