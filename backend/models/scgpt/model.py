"""scGPT (Cui et al. 2024): a transformer over the expressed genes of a cell and their value bins."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
import torch
import torch.nn.functional as F

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
from backend.models.checkpoints import (
    CheckpointFile,
    fit_tensors,
    read_json,
    read_tensors,
    unavailable,
)
from backend.models.hashing import cell_keys, hash_names, stream_key, uniform
from backend.models.ragged import Block, Ragged, blocks, join, known_entries, pad
from backend.models.scgpt.network import ScGPTNetwork, ScGPTSizes
from backend.models.scgpt.tokens import bin_bounds, draw_bins, log_normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor

__all__ = ["ScGPT", "mask_values", "select_hvg", "subsample", "with_zeros"]

PAD, CLS, EOC = "<pad>", "<cls>", "<eoc>"
ZERO_SHOT_LENGTH: Final = 1200
"""Longest sequence of the authors' embedding helper, as in pre-training."""

MIN_SHARE_MATCHED: Final = 0.05
_SOURCE: Final = (
    "The authors offer the whole-human checkpoint as a Google Drive folder, linked in the README "
    "of github.com/bowang-lab/scGPT."
)


def mask_values(
    values: np.ndarray,
    ratio: float,
    generator: np.random.RandomState | np.random.Generator,
    *,
    mask_value: float = -1,
    pad_value: float = -2,
) -> np.ndarray:
    """Replace a share of each row's values by the mask; padding is spared, `<cls>` is not.

    The number masked is the whole part of ratio × tokens. The input is not changed.
    """
    masked = values.copy()
    for row in masked:
        tokens = np.flatnonzero(row != pad_value)
        row[generator.choice(tokens, int(len(tokens) * ratio), replace=False)] = mask_value
    return masked


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


def subsample(lengths: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Return which entries to keep: in each longer cell the `limit` with the lowest scores."""
    keep = np.ones(len(scores), dtype=bool)
    if not len(lengths) or lengths.max() <= limit:
        return keep
    is_long = np.repeat(lengths > limit, lengths)
    rows = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)[is_long]
    # 44 bits of the score order the entries of a cell; a block has fewer than 2**20 cells.
    key = (rows << np.uint64(44)) | (scores[is_long] * 2.0**44).astype(np.uint64)
    order = np.argsort(key)
    long_lengths = lengths[lengths > limit]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(long_lengths) - long_lengths, long_lengths)
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order] = rank < limit
    keep[is_long] = chosen
    return keep


def rename(name: str) -> str:
    """Return the plain-torch name of a tensor in any of the authors' attention namings."""
    name = name.replace(".self_attn._impl.", ".self_attn.")
    return name.replace(".self_attn.Wqkv.", ".self_attn.in_proj_")


def _explain(missing: Sequence[str], unknown: Sequence[str]) -> str:
    if any(".in_proj_" in name for name in missing):
        flash = [name for name in unknown if "qkv" in name.lower()]
        if flash:
            return (
                f"The attention weights are in flash naming that this reader does not know "
                f"(`{flash[0]}`)."
            )
        return "The attention weights are not in the file."
    if any(name.startswith(("bn.", "dsbn.")) for name in unknown):
        return "The file is of a build with batch norm, which the current architecture lacks."
    return ""


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
    display_name = "scGPT"
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
    checkpoint_files = (
        CheckpointFile("scgpt.whole_human", "args.json", 1_300, "c18e075e", _SOURCE),
        CheckpointFile("scgpt.whole_human", "vocab.json", 1_317_639, "acca93d1", _SOURCE),
        CheckpointFile(
            "scgpt.whole_human",
            "best_model.pt",
            205_385_258,
            "6cb5d451ab5c4b33eb673adbe4fddc61d2389df1b89b7651a9fe2e557572b922",
            _SOURCE,
        ),
    )

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
        names = ("args.json", "vocab.json", "best_model.pt")
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise unavailable(cls.display_name, folder, absent, _SOURCE)
        arguments = read_json(folder / "args.json")
        wanted = ("embsize", "nheads", "d_hid", "nlayers", "n_layers_cls", "n_bins", "pad_value")
        if absent := [name for name in wanted if not isinstance(arguments.get(name), int)]:
            msg = f"`args.json` does not give {', '.join(absent)} as whole numbers."
            raise InputError(msg, "Use the `args.json` that came with `best_model.pt`.")
        sizes = replace(ScGPTSizes(), **{name: arguments[name] for name in wanted})
        tensors = read_tensors(folder / "best_model.pt")
        vocabulary = _read_vocabulary(folder / "vocab.json", tensors)
        is_published = sizes == ScGPTSizes()
        config = ModelConfig("scgpt.whole_human", asdict(sizes), is_published_size=is_published)
        model = cls(config, vocabulary)
        network = model._build(2)
        backbone = {name: tensor for name, tensor in tensors.items() if "cls_decoder." not in name}
        report = fit_tensors(
            network,
            backbone,
            display_name=cls.display_name,
            rename=rename,
            head=cls.head,
            unused=("flag_encoder.*", "mvc_decoder.*", "grad_reverse_discriminator.*"),
            accept_partial=accept_partial,
            explain=_explain,
        )
        model.weights = {
            name: tensor
            for name, tensor in network.state_dict().items()
            if name not in report.fresh
        }
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
        genes = adata.var_names
        ids = self._gene_ids(genes)
        is_known = ids >= 0
        n_matched = int(is_known.sum())
        n_vocabulary = len(self.vocabulary.keys() - {PAD, CLS, EOC})
        possible = min(len(genes), n_vocabulary)
        if n_matched == 0 or n_matched < MIN_SHARE_MATCHED * possible:
            msg = (
                f"Only {n_matched:,} of {len(genes):,} genes match {self.display_name}'s vocabulary "
                f"({n_matched / max(len(genes), 1):.0%}). Found: {', '.join(map(str, genes[:5]))}."
            )
            hint = "Use human gene symbols, in their usual case, as gene names."
            if len(genes) and str(genes[0]).startswith("ENSG"):
                hint = "The file seems to use Ensembl ids; put gene symbols into `var_names`."
            raise InputError(msg, hint)
        notes = []
        n_empty = int((known_entries(adata.X, is_known).lengths == 0).sum())
        if n_empty:
            notes.append(
                f"{n_empty:,} cells have no count in a known gene: all of them get one and the "
                "same prediction, from `<cls>` alone"
            )
        return GeneReport(
            n_genes=len(genes),
            n_matched=n_matched,
            n_vocabulary=n_vocabulary,
            unmatched_examples=tuple(sorted(map(str, genes[~is_known]))[:5]),
            notes=tuple(notes),
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

    def _tokenise_block(
        self,
        block: Block,
        seed: int,
        draw: int,
        *,
        cls_value: float = 0,
        max_length: int | None = None,
        is_normalised: bool = True,
    ) -> TokenStore:
        ids, of_genes = block.genes
        entries = known_entries(block.counts, ids >= 0)
        bounds = bin_bounds(
            entries,
            self.sizes.n_bins,
            transform=log_normalise(entries) if is_normalised else None,
        )
        of_cells = hash_names(block.cell_ids())
        keys = np.repeat(cell_keys(stream_key(seed, draw, "bin"), of_cells), entries.lengths)
        bins = draw_bins(bounds, uniform(keys, of_genes[entries.columns]))
        if self.sizes.reads_zeros:
            entries, bins = with_zeros(entries, bins, np.flatnonzero(ids >= 0))
        limit = (max_length or self.sizes.max_length) - 1
        if entries.lengths.max(initial=0) > limit:
            keys = np.repeat(cell_keys(stream_key(seed, draw, "sample"), of_cells), entries.lengths)
            keep = subsample(entries.lengths, uniform(keys, of_genes[entries.columns]), limit)
            before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
            entries = Ragged(before[entries.indptr], entries.columns[keep], entries.values[:0])
            bins = bins[keep]
        return self.with_cls(entries, ids[entries.columns], bins, cls_value=cls_value)

    def with_cls(
        self, entries: Ragged, ids: np.ndarray, bins: np.ndarray, *, cls_value: float = 0
    ) -> TokenStore:
        """Put `<cls>` in front of each cell's tokens."""
        first = entries.indptr[:-1]
        return TokenStore(
            indptr=entries.indptr + np.arange(len(entries.indptr)),
            ids=np.insert(ids.astype(np.int32), first, self.vocabulary[CLS]),
            values=np.insert(bins.astype(np.float32), first, cls_value),
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
        if self.seed is None:
            return self._build(n_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._build(n_classes)

    def _build(self, n_classes: int) -> ScGPTNetwork:
        network = ScGPTNetwork(self.sizes, len(self.vocabulary), self.vocabulary[PAD], n_classes)
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

    def embed(
        self, chunks: Iterable[AnnData], *, pooling: str = "cls", device: str = "cpu"
    ) -> np.ndarray:
        """Return the authors' zero-shot embedding: `<cls>` states of unit length, (n_cells, D).

        As in the authors' helper, counts are binned as they are, `<cls>` carries the padding
        value, and at most 1,200 tokens are read. Cells without a known gene get NaN.
        """
        if pooling != "cls":
            msg = f'{self.display_name} has no pooling "{pooling}".'
            raise InputError(msg, "Use cls.")
        network = self.network(2).to(device).eval()
        rows = []
        for block in blocks(chunks, self._read_genes):
            tokens = self._tokenise_block(
                block,
                0,
                0,
                cls_value=self.sizes.pad_value,
                max_length=ZERO_SHOT_LENGTH,
                is_normalised=False,
            )
            rows.append(self.embed_tokens(network, tokens))
        return np.concatenate(rows) if rows else np.empty((0, self.sizes.embsize), np.float32)

    def embed_tokens(
        self, network: ScGPTNetwork, tokens: TokenStore, *, batch_size: int = 32
    ) -> np.ndarray:
        """Return unit-length `<cls>` states, NaN for cells of `<cls>` alone."""
        device = next(network.parameters()).device
        embedded = np.full((len(tokens), self.sizes.embsize), np.nan, dtype=np.float32)
        cells = np.flatnonzero(np.diff(tokens.indptr) > 1)
        for part in np.array_split(cells, max(1, math.ceil(len(cells) / batch_size))):
            batch = self.collate(tokens.take(part))
            with torch.inference_mode():
                states = network.embed(**{name: x.to(device) for name, x in batch.items()})
            embedded[part] = F.normalize(states.float(), dim=1).cpu().numpy()
        return embedded

    def read_classifier(self, path: Path, n_classes: int) -> tuple[ScGPTNetwork, LoadReport]:
        """Read a whole fine-tuned classifier, head included, as the authors save it."""
        network = self._build(n_classes)
        report = fit_tensors(
            network,
            read_tensors(path),
            display_name=self.display_name,
            rename=rename,
            unused=("flag_encoder.*", "mvc_decoder.*", "grad_reverse_discriminator.*"),
            explain=_explain,
        )
        return network, report

    def _gene_ids(self, genes: Iterable[str]) -> np.ndarray:
        special = (PAD, CLS, EOC)
        return np.array(
            [-1 if gene in special else self.vocabulary.get(gene, -1) for gene in genes], np.int64
        )


def with_zeros(entries: Ragged, bins: np.ndarray, columns: np.ndarray) -> tuple[Ragged, np.ndarray]:
    """Add an entry with bin 0 for each of `columns` (rising) that a cell does not express."""
    n_cells, n_genes = len(entries.indptr) - 1, len(columns)
    dense = np.zeros((n_cells, n_genes), dtype=np.float32)
    dense[entries.rows(), np.searchsorted(columns, entries.columns)] = bins
    indptr = np.arange(n_cells + 1, dtype=np.int64) * n_genes
    return Ragged(indptr, np.tile(columns, n_cells), dense.ravel()), dense.ravel()


def _read_vocabulary(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Read `vocab.json` and check that it belongs to the embedding of the checkpoint."""
    vocabulary = read_json(path)
    hint = "Use the `vocab.json` that came with `best_model.pt`."
    if absent := [token for token in (PAD, CLS) if token not in vocabulary]:
        msg = f"`vocab.json` has {len(vocabulary):,} entries but lacks {', '.join(absent)}."
        raise InputError(msg, hint)
    values = vocabulary.values()
    if not all(type(token) is int for token in values) or sorted(values) != list(
        range(len(vocabulary))
    ):
        msg = f"`vocab.json` does not number its {len(vocabulary):,} entries from 0 without gaps."
        raise InputError(msg, hint)
    embedding = tensors.get("encoder.embedding.weight")
    if embedding is not None and len(embedding) != len(vocabulary):
        msg = (
            f"`vocab.json` has {len(vocabulary):,} entries, but the checkpoint embeds "
            f"{len(embedding):,} tokens."
        )
        raise InputError(msg, hint)
    return vocabulary
