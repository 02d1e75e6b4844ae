"""scGPT (Cui et al. 2024): a transformer over the expressed genes of a cell and their value bins."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

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
from backend.models.baselines.expression import check_counts
from backend.models.checkpoints import check_sizes, fit_tensors, fresh_weights, loaded_weights
from backend.models.gene_panel import count_genes
from backend.models.hashing import cell_keys, hash_names, stream_key, uniform
from backend.models.ragged import Block, Ragged, blocks, join, known_entries, pad
from backend.models.scgpt.checkpoint import FILES, NAME, UNUSED, explain, read_folder, rename
from backend.models.scgpt.network import ScGPTNetwork, ScGPTSizes
from backend.models.scgpt.pretraining import MaskedValues
from backend.models.scgpt.tokens import (
    CLS,
    EOC,
    PAD,
    bin_bounds,
    draw_bins,
    log_normalise,
    subsample,
    with_zeros,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor

__all__ = ["ScGPT", "select_hvg"]


def select_hvg(adata: AnnData, n_genes: int, *, min_counts: int = 3) -> list[str]:
    """Return highly variable genes (Seurat v3 on raw counts), in the order of the data.

    Genes with fewer counts than `min_counts` in all cells are left out first, as in the authors'
    preprocessing. Fit it on training cells only.
    """
    import scanpy as sc

    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    genes = adata.var_names[totals >= min_counts]
    if len(genes) <= n_genes:
        return list(genes)
    try:
        table = sc.pp.highly_variable_genes(
            adata[:, genes].copy(), n_top_genes=n_genes, flavor="seurat_v3", inplace=False
        )
    except ValueError as error:
        msg = f"Highly variable genes could not be found in {adata.n_obs:,} cells ({error})."
        raise InputError(
            msg, "Use more training cells, or a preset that reads all genes."
        ) from None
    return list(genes[table["highly_variable"].to_numpy()])


class ScGPT(FoundationModel):
    """scGPT as a `FoundationModel`.

    Parameters
    ----------
    config
        The preset and its sizes.
    vocabulary
        Gene symbol or special token to id.
    seed
        Seed of random weights; None draws from torch's current generator.
    """

    key = "scgpt"
    display_name = NAME
    card = ModelCard(
        summary="Transformer over expressed genes and their quantile bins, pre-trained on 33 million human cells.",
        citation="Cui H, Wang C, Maan H, et al. scGPT: toward building a foundation model for single-cell multi-omics using generative AI. Nat Methods 2024;21:1470–1480.",
        doi="10.1038/s41592-024-02201-0",
        weights_licence="MIT (code); no separate licence is stated for the weights",
        expects="raw counts with gene symbols",
        n_parameters=51_330_049,
        gpu_gib=16.0,
    )
    presets: ClassVar[Mapping[str, ModelConfig]] = {
        "whole_human": ModelConfig(
            "scgpt.whole_human", asdict(ScGPTSizes()), is_published_size=True
        ),
        "small": ModelConfig(
            "scgpt.small",
            asdict(
                ScGPTSizes(
                    embsize=64,
                    nheads=4,
                    d_hid=64,
                    nlayers=2,
                    max_length=256,
                    attention_dropout=0.0,
                    n_hvg=1200,
                )
            ),
            is_published_size=False,
        ),
    }
    head = ("cls_decoder.*",)
    has_random_tokens = True
    checkpoint_files = FILES

    def __init__(
        self, config: ModelConfig, vocabulary: Mapping[str, int], *, seed: int | None = None
    ) -> None:
        self.config = config
        self.sizes = ScGPTSizes(**config.values)
        self.vocabulary = dict(vocabulary)
        self.seed = seed
        self.weights: dict[str, Tensor] | None = None

    @classmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build with random weights over `genes`; special tokens come after them."""
        names = [*genes, PAD, CLS, EOC]
        return cls(config, {name: token for token, name in enumerate(names)}, seed=seed)

    @classmethod
    def scratch_on(cls, config: ModelConfig, train: AnnData, *, seed: int) -> Self:
        """Build over all genes of the training cells, or their highly variable ones."""
        n_hvg = config.values.get("n_hvg")
        genes = list(train.var_names) if n_hvg is None else select_hvg(train, n_hvg)
        return cls.scratch(config, genes, seed=seed)

    @classmethod
    def from_checkpoint(
        cls, folder: Path, *, accept_partial: bool = False
    ) -> tuple[Self, LoadReport]:
        """Read `args.json`, `vocab.json` and `best_model.pt` from `folder`.

        Raises
        ------
        ModelUnavailable
            If a file is missing.
        InputError
            If a file is damaged, the vocabulary does not belong to the weights, or the weights
            do not fill the backbone.
        """
        sizes, vocabulary, tensors = read_folder(folder)
        is_published = sizes == ScGPTSizes()
        config = ModelConfig("scgpt.whole_human", asdict(sizes), is_published_size=is_published)
        model = cls(config, vocabulary)
        check_sizes(config.values, lambda: model.network(2), tensors, cls.display_name)
        network = model.network(2)
        backbone = {name: tensor for name, tensor in tensors.items() if "cls_decoder." not in name}
        report = fit_tensors(
            network,
            backbone,
            display_name=cls.display_name,
            rename=rename,
            head=cls.head,
            unused=UNUSED,
            accept_partial=accept_partial,
            explain=explain,
        )
        model.weights = loaded_weights(network, report)
        dropped = sorted({*report.dropped, *(set(tensors) - set(backbone))})
        return model, replace(report, dropped=tuple(dropped))

    def state(self) -> dict[str, Any]:
        """Return preset, sizes and vocabulary as JSON values."""
        return {
            "preset": self.config.name,
            "sizes": dict(self.config.values),
            "is_published_size": self.config.is_published_size,
            "vocabulary": self.vocabulary,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the model that `state` described, with random weights."""
        config = ModelConfig(state["preset"], state["sizes"], state["is_published_size"])
        return cls(config, state["vocabulary"])

    def check_input(self, adata: AnnData) -> GeneReport:
        """Count the genes in the vocabulary; refuse other than raw counts and unknown genes."""
        check_counts(adata)
        is_known = self._gene_ids(adata.var_names) >= 0
        notes = []
        if n_empty := int((known_entries(adata.X, is_known).lengths == 0).sum()):
            notes.append(
                f"{n_empty:,} cells have no count in a known gene: all of them get one and the "
                "same prediction, from `<cls>` alone"
            )
        return count_genes(
            adata.var_names,
            is_known,
            vocabulary=f"{self.display_name}'s vocabulary",
            n_vocabulary=len(self.vocabulary.keys() - {PAD, CLS, EOC}),
            notes=notes,
        )

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0, draw: int = 0) -> TokenStore:
        """Turn raw counts into `<cls>`, then (gene, bin) in the order of the data.

        A bin that is not fixed, and the sample of a cell longer than `max_length`, are hashes of
        (seed, draw, cell id, gene): the same whatever cells and genes surround them.
        """
        return join(
            self._tokenise_block(block, seed, draw) for block in blocks(chunks, self._read_genes)
        )

    def _read_genes(self, cells: AnnData) -> tuple[np.ndarray, np.ndarray]:
        """Return the token (-1 when unknown) and the hash of each gene."""
        return self._gene_ids(cells.var_names), hash_names(cells.var_names)

    def _tokenise_block(self, block: Block, seed: int, draw: int) -> TokenStore:
        ids, of_genes = block.genes
        entries = known_entries(block.counts, ids >= 0)
        bounds = bin_bounds(entries, self.sizes.n_bins, transform=log_normalise(entries))
        of_cells = hash_names(block.cell_ids())
        keys = np.repeat(cell_keys(stream_key(seed, draw, "bin"), of_cells), entries.lengths)
        bins = draw_bins(bounds, uniform(keys, of_genes[entries.columns]))
        if self.sizes.reads_zeros:
            entries, bins = with_zeros(entries, bins, np.flatnonzero(ids >= 0))
        limit = self.sizes.max_length - 1
        if entries.lengths.max(initial=0) > limit:
            keys = np.repeat(cell_keys(stream_key(seed, draw, "sample"), of_cells), entries.lengths)
            keep = subsample(entries.lengths, uniform(keys, of_genes[entries.columns]), limit)
            before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
            entries = Ragged(before[entries.indptr], entries.columns[keep], entries.values[:0])
            bins = bins[keep]
        return self.with_cls(entries, ids[entries.columns], bins)

    def with_cls(self, entries: Ragged, ids: np.ndarray, bins: np.ndarray) -> TokenStore:
        """Put `<cls>` in front of each cell's tokens."""
        first = entries.indptr[:-1]
        return TokenStore(
            indptr=entries.indptr + np.arange(len(entries.indptr)),
            ids=np.insert(ids.astype(np.int32), first, self.vocabulary[CLS]),
            values=np.insert(bins.astype(np.float32), first, 0),
        )

    def collate(self, cells: TokenBatch) -> dict[str, Tensor]:
        """Pad a batch to its longest cell."""
        genes = pad(cells.ids, self.vocabulary[PAD], np.int64)
        is_padding = genes == self.vocabulary[PAD]
        batch = {
            "genes": torch.from_numpy(genes),
            "values": torch.from_numpy(pad(cells.values, self.sizes.pad_value, np.float32)),
        }
        return batch | ({"is_padding": torch.from_numpy(is_padding)} if is_padding.any() else {})

    def network(self, n_classes: int) -> ScGPTNetwork:
        """Return the classifier: this model's backbone under a fresh head."""
        with fresh_weights(self.seed):
            pad_id = self.vocabulary[PAD]
            network = ScGPTNetwork(self.sizes, len(self.vocabulary), pad_id, n_classes)
        if self.weights is not None:
            network.load_state_dict(self.weights, strict=False)
        return network

    def recipe(self) -> RecipeDefaults:
        """Return the settings of the authors' annotation tutorial; `small` learns faster."""
        is_small = self.config.name == "scgpt.small"
        return RecipeDefaults(
            optimizer="adam",
            learning_rate=1e-3 if is_small else 1e-4,
            batch_size=32,
            epochs=10,
            schedule="step",
            schedule_values={"every_epochs": 1, "gamma": 0.9},
            optimizer_values={"betas": (0.9, 0.999), "eps": 1e-8},
            clip_norm=1.0,
            select_by="valid_loss",
        )

    def pretraining_objective(self) -> MaskedValues:
        """Return masked value prediction."""
        return MaskedValues(self)

    def _gene_ids(self, genes: Iterable[str]) -> np.ndarray:
        special = (PAD, CLS, EOC)
        return np.array(
            [-1 if gene in special else self.vocabulary.get(gene, -1) for gene in genes], np.int64
        )
