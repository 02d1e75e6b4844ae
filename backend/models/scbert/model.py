"""scBERT (Yang et al. 2022): every panel gene of a cell read as a binned token by a Performer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch

from backend.models.base import LoadReport, ModelCard, ModelConfig, RecipeDefaults, TokenStore
from backend.models.checkpoints import check_sizes, fit_tensors, fresh_weights
from backend.models.gene_panel import PanelModel, align_to_panel, model_config
from backend.models.scbert.checkpoint import FILES, NAME, PUBLISHED, read_folder
from backend.models.scbert.network import ScBertNetwork, ScBertSizes
from backend.models.scbert.pretraining import MaskedBins
from backend.models.scbert.tokens import MIN_GENES, bin_counts, passes_gene_filter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    import scipy.sparse as sp
    from anndata import AnnData
    from torch import Tensor

    from backend.models.base import TokenBatch

__all__ = ["AUTHORS_RECIPE", "ScBert"]

AUTHORS_RECIPE: Final = RecipeDefaults(
    optimizer="adam",
    learning_rate=1e-4,
    batch_size=3,
    epochs=100,
    schedule="cosine_restarts",
    schedule_values={
        "min_lr": 1e-6,
        "first_cycle": 15,
        "cycle_mult": 2,
        "warmup": 5,
        "gamma": 0.9,
        "patience": 11,
    },
    clip_norm=1e6,
    accumulate=60,
    select_by="valid_accuracy",
)
"""Defaults of the authors' finetune.py; `trainable` depends on the depth."""

SCRATCH_RECIPE: Final = RecipeDefaults(
    optimizer="adam",
    learning_rate=1e-3,
    batch_size=32,
    epochs=10,
    schedule="constant",
    clip_norm=1.0,
    select_by="valid_loss",
)
"""Ours, for random weights: every layer trains, in larger batches."""


class ScBert(PanelModel):
    """scBERT as a `FoundationModel`, see `PanelModel`.

    Token i is gene i of the panel, and one zero token follows. Of `weights`, the head is left out
    unless its size fits.
    """

    key = "scbert"
    display_name = NAME
    card = ModelCard(
        summary="Performer over all 16,906 panel genes with binned expression.",
        citation="Yang et al., Nature Machine Intelligence 2022",
        doi="10.1038/s42256-022-00534-z",
        weights_licence="GPL-3.0 (Tencent); research use",
        expects="raw counts, human gene symbols",
        n_parameters=8_388_607,
        gpu_gib=None,
    )
    sizes_type = ScBertSizes
    presets: ClassVar[Mapping[str, ModelConfig]] = {
        "panglao": model_config("scbert.panglao", PUBLISHED),
        "small": model_config(
            "scbert.small",
            ScBertSizes(
                dim=64, depth=2, heads=4, dim_head=16, panel_size=1024, expressed_only=True
            ),
        ),
    }
    head = ("to_out.*",)
    options: ClassVar[Mapping[str, type | tuple[str, ...]]] = {
        "expressed_only": bool,
        "key_maximum": ("cell", "batch"),
        "redraw_features": bool,
        "checkpoint_activations": bool,
    }
    checkpoint_files = FILES

    @classmethod
    def from_checkpoint(
        cls, folder: Path, *, accept_partial: bool = False
    ) -> tuple[Self, LoadReport]:
        """Read the authors' weights, gene panel and, where the weights lack them, gene vectors.

        Raises
        ------
        ModelUnavailable
            If a file is missing.
        InputError
            If a file is damaged, or files do not belong together.
        """
        sizes, panel, tensors, notes = read_folder(folder)
        config = model_config("scbert.panglao", sizes)
        model = cls(config, panel)
        check_sizes(config.values, lambda: model.network(None), tensors, cls.display_name)
        network = model.network(None)
        report = fit_tensors(
            network,
            tensors,
            display_name=cls.display_name,
            head=cls.head,
            unused=cls.head,
            accept_partial=accept_partial,
        )
        report = replace(report, notes=(*report.notes, *notes))
        return cls(config, panel, weights=network.state_dict()), report

    def _notes(self, adata: AnnData) -> list[str]:
        notes = []
        if self.sizes.panel_size is None:
            aligned = align_to_panel(adata.X, adata.var_names, self.panel)
            if n_few := int((~passes_gene_filter(aligned)).sum()):
                notes.append(
                    f"{n_few:,} cells have fewer than {MIN_GENES} detected panel genes: "
                    "the authors drop them, here they are kept"
                )
        if self.sizes.expressed_only:
            notes.append("not as published: only the genes that a cell expresses are read")
        if self.sizes.key_maximum == "batch":
            notes.append(
                "as in the reference, a prediction depends on the other cells of its batch"
            )
        if self.sizes.redraw_features:
            notes.append("as in the reference, random features are redrawn in training")
        return notes

    def _tokens(self, aligned: sp.csr_matrix) -> TokenStore:
        # Genes below 1 in 10,000 have bin 0, like those that are not expressed.
        return TokenStore(
            indptr=aligned.indptr.astype(np.int64),
            ids=aligned.indices.astype(np.int32, copy=False),
            values=bin_counts(aligned, self.sizes.n_bins).astype(np.float32),
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
        with fresh_weights(self.seed):
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
        """Return the authors' fine-tuning defaults, or ours where there are no weights to keep.

        `small` trains every layer from any start, so that starts can be compared.
        """
        if self.weights is None or self.config.name == "scbert.small":
            return SCRATCH_RECIPE
        return replace(
            AUTHORS_RECIPE,
            trainable=(f"performer.net.layers.{self.sizes.depth - 2}.*", "norm.*", "to_out.*"),
        )

    def pretraining_objective(self) -> MaskedBins:
        """Return masked bin prediction."""
        return MaskedBins(self)
