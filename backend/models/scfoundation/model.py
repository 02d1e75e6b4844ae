"""scFoundation (Hao et al. 2024): a transformer over expressed genes and two read-depth tokens."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from backend.models.base import LoadReport, ModelCard, ModelConfig, RecipeDefaults, TokenStore
from backend.models.checkpoints import check_sizes, fit_tensors, fresh_weights
from backend.models.gene_panel import PanelModel, model_config
from backend.models.scfoundation.checkpoint import FILES, FINETUNE_ENTRY, NAME, read_folder
from backend.models.scfoundation.network import (
    ScFoundationAutoencoder,
    ScFoundationClassifier,
    ScFoundationSizes,
)
from backend.models.scfoundation.pretraining import MaskedExpression
from backend.models.scfoundation.tokens import pack, prepare_values, target_depth

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    import scipy.sparse as sp
    from anndata import AnnData
    from torch import Tensor

    from backend.models.base import TokenBatch

__all__ = ["ScFoundation"]

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

SCRATCH_RECIPE: Final = replace(FINETUNE_RECIPE, learning_rate=1e-3, epochs=10)
"""Ours, for random weights: every layer trains."""


class ScFoundation(PanelModel):
    """scFoundation as a `FoundationModel`, see `PanelModel`."""

    key = "scfoundation"
    display_name = NAME
    card = ModelCard(
        summary="Transformer over expressed genes of a 19,264-gene index, values as soft bins.",
        citation="Hao et al., Nature Methods 2024",
        doi="10.1038/s41592-024-02305-7",
        weights_licence="scFoundation License: non-commercial research only, no redistribution",
        expects="raw counts, human gene symbols",
        n_parameters=119_252_285,
        gpu_gib=None,
    )
    sizes_type = ScFoundationSizes
    presets: ClassVar[Mapping[str, ModelConfig]] = {
        "cell_01b": model_config("scfoundation.cell_01b", ScFoundationSizes()),
        "small": model_config(
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
    }
    head = ("fc1.*", "norm.*")
    options: ClassVar[Mapping[str, type | tuple[str, ...]]] = {
        "max_tokens": int,
        "resolution": str,
        "depth_tokens": bool,
        "pool_padding": bool,
    }
    checkpoint_files = FILES

    @classmethod
    def from_checkpoint(
        cls, folder: Path, *, accept_partial: bool = False
    ) -> tuple[Self, LoadReport]:
        """Read the authors' gene index and, of their weight sets, the one to fine-tune.

        Raises
        ------
        ModelUnavailable
            If a file is missing.
        InputError
            If a file is damaged or of another layout, or files do not belong together.
        """
        sizes, panel, tensors = read_folder(folder)
        check_sizes(
            asdict(sizes),
            lambda: ScFoundationAutoencoder(sizes, len(panel)),
            tensors,
            cls.display_name,
        )
        network = ScFoundationAutoencoder(sizes, len(panel))
        report = fit_tensors(
            network, tensors, display_name=cls.display_name, accept_partial=accept_partial
        )
        config = model_config("scfoundation.cell_01b", sizes)
        note = f'weights "{FINETUNE_ENTRY}" are fine-tuned'
        model = cls(config, panel, weights=network.state_dict())
        return model, replace(report, notes=(*report.notes, note))

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return the same model with some of `options` changed."""
        changed = super().with_options(options)
        target_depth(changed.sizes.resolution, np.zeros(1))
        return changed

    def _notes(self, adata: AnnData) -> list[str]:
        notes = []
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
        return notes

    def _tokens(self, aligned: sp.csr_matrix) -> TokenStore:
        values, target, source = prepare_values(aligned, resolution=self.sizes.resolution)
        return TokenStore(
            indptr=values.indptr.astype(np.int64),
            ids=values.indices.astype(np.int32, copy=False),
            values=values.data,
            extra={"target_depth": target, "source_depth": source},
        )

    def collate(self, cells: TokenBatch) -> dict[str, Tensor]:
        """Pad the expressed genes of a batch (and T and S with the option `depth_tokens`)."""
        n_genes = len(self.panel)
        # The reference's padding borrows the gene at place 103; seen only if padding is pooled.
        position = int(self.sizes.pad_token_id) if self.sizes.pool_padding else n_genes + 2
        return pack(
            cells,
            with_depth=self.sizes.depth_tokens,
            n_genes=n_genes,
            pad_value=self.sizes.pad_token_id,
            pad_position=position,
            max_tokens=self.sizes.max_tokens,
        )

    def network(self, n_classes: int) -> ScFoundationClassifier:
        """Return the encoder under the authors' fine-tuning head."""
        with fresh_weights(self.seed):
            network = ScFoundationClassifier(self.sizes, len(self.panel), n_classes)
        if self.weights is not None:
            backbone = {
                name: tensor for name, tensor in self.weights.items() if name.startswith(_BACKBONE)
            }
            network.load_state_dict(backbone, strict=False)
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

    def pretraining_objective(self) -> MaskedExpression:
        """Return masked expression regression."""
        return MaskedExpression(self)
