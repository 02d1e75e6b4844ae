"""Geneformer (Theodoris et al. 2023): BERT over the genes of a cell, ranked by expression."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from transformers import BertConfig

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
from backend.models.baselines.expression import MIN_CELLS, check_counts, detected_genes
from backend.models.checkpoints import check_sizes, fit_tensors, fresh_weights, loaded_weights
from backend.models.gene_panel import count_genes
from backend.models.geneformer.checkpoint import FILES, NAME, checkpoint_places, read_folder
from backend.models.geneformer.network import PRESETS, GeneformerNetwork
from backend.models.geneformer.pretraining import MaskedGenes
from backend.models.geneformer.tokens import (
    CLS,
    EOS,
    MASK,
    PAD,
    Dictionaries,
    Genes,
    entries_of,
    nonzero_medians,
    rank,
)
from backend.models.ragged import Block, Ragged, blocks, join, pad

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor

__all__ = ["Geneformer"]


class Geneformer(FoundationModel):
    """Geneformer as a `FoundationModel`: V1 (no special tokens) and V2 (`<cls>`, `<eos>`).

    Parameters
    ----------
    config
        The preset: values of BERT's configuration, and `has_cls`.
    dictionaries
        Tokens, medians and current ids of genes.
    seed
        Seed of random weights; None draws from torch's current generator.
    """

    key = "geneformer"
    display_name = NAME
    card = ModelCard(
        summary="BERT over genes ranked by expression relative to each gene's median, pre-trained on 30 (V1) or 104 (V2) million human cells.",
        citation="Theodoris CV, Xiao L, Chopra A, et al. Transfer learning enables predictions in network biology. Nature 2023;618:616–624.",
        doi="10.1038/s41586-023-06139-9",
        weights_licence="Apache-2.0",
        expects="raw counts of all genes with Ensembl ids",
        n_parameters=104_386_867,
        gpu_gib=24.0,
    )
    presets: ClassVar[Mapping[str, ModelConfig]] = PRESETS
    head = ("bert.pooler.*", "classifier.*")
    lora_targets = ("query", "value")
    """Linear layers beside which adapters may be trained, by the end of their names."""
    checkpoint_files = FILES
    checkpoint_places = staticmethod(checkpoint_places)

    def __init__(
        self, config: ModelConfig, dictionaries: Dictionaries, *, seed: int | None = None
    ) -> None:
        self.config = config
        self.dictionaries = dictionaries
        self.seed = seed
        self.files = dictionaries.paths
        self.weights: dict[str, Tensor] | None = None

    @property
    def max_length(self) -> int:
        """Longest sequence with special tokens."""
        return int(self.config.values["max_position_embeddings"])

    @property
    def has_cls(self) -> bool:
        """Whether sequences begin with `<cls>` and end with `<eos>` (V2)."""
        return bool(self.config.values["has_cls"])

    @classmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build with random weights over `genes`, all with the median 1."""
        special = [PAD, MASK, CLS, EOS] if config.values["has_cls"] else [PAD, MASK]
        tokens = {name: token for token, name in enumerate([*special, *genes])}
        return cls(config, Dictionaries(tokens, dict.fromkeys(genes, 1.0), {}), seed=seed)

    @classmethod
    def scratch_on(cls, config: ModelConfig, train: AnnData, *, seed: int) -> Self:
        """Build over the genes found in 10 training cells, with their medians there.

        The vectors of rarer genes would stay as random as they begin. Of fewer than 100 cells, a
        tenth is enough.
        """
        genes = detected_genes(train, min_cells=max(1, min(MIN_CELLS, train.n_obs // 10)))
        model = cls.scratch(config, genes, seed=seed)
        medians = dict(zip(train.var_names, nonzero_medians(train.X).tolist(), strict=True))
        model.dictionaries.medians.update({gene: medians[gene] for gene in genes})
        return model

    @classmethod
    def from_checkpoint(
        cls, folder: Path, *, accept_partial: bool = False
    ) -> tuple[Self, LoadReport]:
        """Read `config.json`, `model.safetensors` and the dictionaries of their version.

        Dictionaries are looked for in the folder, in `dictionaries/`, and where the authors'
        repository has them, beside or inside the model's folder.

        Raises
        ------
        ModelUnavailable
            If a file is missing.
        InputError
            If a file is damaged, the dictionaries do not belong to the model, or the weights do
            not fill the backbone.
        """
        sizes, dictionaries, tensors = read_folder(folder)
        config = next(
            (known for known in cls.presets.values() if known.values == sizes),
            ModelConfig(
                cls.presets["v2_104m" if sizes["has_cls"] else "v1_10m"].name,
                sizes,
                is_published_size=False,
            ),
        )
        model = cls(config, dictionaries)
        check_sizes(config.values, lambda: model.network(2), tensors, cls.display_name)
        network = model.network(2)
        is_head = {name for name in tensors if name.startswith(("bert.pooler.", "classifier."))}
        report = fit_tensors(
            network,
            {name: tensor for name, tensor in tensors.items() if name not in is_head},
            display_name=cls.display_name,
            head=cls.head,
            unused=("cls.predictions.*", "bert.embeddings.position_ids"),
            accept_partial=accept_partial,
        )
        model.weights = loaded_weights(network, report)
        return model, replace(report, dropped=tuple(sorted({*report.dropped, *is_head})))

    def state(self) -> dict[str, Any]:
        """Return preset, sizes and dictionaries as JSON values."""
        return {
            "preset": self.config.name,
            "sizes": dict(self.config.values),
            "is_published_size": self.config.is_published_size,
            "tokens": self.dictionaries.tokens,
            "medians": self.dictionaries.medians,
            "current_ids": self.dictionaries.current_ids,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the model that `state` described, with random weights."""
        config = ModelConfig(state["preset"], state["sizes"], state["is_published_size"])
        parts = (state["tokens"], state["medians"], state["current_ids"])
        return cls(config, Dictionaries(*parts))

    def _gene_ids(self, adata: AnnData) -> Sequence[str]:
        """Return the ids to look genes up by: Ensembl ids, or symbols for symbol vocabularies."""
        if self.dictionaries.uses_ensembl:
            for column in ("ensembl", "ensembl_id"):
                if column in adata.var:
                    return ["" if gene != gene else str(gene) for gene in adata.var[column]]
        return [str(gene) for gene in adata.var_names]

    def _totals(self, adata: AnnData, rows: slice = slice(None)) -> np.ndarray:
        """Return the counts of each cell over all genes, also those left out since."""
        if "n_counts" in adata.obs:
            return adata.obs["n_counts"].to_numpy(dtype=np.float64)[rows]
        return np.asarray(sp.csr_matrix(adata.X)[rows].sum(axis=1, dtype=np.float64)).ravel()

    def _check_totals(self, adata: AnnData) -> None:
        given = self._totals(adata)
        own = np.asarray(adata.X.sum(axis=1, dtype=np.float64)).ravel()
        if (bad := given < own * (1 - 1e-5)).any():
            first = int(np.flatnonzero(bad)[0])
            msg = (
                f"`obs` gives {int(bad.sum()):,} cells fewer counts than `X` holds, for example "
                f"{given[first]:g} and {own[first]:g} for {adata.obs_names[first]}."
            )
            raise InputError(msg, "Recompute `n_counts` as the sum over all genes.")

    def check_input(self, adata: AnnData) -> GeneReport:
        """Count the genes in the dictionary; refuse other than raw counts and unknown ids."""
        check_counts(adata)
        ids = self._gene_ids(adata)
        tokens = self.dictionaries.tokens_of(ids)
        is_known = tokens >= 0
        hint = "Use the gene symbols that the model was built on."
        if self.dictionaries.uses_ensembl:
            hint = (
                "Geneformer needs human Ensembl ids without version (ENSG00000000003) in "
                '`var["ensembl"]`; import the file with `data import`, which finds them.'
            )
        counted = count_genes(
            ids,
            is_known,
            vocabulary=f"{self.display_name}'s dictionary",
            n_vocabulary=len(self.dictionaries.medians),
            hint=hint,
        )
        self._check_totals(adata)
        notes = []
        if n_shared := counted.n_matched - len(np.unique(tokens[is_known])):
            notes.append(
                f"{n_shared:,} columns have the id of another one: their counts are summed"
            )
        if n_symbols := self.dictionaries.count_aliases(ids):
            notes.append(f"{n_symbols:,} ids were replaced by the current ones of the authors")
        entries = entries_of(sp.csr_matrix(adata.X), self._read_genes(adata))
        if n_empty := int((entries.lengths == 0).sum()):
            notes.append(
                f"{n_empty:,} cells have no count in a known gene: all of them get one and the "
                "same prediction (the reference leaves such cells out)"
            )
        return replace(counted, notes=tuple(notes))

    def _read_genes(self, cells: AnnData) -> Genes:
        tokens = self.dictionaries.tokens_of(self._gene_ids(cells))
        found, column, number = np.unique(
            tokens[tokens >= 0], return_inverse=True, return_counts=True
        )
        summing = None
        if (number > 1).any():
            known = np.flatnonzero(tokens >= 0)
            summing = sp.csr_matrix(
                (np.ones(len(known), np.float32), (known, column)),
                shape=(len(tokens), len(found)),
            )
            tokens = found
        return Genes(tokens, self.dictionaries.medians_of(tokens), summing)

    def rank(self, cells: AnnData) -> tuple[Ragged, np.ndarray]:
        """Return each cell's genes by falling value, as (tokens and counts, values in float64).

        The `columns` of the result are tokens; special tokens and truncation come later.
        """
        counts, genes = sp.csr_matrix(cells.X), self._read_genes(cells)
        return rank(counts, genes, self._totals(cells))

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0) -> TokenStore:
        """Turn raw counts into ranked genes, cut at the input size.

        Nothing is drawn at random, so `seed` changes nothing. `values` are the ranked values.
        """
        del seed
        return join(self._tokenise_block(block) for block in blocks(chunks, self._read_genes))

    def _tokenise_block(self, block: Block) -> TokenStore:
        totals = self._totals(block.cells, block.rows)
        ranked, values = rank(block.counts, block.genes, totals)
        limit = self.max_length - 2 * self.has_cls
        place = np.arange(len(values)) - np.repeat(ranked.indptr[:-1], ranked.lengths)
        is_kept = place < limit
        lengths = np.minimum(ranked.lengths, limit)
        indptr = np.append(0, np.cumsum(lengths)).astype(np.int64)
        ids, values = ranked.columns[is_kept], values[is_kept].astype(np.float32)
        tokens = self.dictionaries.tokens
        if self.has_cls:
            # One place takes the `<eos>` of a cell, then the `<cls>` of the next: order is kept.
            at = np.column_stack([indptr[:-1], indptr[1:]]).ravel()
            special = np.tile([tokens[CLS], tokens[EOS]], len(lengths))
            ids, values = np.insert(ids, at, special), np.insert(values, at, 0)
            return TokenStore(indptr + 2 * np.arange(len(indptr)), ids, values)
        # A sequence needs a token; `<mask>` stands for "nothing known" (the reference drops the cell).
        empty = lengths == 0
        ids = np.insert(ids, indptr[:-1][empty], tokens[MASK])
        values = np.insert(values, indptr[:-1][empty], 0)
        return TokenStore(indptr + np.append(0, np.cumsum(empty)), ids, values)

    def collate(self, cells: TokenBatch) -> dict[str, Tensor]:
        """Pad a batch to its longest cell."""
        input_ids = pad(cells.ids, self.dictionaries.tokens[PAD], np.int64)
        lengths = np.array([len(row) for row in cells.ids])
        mask = (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask),
        }

    def network(self, n_classes: int) -> GeneformerNetwork:
        """Return the classifier: this model's backbone under a fresh pooler and head."""
        values = {name: value for name, value in self.config.values.items() if name != "has_cls"}
        values |= {
            "vocab_size": len(self.dictionaries.tokens),
            "pad_token_id": self.dictionaries.tokens[PAD],
            "num_labels": n_classes,
            "attn_implementation": "sdpa",
        }
        with fresh_weights(self.seed):
            network = GeneformerNetwork(BertConfig(**values))
        if self.weights is not None:
            network.load_state_dict(self.weights, strict=False)
        return network

    def recipe(self) -> RecipeDefaults:
        """Return the authors' `Classifier` defaults; `small` learns faster.

        Only models of 6 layers have a warm-up there.
        """
        is_small = self.config.name == "geneformer.small"
        return RecipeDefaults(
            optimizer="adamw",
            learning_rate=1e-3 if is_small else 5e-5,
            batch_size=32 if is_small else 12,
            epochs=10,
            schedule="linear",
            weight_decay=0.001,
            optimizer_values={
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "no_decay": ("*.bias", "*LayerNorm.weight"),
            },
            warmup_steps=500 if self.config.values["num_hidden_layers"] == 6 else 0,
            clip_norm=1.0,
            select_by="valid_loss",
        )

    def pretraining_objective(self) -> MaskedGenes:
        """Return masked gene prediction."""
        return MaskedGenes(self)
