"""Geneformer (Theodoris et al. 2023): BERT over the genes of a cell, ranked by expression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
import scipy.sparse as sp
import torch
from transformers import BertConfig, BertForSequenceClassification

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
    fit_tensors,
    read_json,
    read_tensors,
    unavailable,
)
from backend.models.geneformer.checkpoint import (
    CLS,
    EOS,
    FILES,
    MASK,
    PAD,
    PRESETS,
    SOURCE,
    Dictionaries,
    checkpoint_places,
    find_dictionaries,
)
from backend.models.geneformer.tokens import nonzero_medians, rank_order, rank_values
from backend.models.ragged import Block, Ragged, blocks, join, known_entries, pad

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor

__all__ = ["Geneformer", "GeneformerNetwork"]

MIN_SHARE_MATCHED: Final = 0.05
POOLINGS: Final = ("cell", "cls")


class GeneformerNetwork(BertForSequenceClassification):
    """The stock BERT classifier, returning logits."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, n_classes), read from the first token."""
        return super().forward(input_ids=input_ids, attention_mask=attention_mask).logits

    def hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the states after the embedding and after each layer, each (B, L, H)."""
        output = self.bert(input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return output.hidden_states


@dataclass(frozen=True, slots=True)
class _Genes:
    """Token (-1 when unknown) and median of each column, after `summing` columns of one token."""

    tokens: np.ndarray
    medians: np.ndarray
    summing: sp.csr_matrix | None


def _entries(counts: sp.csr_matrix, genes: _Genes) -> Ragged:
    if genes.summing is not None:
        counts = sp.csr_matrix(counts @ genes.summing)
    return known_entries(counts, genes.tokens >= 0)


def _rank(counts: sp.csr_matrix, genes: _Genes, n_counts: np.ndarray) -> tuple[Ragged, np.ndarray]:
    entries = _entries(counts, genes)
    values = rank_values(entries, n_counts, genes.medians)
    tokens = genes.tokens[entries.columns]
    order = rank_order(entries, values, tokens)
    ranked = Ragged(entries.indptr, tokens[order].astype(np.int32), entries.values[order])
    return ranked, values[order]


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
    display_name = "Geneformer"
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
        """Build over the gene symbols of training cells, with their medians there."""
        model = cls.scratch(config, list(train.var_names), seed=seed)
        medians = nonzero_medians(train.X)
        model.dictionaries.medians.update(zip(train.var_names, medians.tolist(), strict=True))
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
        names = ("config.json", "model.safetensors")
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise unavailable(cls.display_name, folder, absent, SOURCE)
        values = read_json(folder / "config.json")
        wanted = cls.presets["v1_10m"].values.keys() - {"has_cls"} | {"vocab_size"}
        if absent := sorted(wanted - values.keys()):
            msg = f"`config.json` does not give {', '.join(absent)}."
            raise InputError(msg, "Use the `config.json` that came with `model.safetensors`.")
        dictionaries = find_dictionaries(folder, int(values["vocab_size"]))
        sizes = {name: values[name] for name in sorted(wanted - {"vocab_size"})}
        sizes["has_cls"] = CLS in dictionaries.tokens
        config = next(
            (known for known in cls.presets.values() if known.values == sizes),
            ModelConfig(
                cls.presets["v2_104m" if sizes["has_cls"] else "v1_10m"].name,
                sizes,
                is_published_size=False,
            ),
        )
        model = cls(config, dictionaries)
        network = model._build(2)
        tensors = read_tensors(folder / "model.safetensors")
        is_head = {name for name in tensors if name.startswith(("bert.pooler.", "classifier."))}
        report = fit_tensors(
            network,
            {name: tensor for name, tensor in tensors.items() if name not in is_head},
            display_name=cls.display_name,
            head=cls.head,
            unused=("cls.predictions.*", "bert.embeddings.position_ids"),
            accept_partial=accept_partial,
        )
        model.weights = {
            name: tensor
            for name, tensor in network.state_dict().items()
            if name not in report.fresh
        }
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
        n_matched, n_vocabulary = int(is_known.sum()), len(self.dictionaries.medians)
        if n_matched == 0 or n_matched < MIN_SHARE_MATCHED * min(len(ids), n_vocabulary):
            msg = (
                f"Only {n_matched:,} of {len(ids):,} genes match {self.display_name}'s dictionary "
                f"({n_matched / max(len(ids), 1):.0%}). Found: {', '.join(ids[:5])}."
            )
            hint = "Use the gene symbols that the model was built on."
            if self.dictionaries.uses_ensembl:
                hint = (
                    "Geneformer needs human Ensembl ids without version (ENSG00000000003) in "
                    '`var["ensembl"]`; import the file with `data import`, which finds them.'
                )
            raise InputError(msg, hint)
        self._check_totals(adata)
        notes = []
        n_shared = n_matched - len(np.unique(tokens[is_known]))
        if n_shared:
            notes.append(
                f"{n_shared:,} columns have the id of another one: their counts are summed"
            )
        if n_symbols := self.dictionaries.count_aliases(ids):
            notes.append(f"{n_symbols:,} ids were replaced by the current ones of the authors")
        entries = _entries(sp.csr_matrix(adata.X), self._read_genes(adata))
        if n_empty := int((entries.lengths == 0).sum()):
            notes.append(
                f"{n_empty:,} cells have no count in a known gene: all of them get one and the "
                "same prediction (the reference leaves such cells out)"
            )
        return GeneReport(
            n_genes=len(ids),
            n_matched=n_matched,
            n_vocabulary=n_vocabulary,
            unmatched_examples=tuple(
                sorted(gene for gene, known in zip(ids, is_known, strict=True) if not known)[:5]
            ),
            notes=tuple(notes),
        )

    def _read_genes(self, cells: AnnData) -> _Genes:
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
        return _Genes(tokens, self.dictionaries.medians_of(tokens), summing)

    def rank(self, cells: AnnData) -> tuple[Ragged, np.ndarray]:
        """Return each cell's genes by falling value, as (tokens and counts, values in float64).

        The `columns` of the result are tokens; special tokens and truncation come later.
        """
        counts, genes = sp.csr_matrix(cells.X), self._read_genes(cells)
        return _rank(counts, genes, self._totals(cells))

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0) -> TokenStore:
        """Turn raw counts into ranked genes, cut at the input size.

        Nothing is drawn at random, so `seed` changes nothing. `values` are the ranked values.
        """
        del seed
        return join(self._tokenise_block(block) for block in blocks(chunks, self._read_genes))

    def _tokenise_block(self, block: Block) -> TokenStore:
        totals = self._totals(block.cells, block.rows)
        ranked, values = _rank(block.counts, block.genes, totals)
        limit = self.max_length - 2 * self.has_cls
        rank = np.arange(len(values)) - np.repeat(ranked.indptr[:-1], ranked.lengths)
        is_kept = rank < limit
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
        if self.seed is None:
            return self._build(n_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._build(n_classes)

    def _build(self, n_classes: int) -> GeneformerNetwork:
        values = {name: value for name, value in self.config.values.items() if name != "has_cls"}
        values |= {
            "vocab_size": len(self.dictionaries.tokens),
            "pad_token_id": self.dictionaries.tokens[PAD],
            "num_labels": n_classes,
            "attn_implementation": "sdpa",
        }
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

    def embed(
        self,
        chunks: Iterable[AnnData],
        *,
        pooling: str = "cell",
        device: str = "cpu",
        layer: int = -1,
    ) -> np.ndarray:
        """Return frozen embeddings, (n_cells, H); NaN for cells without a known gene.

        Parameters
        ----------
        pooling
            "cell": mean over genes; "cls": state of `<cls>` (V2 only).
        layer
            As the authors count: -1 is the last but one layer, 0 the last.
        """
        if pooling not in POOLINGS or (pooling == "cls" and not self.has_cls):
            msg = f'{self.display_name} ({self.config.name}) has no pooling "{pooling}".'
            raise InputError(msg, "Use cell; cls needs a V2 model.")
        network = self.network(2).eval()
        torch.nn.Module.to(network, device)
        parts = [
            self.embed_tokens(network, self._tokenise_block(block), pooling, layer=layer)
            for block in blocks(chunks, self._read_genes)
        ]
        return np.concatenate([np.empty((0, network.config.hidden_size), np.float32), *parts])

    def embed_tokens(
        self,
        network: GeneformerNetwork,
        tokens: TokenStore,
        pooling: str,
        *,
        layer: int = -1,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Return embeddings of tokenised cells, NaN for cells of special tokens alone."""
        device = next(network.parameters()).device
        special = [
            self.dictionaries.tokens[name]
            for name in (MASK, CLS, EOS)
            if name in self.dictionaries.tokens
        ]
        embedded = np.full((len(tokens), network.config.hidden_size), np.nan, dtype=np.float32)
        for start in range(0, len(tokens), batch_size):
            cells = np.arange(start, min(start + batch_size, len(tokens)))
            batch = {name: x.to(device) for name, x in self.collate(tokens.take(cells)).items()}
            is_gene = batch["attention_mask"].bool() & ~torch.isin(
                batch["input_ids"], torch.tensor(special, device=device)
            )
            with torch.inference_mode():
                states = network.hidden_states(**batch)[layer - 1].float()
            weight = is_gene.unsqueeze(-1).float()
            # A cell without genes is 0 / 0 = NaN.
            pooled = (states * weight).sum(1) / weight.sum(1)
            if pooling == "cls":
                pooled = states[:, 0] + 0 * pooled
            embedded[cells] = pooled.cpu().numpy()
        return embedded

    def read_classifier(self, folder: Path, n_classes: int) -> tuple[GeneformerNetwork, LoadReport]:
        """Read a whole fine-tuned classifier, head included, as the authors save it."""
        network = self._build(n_classes)
        report = fit_tensors(
            network,
            read_tensors(folder / "model.safetensors"),
            display_name=self.display_name,
            unused=("bert.embeddings.position_ids",),
        )
        return network, report
