"""scBERT (Yang et al. 2022): every panel gene of a cell read as a binned token by a Performer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.errors import InputError
from backend.models.base import (
    GeneReport,
    ModelCard,
    ModelConfig,
    RecipeDefaults,
    TokenBatch,
    TokenStore,
)
from backend.models.panel import align_to_panel, check_panel_input, row_totals
from backend.models.performer import KeyMaximum, Performer, PerformerOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    import scipy.sparse as sp
    from anndata import AnnData

N_BINS: Final = 5
"""Expressed genes are binned to 0-5 by the whole part of log2(1 + counts per 10,000)."""

N_TOKENS: Final = N_BINS + 2
"""Bins 0-5 and the mask of pre-training."""

MIN_GENES: Final = 200
"""The authors drop cells with fewer detected panel genes before training and prediction."""

UNASSIGNED_THRESHOLD: Final = 0.5
"""The authors' prediction script calls a cell "Unassigned" below this confidence, if asked to."""

POOLINGS: Final = ("mean", "last")

TOKENS_PER_BATCH: Final = 32_768
"""Of an embedding batch: two cells of the full panel, about 2 GiB."""

AUTHORS_RECIPE: Final = RecipeDefaults(
    optimizer="adam",
    learning_rate=1e-4,
    batch_size=3,
    epochs=100,
    schedule="cosine_restarts",
    schedule_values={
        "first_cycle": 15,
        "cycle_mult": 2,
        "warmup": 5,
        "min_lr": 1e-6,
        "gamma": 0.9,
        "patience": 10,
    },
    clip_norm=1e6,
    accumulate=60,
    select_by="valid_accuracy",
)
"""Defaults of the authors' finetune.py; `trainable` depends on the depth."""

SCRATCH_RECIPE: Final = RecipeDefaults(
    optimizer="adam",
    learning_rate=5e-4,
    batch_size=32,
    epochs=10,
    schedule="constant",
    clip_norm=1.0,
    select_by="valid_loss",
)
"""Ours, for random weights: every layer trains, in larger batches."""


def passes_gene_filter(aligned: sp.csr_matrix, min_genes: int = MIN_GENES) -> np.ndarray:
    """Return whether each cell has enough detected panel genes for the authors' filter."""
    return np.diff(aligned.indptr) >= min_genes


def counts_per_10k(aligned: sp.csr_matrix) -> sp.csr_matrix:
    """Scale each cell's panel counts to a sum of 10,000, in float64; empty cells stay empty."""
    scaled = aligned.astype(np.float64)
    totals = np.repeat(row_totals(aligned), np.diff(aligned.indptr))
    # One division of exact integers, so that a value on the edge of a bin stays on it.
    scaled.data = scaled.data * 1e4 / totals
    return scaled


def log_normalise(aligned: sp.csr_matrix) -> sp.csr_matrix:
    """Return log2(1 + counts per 10,000) as float32, what the authors store as their input."""
    values = counts_per_10k(aligned)
    values.data = np.log2(1 + values.data)
    return values.astype(np.float32)


def bin_counts(aligned: sp.csr_matrix) -> np.ndarray:
    """Return the bin (0-5) of each stored count, in the order of `aligned.data`."""
    # The binary exponent is the whole part of log2, without the rounding of a logarithm.
    _, exponent = np.frexp(1 + counts_per_10k(aligned).data)
    return np.minimum(exponent - 1, N_BINS)


def unassigned(proba: np.ndarray, threshold: float = UNASSIGNED_THRESHOLD) -> np.ndarray:
    """Return the cells whose highest probability is below the threshold (the authors' rule)."""
    return proba.max(axis=1) < threshold


class ConvolutionHead(nn.Module):
    """The authors' classifier: one number a token, then three linear layers over all tokens.

    `width` is the number of token positions; each position has its own weights in `fc1`.
    """

    def __init__(self, dim: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.width = width
        self.conv1 = nn.Conv2d(1, 1, kernel_size=(1, dim))
        self.fc1 = nn.Linear(width, 512)
        self.fc2 = nn.Linear(512, 128)
        self.fc3 = nn.Linear(128, n_classes)

    def forward(
        self, x: Tensor, positions: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, n_classes) of encodings (B, L, dim).

        With `positions` (B, L), only those tokens are given: the others count as zero.
        """
        x = F.relu(self.conv1(x.unsqueeze(1)).flatten(1))
        if positions is not None:
            if padding is not None:
                x = x.masked_fill(padding, 0.0)
            x = x.new_zeros(len(x), self.width).scatter_add(1, positions, x)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScBertSizes:
    """Sizes and options of one scBERT network.

    expressed_only
        Read only the genes that a cell expresses (and the appended token) instead of the whole
        panel. Not what the authors do: a deviation, for speed.
    key_maximum, redraw_features, checkpoint_activations
        See `PerformerOptions`.
    """

    dim: int = 200
    depth: int = 6
    heads: int = 10
    dim_head: int = 64
    panel_size: int | None = None
    expressed_only: bool = False
    key_maximum: KeyMaximum = "cell"
    redraw_features: bool = False
    checkpoint_activations: bool = False


class ScBertNetwork(nn.Module):
    """Token and gene embedding, Performer, norm and a head, under the names of the checkpoints.

    `n_classes=None` builds the pre-training head, which returns logits over tokens.
    """

    def __init__(self, sizes: ScBertSizes, n_genes: int, n_classes: int | None) -> None:
        super().__init__()
        width = n_genes + 1
        self.token_emb = nn.Embedding(N_TOKENS, sizes.dim)
        self.pos_emb = nn.ModuleDict({"emb": nn.Embedding(width, sizes.dim)})
        self.performer = Performer(
            dim=sizes.dim,
            depth=sizes.depth,
            heads=sizes.heads,
            dim_head=sizes.dim_head,
            options=PerformerOptions(
                key_maximum=sizes.key_maximum,
                redraw_features=sizes.redraw_features,
                checkpoint_activations=sizes.checkpoint_activations,
            ),
        )
        self.norm = nn.LayerNorm(sizes.dim)
        self.to_out: nn.Module
        if n_classes is None:
            self.to_out = nn.Linear(sizes.dim, N_TOKENS)
        else:
            self.to_out = ConvolutionHead(sizes.dim, width, n_classes)

    def embedded(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the sum of token and gene embeddings, (B, L, dim)."""
        genes = self.pos_emb["emb"].weight if positions is None else self.pos_emb["emb"](positions)
        return self.token_emb(tokens) + genes

    def encode(
        self, tokens: Tensor, positions: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Return the encoding of each token, (B, L, dim)."""
        return self.norm(self.performer(self.embedded(tokens, positions), padding))

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """Return logits of `tokens` (B, L), all of the panel or those at `positions`."""
        x = self.encode(tokens, positions, padding)
        return self.to_out(x) if positions is None else self.to_out(x, positions, padding)


def sizes_of(config: ModelConfig) -> ScBertSizes:
    """Read the sizes and options of a preset, refusing unknown names."""
    known = {field.name for field in fields(ScBertSizes)}
    if unknown := sorted(set(config.values) - known):
        msg = f"scBERT has no option {', '.join(unknown)}."
        raise InputError(msg, f"Choose from: {', '.join(sorted(known))}.")
    return ScBertSizes(**config.values)


def model_config(name: str, sizes: ScBertSizes, *, is_published_size: bool = False) -> ModelConfig:
    """Return the preset of some sizes."""
    return ModelConfig(name, asdict(sizes), is_published_size)


class ScBert:
    """scBERT as a `FoundationModel`.

    Parameters
    ----------
    config
        Sizes and options, see `ScBertSizes`.
    panel
        The ordered gene panel; token i is gene i, and one zero token follows.
    weights
        Tensors of a checkpoint. The head is left out unless its size fits.
    seed
        Of the weights that no checkpoint gives.
    """

    key: ClassVar[str] = "scbert"
    display_name: ClassVar[str] = "scBERT"
    card: ClassVar[ModelCard] = ModelCard(
        summary="Performer over all 16,906 panel genes with binned expression.",
        citation="Yang et al., Nature Machine Intelligence 2022",
        doi="10.1038/s42256-022-00534-z",
        weights_licence="GPL-3.0 (Tencent); research use",
        expects="raw counts, human gene symbols",
        n_parameters=8_388_607,
        gpu_gib=None,
    )
    presets: ClassVar[Mapping[str, ModelConfig]] = {
        config.name: config
        for config in (
            model_config(
                "scbert.panglao",
                ScBertSizes(checkpoint_activations=True),
                is_published_size=True,
            ),
            model_config(
                "scbert.small",
                ScBertSizes(dim=64, depth=2, heads=4, dim_head=16, panel_size=1024),
            ),
        )
    }

    def __init__(
        self,
        config: ModelConfig,
        panel: Sequence[str],
        *,
        weights: Mapping[str, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.config = config
        self.sizes = sizes_of(config)
        self.panel = tuple(panel)
        self.weights = weights
        self.seed = seed

    @classmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build scBERT with random weights over the panel `genes`."""
        return cls(config, genes, seed=seed)

    def check_input(self, adata: AnnData) -> GeneReport:
        """Raise `InputError` when `adata` cannot be used; otherwise count the known genes."""
        report = check_panel_input(adata, self.panel, display_name=self.display_name)
        detected = np.diff(align_to_panel(adata.X, adata.var_names, self.panel).indptr)
        if n_few := int((detected < MIN_GENES).sum()):
            note = (
                f"{n_few:,} cells have fewer than {MIN_GENES} detected panel genes: "
                "the authors drop them, here they are kept"
            )
            report = replace(report, notes=(*report.notes, note))
        return report

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0) -> TokenStore:
        """Bin the expressed panel genes of each cell; `ids` are panel positions.

        Genes that are expressed below 1 in 10,000 have bin 0, like those that are not expressed.
        Nothing is drawn at random, so `seed` changes nothing.
        """
        del seed
        indptr, ids, values = [np.zeros(1, np.int64)], [], []
        for chunk in chunks:
            aligned = align_to_panel(chunk.X, chunk.var_names, self.panel)
            indptr.append(aligned.indptr[1:].astype(np.int64) + indptr[-1][-1])
            ids.append(aligned.indices.astype(np.int32, copy=False))
            values.append(bin_counts(aligned).astype(np.float32))
        return TokenStore(
            indptr=np.concatenate(indptr),
            ids=np.concatenate(ids) if ids else np.zeros(0, np.int32),
            values=np.concatenate(values) if values else np.zeros(0, np.float32),
        )

    def collate(self, cells: TokenBatch) -> dict[str, Tensor]:
        """Return the tokens of every panel gene, or with `expressed_only` of the expressed ones."""
        last = len(self.panel)
        if not self.sizes.expressed_only:
            tokens = np.zeros((len(cells), last + 1), np.int64)
            for row, ids, values in zip(tokens, cells.ids, cells.values, strict=True):
                row[ids] = values
            return {"tokens": torch.from_numpy(tokens)}
        width = max(len(ids) for ids in cells.ids) + 1
        tokens = np.zeros((len(cells), width), np.int64)
        positions = np.full((len(cells), width), last, np.int64)
        padding = np.ones((len(cells), width), bool)
        for i, (ids, values) in enumerate(zip(cells.ids, cells.values, strict=True)):
            tokens[i, : len(ids)] = values
            positions[i, : len(ids)] = ids
            padding[i, : len(ids) + 1] = False
        arrays = {"tokens": tokens, "positions": positions, "padding": padding}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def network(self, n_classes: int | None) -> ScBertNetwork:
        """Return scBERT under the authors' classifier (`None`: their pre-training head)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = ScBertNetwork(self.sizes, len(self.panel), n_classes)
        if self.weights is not None:
            is_same_head = n_classes is None and "to_out.weight" in self.weights
            tensors = {
                name: tensor
                for name, tensor in self.weights.items()
                if is_same_head or not name.startswith("to_out.")
            }
            network.load_state_dict(tensors, strict=False)
        return network

    def recipe(self) -> RecipeDefaults:
        """Return the authors' fine-tuning defaults, or ours where there are no weights to keep."""
        if self.weights is None:
            return SCRATCH_RECIPE
        return replace(
            AUTHORS_RECIPE,
            trainable=(f"performer.net.layers.{self.sizes.depth - 2}.*", "norm.*", "to_out.*"),
        )

    @torch.no_grad()
    def embed(
        self, chunks: Iterable[AnnData], *, pooling: str = "mean", device: str = "cpu"
    ) -> np.ndarray:
        """Return (n_cells, dim) embeddings: "mean" over gene tokens, or the "last" token's.

        The authors define no cell embedding.
        """
        if pooling not in POOLINGS:
            msg = f'scBERT has no pooling "{pooling}".'
            raise InputError(msg, f"Choose one of: {', '.join(POOLINGS)}.")
        network = self.network(None).to(device).eval()
        last = len(self.panel)
        rows = []
        for chunk in chunks:
            store = self.tokenise([chunk])
            size = max(1, TOKENS_PER_BATCH // (last + 1))
            for start in range(0, len(store), size):
                batch = self.collate(store.take(np.arange(start, min(start + size, len(store)))))
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                encoded = network.encode(**batch).float()
                positions = batch.get("positions")
                if positions is None:
                    pooled = encoded[:, :-1].mean(dim=1) if pooling == "mean" else encoded[:, -1]
                else:
                    pooled = _pool_expressed(encoded, positions, batch["padding"], last, pooling)
                rows.append(pooled.cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, self.sizes.dim), np.float32)


def _pool_expressed(
    encoded: Tensor, positions: Tensor, padding: Tensor, last: int, pooling: str
) -> Tensor:
    is_gene = positions != last
    is_wanted = is_gene if pooling == "mean" else ~is_gene & ~padding
    weights = is_wanted.float().unsqueeze(-1)
    return (encoded * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
