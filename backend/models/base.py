"""The contract that every model keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from torch import Tensor, nn

__all__ = [
    "CellTyper",
    "CheckpointFile",
    "FoundationModel",
    "GeneReport",
    "Kind",
    "LoadReport",
    "Model",
    "ModelCard",
    "ModelConfig",
    "Predictions",
    "RecipeDefaults",
    "TokenBatch",
    "TokenStore",
]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Per-cell predictions, in the order of the input.

    cell_ids : (n_cells,) str, equal to adata.obs_names
    proba    : (n_cells, n_classes) float32, rows sum to 1
    classes  : (n_classes,) str
    embedding: (n_cells, d) float32 or None
    """

    cell_ids: np.ndarray
    proba: np.ndarray
    classes: tuple[str, ...]
    embedding: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a user must know before trusting a model."""

    summary: str
    citation: str
    doi: str
    weights_licence: str
    expects: str
    n_parameters: int | None = None
    gpu_gib: float | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A preset: sizes of one architecture. `values` are the model's own names and numbers."""

    name: str
    values: Mapping[str, Any]
    is_published_size: bool


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file of a published checkpoint.

    preset : preset that the file belongs to, such as "scgpt.whole_human"
    name   : path inside the checkpoint's folder
    size   : bytes, or None when it is not known
    sha256 : hex digest, its first digits where only these are known, or "" when none is
    source : where the authors offer it, as one sentence
    is_required : whether the model cannot be read without it
    """

    preset: str
    name: str
    size: int | None
    sha256: str
    source: str
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class GeneReport:
    """How the genes of a dataset meet the vocabulary of a model."""

    n_genes: int
    n_matched: int
    n_vocabulary: int
    unmatched_examples: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def share_matched(self) -> float:
        """Share of the dataset's genes that the model knows (0-1)."""
        return self.n_matched / self.n_genes if self.n_genes else 0.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of each tensor of a checkpoint and of the network.

    Names are the network's, or the file's for `dropped`. `share_loaded` is the share of the
    network's backbone parameters that came from the file.
    """

    n_loaded: int
    share_loaded: float
    renamed: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    genes: GeneReport | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipeDefaults:
    """The authors' fine-tuning defaults, each with its source in the model's card."""

    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int
    schedule: str
    schedule_values: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.0
    optimizer_values: Mapping[str, Any] = field(default_factory=dict)
    warmup_steps: int = 0
    clip_norm: float | None = None
    accumulate: int = 1
    class_weights: str = "none"
    select_by: str = "valid_loss"
    trainable: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class TokenStore:
    """Ragged tokens of many cells, in the order of the input.

    indptr : (n_cells + 1,) int64, cell i owns ids[indptr[i]:indptr[i + 1]]
    ids    : (n_tokens,) int32
    values : (n_tokens,) float32
    extra  : per-cell arrays that a model needs beside its tokens (for example total counts)
    """

    indptr: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def take(self, rows: np.ndarray) -> TokenBatch:
        """Return the tokens of some cells, in the order of `rows`."""
        cells = [slice(self.indptr[row], self.indptr[row + 1]) for row in rows]
        return TokenBatch(
            ids=[self.ids[cell] for cell in cells],
            values=[self.values[cell] for cell in cells],
            extra={name: array[rows] for name, array in self.extra.items()},
        )


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Tokens of the cells of one batch, not yet padded."""

    ids: Sequence[np.ndarray]
    values: Sequence[np.ndarray]
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


Kind = Literal["baseline", "foundation"]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Model(ABC):
    """What every model says of itself; a default stands for "has none"."""

    key: str
    display_name: str
    card: ModelCard
    kind: ClassVar[Kind]
    is_savable: ClassVar[bool] = True
    """Whether a fitted one can be written to a folder and read again."""
    presets: ClassVar[Mapping[str, ModelConfig]] = _NOTHING
    """Sizes by tag; a baseline has none."""
    options: ClassVar[Mapping[str, type | tuple[str, ...]]] = _NOTHING
    """Settings of its own beside those of training: `bool`, `int` (from 1), `str`, or choices."""
    checkpoint_files: ClassVar[tuple[CheckpointFile, ...]] = ()
    """What its authors publish."""

    @classmethod
    def split_settings(cls, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the model's own options among settings, checked, and the settings left over.

        Raises
        ------
        InputError
            If an option has a wrong value.
        """
        own = {name: value for name, value in settings.items() if name in cls.options}
        cls.check_options(own)
        return own, {name: value for name, value in settings.items() if name not in own}

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Raise `InputError` for an option that the model lacks or that has a wrong value."""
        for name, value in options.items():
            if name not in cls.options:
                msg = f"{cls.display_name} has no option {name}."
                known = ", ".join(sorted(cls.options))
                raise InputError(msg, f"It has: {known}." if known else "It has none.")
            kind = cls.options[name]
            if isinstance(kind, tuple):
                is_right, wanted = value in kind, f"one of: {', '.join(kind)}"
            elif kind is int:
                is_right = isinstance(value, int) and not isinstance(value, bool) and value > 0
                wanted = "a whole number above 0"
            else:
                is_right = isinstance(value, kind)
                wanted = "true or false" if kind is bool else "text"
            if not is_right:
                msg = f"The option {name} of {cls.display_name} is {value!r}."
                raise InputError(msg, f"Give {wanted}.")


class CellTyper(Model):
    """A classifier of cells. The constructor stores arguments; `fit` does the work.

    `adata.X` holds raw counts (CSR, float32), `adata.var_names` unique gene symbols,
    `adata.obs` the columns of `cells.parquet`. `valid` may hold no cell. Learned attributes
    end in `_`; `predict` before `fit` raises `InputError`. Inputs are never mutated.
    """

    kind: ClassVar[Kind] = "baseline"
    recipe_version: ClassVar[int] = 1
    """Part of the identity of a run: raise it when the same settings fit another model."""

    classes_: tuple[str, ...] = ()
    notes_: tuple[str, ...] = ()
    """Sentences that a reader of the predictions must know."""
    history_: pd.DataFrame | None = None
    """One row an epoch, of a model that has epochs."""
    convergence_: Mapping[str, Any] | None = None
    """How a model that has epochs ended (`backend.training.convergence`)."""
    chosen_: Mapping[str, Any] = _NOTHING
    """What the fit chose for itself on its training cells, by name."""
    load_report_: LoadReport | None = None
    """What a checkpoint gave."""
    device_: str = "cpu"
    """Where it was fitted."""
    checkpoint_sha256: str | None = None
    """Hash of the files that the weights start from; part of the identity of a run."""

    def at_fold(self, split_sha256: str, fold: int | str) -> None:
        """Hear which fold will be fitted, where a checkpoint or a setting depends on it."""
        del split_sha256, fold

    def stop_like(self, histories: Sequence[pd.DataFrame]) -> None:
        """Hear the histories of the series' finished folds, before a fit without valid cells."""
        del histories

    def gene_weights(self) -> tuple[Sequence[str], np.ndarray] | None:
        """Return genes, and (n_genes,) how much each can move an answer; None where that is unknown."""
        return None

    def work_in(self, workspace: Any) -> None:
        """Hear where tokens and snapshots may be kept (`training.fit_workspace.FitWorkspace`)."""
        del workspace

    def check_input(self, adata: AnnData) -> None:
        """Raise `InputError` when `adata` cannot be used, before any compute.

        By default, when `X` does not hold raw counts under unique gene names.
        """
        from backend.models.baselines.expression import check_counts

        check_counts(adata)

    @abstractmethod
    def fit(self, train: AnnData, *, label_key: str, valid: AnnData, seed: int) -> Self:
        """Fit on `train`; `valid` may only choose between epochs of the fit."""

    @abstractmethod
    def predict(self, adata: AnnData, *, batch_size: int = 64) -> Predictions:
        """Predict every cell of `adata`, in its order."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted model to `folder` without pickles."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Read a model that `save` wrote."""


class FoundationModel(Model):
    """A pre-trainable architecture: vocabulary, tokens, network, checkpoint, authors' defaults.

    `training.finetune.Classifier` turns one into a `CellTyper`.
    """

    kind: ClassVar[Kind] = "foundation"
    head: ClassVar[tuple[str, ...]]
    """Patterns (`fnmatch`) of the network's tensors that no published checkpoint fills."""
    has_random_tokens: ClassVar[bool] = False
    """Whether `tokenise` draws numbers; then it also takes `draw` (0, 1, …)."""
    lora_targets: ClassVar[tuple[str, ...]] = ()
    """Linear layers beside which adapters may be trained, by the end of their names."""

    config: ModelConfig
    weights: Mapping[str, Tensor] | None = None
    """Tensors of `network` that a checkpoint gave; None for random weights."""
    files: tuple[Path, ...] = ()
    """Files that were read beside the published ones."""

    @classmethod
    @abstractmethod
    def from_checkpoint(
        cls, folder: Path, *, accept_partial: bool = False
    ) -> tuple[Self, LoadReport]:
        """Read the authors' files; loading less than the known share is an error."""

    @classmethod
    @abstractmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build the architecture with random weights over a vocabulary of `genes`."""

    @classmethod
    @abstractmethod
    def scratch_on(cls, config: ModelConfig, train: AnnData, *, seed: int) -> Self:
        """Choose genes (and their medians, a panel, …) on training cells, then build on them."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return all but the weights as JSON values: preset, sizes, vocabulary."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the model that `state` described, with random weights."""

    @abstractmethod
    def check_input(self, adata: AnnData) -> GeneReport:
        """Raise `InputError` when `adata` cannot be used; otherwise count the known genes."""

    @abstractmethod
    def tokenise(self, chunks: Iterable[AnnData], *, seed: int) -> TokenStore:
        """Turn raw counts into tokens; memory is that of one chunk and the result."""

    @abstractmethod
    def collate(self, cells: TokenBatch) -> dict[str, Tensor]:
        """Pad a batch into the keyword arguments of the network's `forward`."""

    @abstractmethod
    def network(self, n_classes: int) -> nn.Module:
        """Return the backbone (with this model's weights) under a classifier head.

        `forward(**batch)` returns logits of shape (B, n_classes).
        """

    @abstractmethod
    def recipe(self) -> RecipeDefaults:
        """Return the authors' fine-tuning defaults."""

    @staticmethod
    def checkpoint_places(folder: Path) -> list[Path]:
        """Return where files of a checkpoint may lie, the folder itself first."""
        return [folder]

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return the same model with some of `options` changed."""
        self.check_options(options)
        return self

    def pretraining_objective(self) -> Any:
        """Return what pre-training hides and scores, a `backend.models.pretraining.Objective`.

        Raises
        ------
        InputError
            If it has none.
        """
        msg = f"{self.display_name} has no pre-training objective."
        raise InputError(msg, "Choose another model, or give it `pretraining_objective()`.")
