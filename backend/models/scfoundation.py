"""scFoundation (Hao et al. 2024): a transformer over expressed genes and two read-depth tokens."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

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
from backend.models.scfoundation_network import (
    ScFoundationClassifier,
    ScFoundationEncoder,
    ScFoundationSizes,
    pool_cell,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    from anndata import AnnData

log = logging.getLogger(__name__)

POOLINGS: Final = ("all", "max")

TOKENS_PER_BATCH: Final = 16_384
"""Of an embedding batch; the longest cell goes through whatever its length."""

_BACKBONE: Final = ("token_emb.", "pos_emb.", "encoder.")

FINETUNE_RECIPE: Final = RecipeDefaults(
    optimizer="adamw",
    learning_rate=1e-4,
    batch_size=32,
    epochs=20,
    schedule="constant",
    clip_norm=1.0,
    select_by="valid_loss",
)
"""The authors publish no annotation recipe: optimiser and clipping are those of pre-training."""

SCRATCH_RECIPE: Final = RecipeDefaults(
    optimizer="adamw",
    learning_rate=5e-4,
    batch_size=32,
    epochs=10,
    schedule="constant",
    clip_norm=1.0,
    select_by="valid_loss",
)
"""Ours, for random weights: every layer trains."""


def target_depth(resolution: str, source_depth: np.ndarray) -> np.ndarray:
    """Return the target depth T for source depths S (both log10 of counts).

    `t4` is T = 4, `f2` is T = S + log10(2) and `a1` is T = S + 1.
    """
    kind, number = resolution[:1], resolution[1:]
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if kind == "t" and np.isfinite(value):
        return np.full_like(source_depth, value)
    if kind == "f" and value > 0:
        return source_depth + np.log10(value)
    if kind == "a" and np.isfinite(value):
        return source_depth + value
    msg = f'Unknown resolution "{resolution}".'
    raise InputError(msg, "Write t4 (10^4 counts), f1 (as deep as the cell) or a1 (ten times).")


def prepare_values(
    aligned: sp.csr_matrix,
    *,
    input_type: str = "singlecell",
    pre_normalized: str = "F",
    resolution: str = "t4",
    totals: np.ndarray | None = None,
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Turn aligned values into the network's: (values, T, S), depths per cell in float64.

    Parameters
    ----------
    input_type
        "singlecell" or "bulk".
    pre_normalized
        "F": values are raw counts. "T": values are ln(1 + counts per 10,000) already; S is then
        the log10 of *their* sum, as in the reference, not of the depth. "A": like "T", with the
        raw depth of each cell in `totals`.
    resolution
        See `target_depth`; single cells only. Bulk samples have T = S.

    Notes
    -----
    S is not finite or not positive for cells with at most one count: those have no embedding.
    """
    known = {"singlecell": ("F", "T", "A"), "bulk": ("F", "T")}
    if pre_normalized not in known.get(input_type, ()):
        msg = f'There is no input "{input_type}" with pre_normalized "{pre_normalized}".'
        raise InputError(msg, "Choose singlecell with F, T or A, or bulk with F or T.")
    values = aligned.astype(np.float64)
    sums = row_totals(aligned)
    if pre_normalized == "F":
        target = 1e4 if input_type == "singlecell" else np.median(sums[sums > 0])
        per_value = np.repeat(sums, np.diff(values.indptr))
        values.data = np.log1p(values.data / per_value * target)
    if input_type == "bulk":
        depth = row_totals(values)
        if pre_normalized == "F":
            depth = _log10(depth)
        return values.astype(np.float32), depth, depth
    if pre_normalized == "A":
        if totals is None:
            msg = 'Values are pre-normalised ("A") but the totals of the cells are missing.'
            raise InputError(msg, "Give the raw count of each cell.")
        sums = np.asarray(totals, np.float64)
    depth = _log10(sums)
    return values.astype(np.float32), target_depth(resolution, depth), depth


def _log10(totals: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log10(totals)


def pack(
    cells: TokenBatch,
    *,
    with_depth: bool,
    n_genes: int,
    pad_value: float,
    pad_position: int,
    max_tokens: int | None = None,
) -> dict[str, Tensor]:
    """Pad the tokens of a batch on the right.

    Tokens keep the order of the panel; T and S come last and are left out, as in the reference,
    where they are not positive. A cell without any token gets one that says "none".
    """
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for i, (ids, values) in enumerate(zip(cells.ids, cells.values, strict=True)):
        is_token = values > 0
        ids, values = ids[is_token], values[is_token]
        if max_tokens is not None and len(ids) > max_tokens:
            kept = np.sort(np.argsort(-values, kind="stable")[:max_tokens])
            ids, values = ids[kept], values[kept]
        if with_depth:
            depths = np.array([cells.extra["target_depth"][i], cells.extra["source_depth"][i]])
            is_token = depths > 0
            positions = np.array([n_genes, n_genes + 1])
            ids = np.concatenate([ids, positions[is_token]])
            values = np.concatenate([values, depths[is_token]])
        if len(ids) == 0:
            ids, values = np.array([n_genes + 2]), np.array([pad_value])
        rows.append((ids, values))
    lengths = np.array([len(ids) for ids, _ in rows])
    width = int(lengths.max())
    gene_ids = np.full((len(rows), width), pad_position, np.int64)
    packed = np.full((len(rows), width), pad_value, np.float32)
    for i, (ids, values) in enumerate(rows):
        gene_ids[i, : len(ids)] = ids
        packed[i, : len(ids)] = values
    return {
        "values": torch.from_numpy(packed),
        "gene_ids": torch.from_numpy(gene_ids),
        "padding": torch.from_numpy(np.arange(width) >= lengths[:, None]),
    }


def sizes_of(config: ModelConfig) -> ScFoundationSizes:
    """Read the sizes and options of a preset, refusing unknown names."""
    known = {field.name for field in fields(ScFoundationSizes)}
    if unknown := sorted(set(config.values) - known):
        msg = f"scFoundation has no option {', '.join(unknown)}."
        raise InputError(msg, f"Choose from: {', '.join(sorted(known))}.")
    return ScFoundationSizes(**config.values)


def model_config(
    name: str, sizes: ScFoundationSizes, *, is_published_size: bool = False
) -> ModelConfig:
    """Return the preset of some sizes."""
    return ModelConfig(name, asdict(sizes), is_published_size)


class ScFoundation:
    """scFoundation as a `FoundationModel`.

    Parameters
    ----------
    config
        Sizes and options, see `ScFoundationSizes`.
    panel
        The ordered gene index.
    weights
        Tensors to fine-tune from (the entry "gene" of the authors' file).
    embedding_weights
        Tensors of cell embeddings (the entry "cell"); `weights` when left out.
    seed
        Of the weights that no checkpoint gives.
    """

    key: ClassVar[str] = "scfoundation"
    display_name: ClassVar[str] = "scFoundation"
    card: ClassVar[ModelCard] = ModelCard(
        summary="Transformer over expressed genes of a 19,264-gene index, values as soft bins.",
        citation="Hao et al., Nature Methods 2024",
        doi="10.1038/s41592-024-02305-7",
        weights_licence="scFoundation License: non-commercial research only, no redistribution",
        expects="raw counts, human gene symbols",
        n_parameters=119_252_285,
        gpu_gib=None,
    )
    presets: ClassVar[Mapping[str, ModelConfig]] = {
        config.name: config
        for config in (
            model_config("scfoundation.cell_01b", ScFoundationSizes(), is_published_size=True),
            model_config(
                "scfoundation.small",
                ScFoundationSizes(
                    dim=64,
                    depth=2,
                    heads=4,
                    n_bins=20,
                    hidden=64,
                    decoder_dim=32,
                    decoder_depth=2,
                    decoder_heads=4,
                    decoder_dim_head=8,
                    panel_size=1024,
                    max_tokens=256,
                ),
            ),
        )
    }

    def __init__(
        self,
        config: ModelConfig,
        panel: Sequence[str],
        *,
        weights: Mapping[str, Tensor] | None = None,
        embedding_weights: Mapping[str, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.config = config
        self.sizes = sizes_of(config)
        self.panel = tuple(panel)
        self.weights = weights
        self.embedding_weights = weights if embedding_weights is None else embedding_weights
        self.seed = seed

    @classmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build scFoundation with random weights over the index `genes`."""
        return cls(config, genes, seed=seed)

    def check_input(self, adata: AnnData) -> GeneReport:
        """Raise `InputError` when `adata` cannot be used; otherwise count the known genes."""
        return check_panel_input(adata, self.panel, display_name=self.display_name)

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0) -> TokenStore:
        """Log-normalise the expressed panel genes of each cell; `ids` are index positions.

        `extra` holds the depths T and S of each cell (log10). Nothing is drawn at random, so
        `seed` changes nothing.
        """
        del seed
        aligned = [align_to_panel(chunk.X, chunk.var_names, self.panel) for chunk in chunks]
        counts = sp.vstack(aligned, format="csr") if aligned else sp.csr_matrix((0, 1))
        values, target, source = prepare_values(counts, resolution=self.sizes.resolution)
        return TokenStore(
            indptr=values.indptr.astype(np.int64),
            ids=values.indices.astype(np.int32),
            values=values.data,
            extra={"target_depth": target, "source_depth": source},
        )

    def collate(self, cells: TokenBatch) -> dict[str, Tensor]:
        """Pad the expressed genes of a batch (and T and S with the option `depth_tokens`)."""
        return self._pack(cells, with_depth=self.sizes.depth_tokens)

    def _pack(self, cells: TokenBatch, *, with_depth: bool) -> dict[str, Tensor]:
        n_genes = len(self.panel)
        # The reference's padding borrows the gene at place 103; seen only if padding is pooled.
        position = int(self.sizes.pad_token_id) if self.sizes.pool_padding else n_genes + 2
        return pack(
            cells,
            with_depth=with_depth,
            n_genes=n_genes,
            pad_value=self.sizes.pad_token_id,
            pad_position=position,
            max_tokens=self.sizes.max_tokens,
        )

    def network(self, n_classes: int) -> ScFoundationClassifier:
        """Return the encoder under the authors' fine-tuning head."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = ScFoundationClassifier(self.sizes, len(self.panel), n_classes)
        if self.weights is not None:
            network.load_state_dict(_encoder_tensors(self.weights), strict=False)
        return network

    def recipe(self) -> RecipeDefaults:
        """Return fine-tuning defaults: which layers train is the authors' choice, the rest ours."""
        if self.weights is None:
            return SCRATCH_RECIPE
        layer = self.sizes.depth - 2
        return replace(
            FINETUNE_RECIPE, trainable=(f"encoder.transformer_encoder.{layer}.*", "fc1.*")
        )

    def embed(
        self, chunks: Iterable[AnnData], *, pooling: str = "all", device: str = "cpu"
    ) -> np.ndarray:
        """Return cell embeddings: "all" (n_cells, 4 x dim) or "max" (n_cells, dim).

        Cells with at most one panel count have no embedding: their rows are NaN and their number
        is logged.
        """
        parts = [
            self.embed_tokens(self.tokenise([chunk]), pooling=pooling, device=device)
            for chunk in chunks
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self._width(pooling)), np.float32)

    def _width(self, pooling: str) -> int:
        if pooling not in POOLINGS:
            msg = f'scFoundation has no pooling "{pooling}".'
            raise InputError(msg, f"Choose one of: {', '.join(POOLINGS)}.")
        return self.sizes.dim * (4 if pooling == "all" else 1)

    @torch.no_grad()
    def embed_tokens(
        self, store: TokenStore, *, pooling: str = "all", device: str = "cpu"
    ) -> np.ndarray:
        """Embed tokens that are made already, see `embed`."""
        embeddings = np.full((len(store), self._width(pooling)), np.nan, np.float32)
        depth = store.extra["source_depth"]
        usable = np.flatnonzero(np.isfinite(depth) & (depth > 0) & (np.diff(store.indptr) > 0))
        if len(usable) < len(store):
            log.warning(
                "%d of %d cells have at most one panel count and no embedding",
                len(store) - len(usable),
                len(store),
            )
        network = self._backbone(self.embedding_weights).to(device).eval()
        # Cells of like length together, so that little is computed on padding.
        lengths = np.diff(store.indptr)[usable]
        for rows in _batches(usable[np.argsort(lengths, kind="stable")], np.sort(lengths)):
            batch = self._pack(store.take(rows), with_depth=True)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            encoded = network.encode(**batch)
            pooled = pool_cell(encoded.float(), batch["padding"], pooling)
            embeddings[rows] = pooled.cpu().numpy()
        return embeddings

    def _backbone(self, weights: Mapping[str, Tensor] | None) -> ScFoundationEncoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = ScFoundationEncoder(self.sizes, len(self.panel))
        if weights is not None:
            network.load_state_dict(_encoder_tensors(weights))
        return network


def _batches(rows: np.ndarray, lengths: np.ndarray) -> Iterable[np.ndarray]:
    """Cut rows of rising length so that a batch holds at most `TOKENS_PER_BATCH` tokens."""
    start = 0
    for stop in range(1, len(rows) + 1):
        n_cells = stop + 1 - start
        if stop == len(rows) or n_cells * (lengths[stop] + 2) > TOKENS_PER_BATCH:
            yield rows[start:stop]
            start = stop


def _encoder_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the embeddings and the encoder."""
    return {name: tensor for name, tensor in weights.items() if name.startswith(_BACKBONE)}
