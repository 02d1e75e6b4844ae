"""scFoundation (Hao et al. 2024): a transformer over expressed genes and two read-depth tokens."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError
from backend.models.base import (
    FoundationModel,
    GeneReport,
    LoadReport,
    ModelCard,
    ModelConfig,
    RecipeDefaults,
    TokenBatch,
    TokenStore,
)
from backend.models.checkpoints import CheckpointFile, fit_tensors, read_torch, unavailable
from backend.models.gene_panel import (
    align_to_panel,
    check_panel_input,
    choose_panel,
    find_file,
    read_gene_list,
)
from backend.models.options import check_options
from backend.models.ragged import join
from backend.models.scfoundation.network import (
    N_SPECIAL,
    ScFoundationAutoencoder,
    ScFoundationClassifier,
    ScFoundationEncoder,
    ScFoundationSizes,
    pool_cell,
)
from backend.models.scfoundation.tokens import pack, prepare_values, read_entry, target_depth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from anndata import AnnData

log = logging.getLogger(__name__)

POOLINGS: Final = ("all", "max")

TOKENS_PER_BATCH: Final = 16_384
"""Of an embedding batch; the longest cell goes through whatever its length."""

_WHERE: Final = (
    "Get models.ckpt from the authors: the link is in the README of "
    "github.com/biomap-research/scFoundation, folder model."
)
FINETUNE_ENTRY: Final = "gene"
EMBEDDING_ENTRY: Final = "cell"
_DECODER: Final = ("decoder*", "norm.*", "to_final.*")
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
    learning_rate=1e-3,
    batch_size=32,
    epochs=10,
    schedule="constant",
    clip_norm=1.0,
    select_by="valid_loss",
)
"""Ours, for random weights: every layer trains."""


def sizes_of(config: ModelConfig) -> ScFoundationSizes:
    """Read the sizes and options of a preset, refusing unknown names."""
    known = {field.name for field in fields(ScFoundationSizes)}
    if unknown := sorted(set(config.values) - known):
        msg = f"scFoundation has no option {', '.join(unknown)}."
        raise InputError(msg, f"Choose from: {', '.join(sorted(known))}.")
    return ScFoundationSizes(**config.values)


def model_config(name: str, sizes: ScFoundationSizes) -> ModelConfig:
    """Return the preset of some sizes and options."""
    published = ScFoundationSizes()
    names = ("dim", "depth", "heads", "n_bins", "decoder_dim", "decoder_depth", "decoder_heads")
    is_published_size = all(getattr(sizes, name) == getattr(published, name) for name in names)
    return ModelConfig(name, asdict(sizes), is_published_size)


class ScFoundation(FoundationModel):
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
        Of the weights that no checkpoint gives; None draws from torch's current generator.
    """

    key = "scfoundation"
    display_name = "scFoundation"
    card = ModelCard(
        summary="Transformer over expressed genes of a 19,264-gene index, values as soft bins.",
        citation="Hao et al., Nature Methods 2024",
        doi="10.1038/s41592-024-02305-7",
        weights_licence="scFoundation License: non-commercial research only, no redistribution",
        expects="raw counts, human gene symbols",
        n_parameters=119_252_285,
        gpu_gib=None,
    )
    presets: ClassVar[Mapping[str, ModelConfig]] = {
        config.name.partition(".")[2]: config
        for config in (
            model_config("scfoundation.cell_01b", ScFoundationSizes()),
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

    head = ("fc1.*", "norm.*")
    options: ClassVar[Mapping[str, type | tuple[str, ...]]] = {
        "max_tokens": int,
        "resolution": str,
        "depth_tokens": bool,
        "pool_padding": bool,
    }
    checkpoint_files = (
        CheckpointFile("scfoundation.cell_01b", "models.ckpt", None, "", _WHERE),
        CheckpointFile(
            "scfoundation.cell_01b",
            "OS_scRNA_gene_index.19264.tsv",
            228_232,
            "bb337ea195d94e7b033543abc02a42e7060d6562eba97deb077f7dcecec62661",
            "In the authors' repository github.com/biomap-research/scFoundation, folder model.",
        ),
    )

    def __init__(
        self,
        config: ModelConfig,
        panel: Sequence[str],
        *,
        weights: Mapping[str, Tensor] | None = None,
        embedding_weights: Mapping[str, Tensor] | None = None,
        seed: int | None = None,
    ) -> None:
        self.config = config
        self.sizes = sizes_of(config)
        self.panel = tuple(panel)
        self.weights = weights
        self._embedding_weights = embedding_weights
        self.seed = seed

    @property
    def embedding_weights(self) -> Mapping[str, Tensor] | None:
        """Tensors of cell embeddings: `weights` where a checkpoint has no others."""
        return self.weights if self._embedding_weights is None else self._embedding_weights

    @classmethod
    def from_checkpoint(
        cls, folder: Path, *, accept_partial: bool = False
    ) -> tuple[Self, LoadReport]:
        """Read the authors' gene index and file of three weight sets.

        The set "gene" is fine-tuned and the set "cell" embeds cells, as the authors do.

        Raises
        ------
        ModelUnavailable
            If a file is missing.
        InputError
            If a file is damaged or of another layout, or files do not belong together.
        """
        weights_name, index_name = (file.name for file in cls.checkpoint_files)
        weights_path = find_file(folder, (weights_name,), "*.ckpt")
        index_path = find_file(folder, (index_name, "gene_index.tsv"), "*gene_index*.tsv")
        if weights_path is None or index_path is None:
            missing = [
                name
                for name, path in ((weights_name, weights_path), (index_name, index_path))
                if path is None
            ]
            raise unavailable(cls.display_name, folder, missing, _WHERE)
        panel = read_gene_list(index_path)
        file = read_torch(weights_path)
        sizes, tensors = read_entry(file, FINETUNE_ENTRY, weights_path.name)
        embedding_sizes, embedding_tensors = read_entry(file, EMBEDDING_ENTRY, weights_path.name)
        del file
        if embedding_sizes != sizes:
            msg = f'"{FINETUNE_ENTRY}" and "{EMBEDDING_ENTRY}" of `{weights_path.name}` differ in size.'
            raise InputError(msg, "Use models.ckpt of the authors.")
        n_positions = len(tensors.get("pos_emb.weight", ()))
        if n_positions != len(panel) + N_SPECIAL:
            msg = (
                f"The weights are for {n_positions - N_SPECIAL:,} genes, but `{index_path.name}` has "
                f"{len(panel):,}: they do not belong together."
            )
            raise InputError(msg, "Use the gene index of the weights, in its order.")
        network = ScFoundationAutoencoder(sizes, len(panel))
        report = fit_tensors(
            network, tensors, display_name=cls.display_name, accept_partial=accept_partial
        )
        embedder = ScFoundationEncoder(sizes, len(panel))
        fit_tensors(
            embedder,
            embedding_tensors,
            display_name=cls.display_name,
            unused=_DECODER,
            accept_partial=accept_partial,
        )
        note = f'weights "{FINETUNE_ENTRY}" are fine-tuned, "{EMBEDDING_ENTRY}" embed cells'
        model = cls(
            model_config("scfoundation.cell_01b", sizes),
            panel,
            weights=network.state_dict(),
            embedding_weights=embedder.state_dict(),
        )
        return model, replace(report, notes=(*report.notes, note))

    @classmethod
    def scratch_on(cls, config: ModelConfig, train: AnnData, *, seed: int) -> Self:
        """Build scFoundation with random weights over an index chosen on training cells."""
        return cls.scratch(config, choose_panel(train, sizes_of(config).panel_size), seed=seed)

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return the same model with some of `options` changed."""
        check_options(options, self.options, self.display_name)
        sizes = replace(self.sizes, **options)
        target_depth(sizes.resolution, np.zeros(1))
        return type(self)(
            model_config(self.config.name, sizes),
            self.panel,
            weights=self.weights,
            embedding_weights=self._embedding_weights,
            seed=self.seed,
        )

    def state(self) -> dict[str, Any]:
        """Return all but the weights as JSON values."""
        return {"preset": self.config.name, "sizes": asdict(self.sizes), "panel": list(self.panel)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the model that `state` described, with random weights."""
        config = model_config(state["preset"], ScFoundationSizes(**state["sizes"]))
        return cls(config, state["panel"])

    @classmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build scFoundation with random weights over the index `genes`."""
        return cls(config, genes, seed=seed)

    def check_input(self, adata: AnnData) -> GeneReport:
        """Raise `InputError` when `adata` cannot be used; otherwise count the known genes."""
        report = check_panel_input(adata, self.panel, display_name=self.display_name)
        notes = list(report.notes)
        if self.sizes.panel_size is not None:
            notes.append(f"not as published: {len(self.panel):,} genes chosen on training cells")
        if self.sizes.max_tokens is not None:
            notes.append(
                f"not as published: at most {self.sizes.max_tokens} genes a cell are read, those "
                "with the highest counts"
            )
        if self.sizes.depth_tokens:
            notes.append("not as published: the classifier reads the two read-depth tokens")
        if self.sizes.pool_padding:
            notes.append(
                "as in the reference, a prediction depends on the other cells of its batch"
            )
        return replace(report, notes=tuple(notes))

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0) -> TokenStore:
        """Log-normalise the expressed panel genes of each cell; `ids` are index positions.

        `extra` holds the depths T and S of each cell (log10). Nothing is drawn at random, so
        `seed` changes nothing.
        """
        del seed
        return join(self._tokens(chunk) for chunk in chunks)

    def _tokens(self, chunk: AnnData) -> TokenStore:
        counts = align_to_panel(chunk.X, chunk.var_names, self.panel)
        values, target, source = prepare_values(counts, resolution=self.sizes.resolution)
        return TokenStore(
            indptr=values.indptr.astype(np.int64),
            ids=values.indices.astype(np.int32, copy=False),
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
        with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
            if self.seed is not None:
                torch.manual_seed(self.seed)
            network = ScFoundationClassifier(self.sizes, len(self.panel), n_classes)
        if self.weights is not None:
            network.load_state_dict(_encoder_tensors(self.weights), strict=False)
        return network

    def recipe(self) -> RecipeDefaults:
        """Return fine-tuning defaults: which layers train is the authors' choice, the rest ours.

        `small` trains every layer from any start, so that starts can be compared.
        """
        if self.weights is None or self.config.name == "scfoundation.small":
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
        with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
            if self.seed is not None:
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
