"""scBERT (Yang et al. 2022): every panel gene of a cell read as a binned token by a Performer."""

from __future__ import annotations

import re
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
from backend.models.checkpoints import CheckpointFile, fit_tensors, read_tensors, unavailable
from backend.models.gene_panel import (
    align_to_panel,
    check_panel_input,
    choose_panel,
    find_file,
    read_gene_list,
    row_totals,
)
from backend.models.options import check_options
from backend.models.ragged import join
from backend.models.scbert.network import TOKENS_PER_PASS, ScBertNetwork, ScBertSizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    import scipy.sparse as sp
    from anndata import AnnData

_IN_BLOCK: Final = re.compile(r"performer\.net\.layers\.\d+\.")
_PROJECTION: Final = "fast_attention.projection_matrix"

MIN_GENES: Final = 200
"""The authors drop cells with fewer detected panel genes before training and prediction."""

UNASSIGNED_THRESHOLD: Final = 0.5
"""The authors' prediction script calls a cell "Unassigned" below this confidence, if asked to."""

POOLINGS: Final = ("mean", "last")


_WHERE: Final = (
    "Get the weights from the authors: the link is in the README of "
    "github.com/TencentAILabHealthcare/scBERT."
)

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


def bin_counts(aligned: sp.csr_matrix, n_bins: int = 5) -> np.ndarray:
    """Return the bin (0 … n_bins) of each stored count, in the order of `aligned.data`.

    The bin is the whole part of log2(1 + counts per 10,000), cut at `n_bins`.
    """
    # The binary exponent is the whole part of log2, without the rounding of a logarithm.
    _, exponent = np.frexp(1 + counts_per_10k(aligned).data)
    return np.minimum(exponent - 1, n_bins)


def unassigned(proba: np.ndarray, threshold: float = UNASSIGNED_THRESHOLD) -> np.ndarray:
    """Return the cells whose highest probability is below the threshold (the authors' rule)."""
    return proba.max(axis=1) < threshold


def sizes_of(config: ModelConfig) -> ScBertSizes:
    """Read the sizes and options of a preset, refusing unknown names."""
    known = {field.name for field in fields(ScBertSizes)}
    if unknown := sorted(set(config.values) - known):
        msg = f"scBERT has no option {', '.join(unknown)}."
        raise InputError(msg, f"Choose from: {', '.join(sorted(known))}.")
    return ScBertSizes(**config.values)


def model_config(name: str, sizes: ScBertSizes) -> ModelConfig:
    """Return the preset of some sizes and options."""
    published = ScBertSizes()
    names = ("dim", "depth", "heads", "dim_head", "n_bins", "head_dim")
    is_published_size = all(getattr(sizes, name) == getattr(published, name) for name in names)
    return ModelConfig(name, asdict(sizes), is_published_size)


class ScBert(FoundationModel):
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
        Of the weights that no checkpoint gives; None draws from torch's current generator.
    """

    key = "scbert"
    display_name = "scBERT"
    card = ModelCard(
        summary="Performer over all 16,906 panel genes with binned expression.",
        citation="Yang et al., Nature Machine Intelligence 2022",
        doi="10.1038/s42256-022-00534-z",
        weights_licence="GPL-3.0 (Tencent); research use",
        expects="raw counts, human gene symbols",
        n_parameters=8_388_607,
        gpu_gib=None,
    )
    presets: ClassVar[Mapping[str, ModelConfig]] = {
        config.name.partition(".")[2]: config
        for config in (
            model_config(
                "scbert.panglao",
                ScBertSizes(checkpoint_activations=True),
            ),
            model_config(
                "scbert.small",
                ScBertSizes(
                    dim=64, depth=2, heads=4, dim_head=16, panel_size=1024, expressed_only=True
                ),
            ),
        )
    }

    head = ("to_out.*",)
    options: ClassVar[Mapping[str, type | tuple[str, ...]]] = {
        "expressed_only": bool,
        "key_maximum": ("cell", "batch"),
        "redraw_features": bool,
        "checkpoint_activations": bool,
    }
    checkpoint_files = (
        CheckpointFile("scbert.panglao", "panglao_pretrain.pth", None, "", _WHERE),
        CheckpointFile(
            "scbert.panglao",
            "panglao_gene_order_16906.txt",
            107_785,
            "d8934d4b178a4f40bf2675fcd61bf600c87aeaa52dfe488487edde644cba0841",
            "The ordered panel: variable names of the authors' panglao_10000.h5ad, one a line; "
            "the project nano-scBERT keeps this list.",
        ),
        CheckpointFile(
            "scbert.panglao",
            "gene2vec_16906.npy",
            27_049_728,
            "",
            "Only for weights without gene vectors; from the authors of scBERT on request.",
            is_required=False,
        ),
    )

    def __init__(
        self,
        config: ModelConfig,
        panel: Sequence[str],
        *,
        weights: Mapping[str, Tensor] | None = None,
        seed: int | None = None,
    ) -> None:
        self.config = config
        self.sizes = sizes_of(config)
        self.panel = tuple(panel)
        self.weights = weights
        self.seed = seed

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
        names = tuple(file.name for file in cls.checkpoint_files)
        weights_path = find_file(folder, (names[0], "panglao_pretrained.pth"), "*.pth")
        panel_path = find_file(folder, (names[1], "panel.txt"), "panglao_gene_order*.txt")
        vectors_path = find_file(folder, (names[2], "gene2vec.npy"), "gene2vec*.npy")
        if weights_path is None or panel_path is None:
            missing = [
                name
                for name, path in zip(names, (weights_path, panel_path), strict=False)
                if path is None
            ]
            raise unavailable(cls.display_name, folder, missing, _WHERE)
        panel = read_gene_list(panel_path)
        tensors = {
            name.removeprefix("module."): tensor
            for name, tensor in read_tensors(weights_path, inside=("model_state_dict",)).items()
        }
        notes = _fill_in_gene_vectors(tensors, panel, vectors_path, folder)
        config = model_config("scbert.panglao", _sizes_in(tensors))
        network = cls(config, panel).network(None)
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

    @classmethod
    def scratch_on(cls, config: ModelConfig, train: AnnData, *, seed: int) -> Self:
        """Build scBERT with random weights over a panel chosen on training cells."""
        return cls.scratch(config, choose_panel(train, sizes_of(config).panel_size), seed=seed)

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return the same model with some of `options` changed."""
        check_options(options, self.options, self.display_name)
        config = model_config(self.config.name, replace(self.sizes, **options))
        return type(self)(config, self.panel, weights=self.weights, seed=self.seed)

    def state(self) -> dict[str, Any]:
        """Return all but the weights as JSON values."""
        return {"preset": self.config.name, "sizes": asdict(self.sizes), "panel": list(self.panel)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the model that `state` described, with random weights."""
        return cls(model_config(state["preset"], ScBertSizes(**state["sizes"])), state["panel"])

    @classmethod
    def scratch(cls, config: ModelConfig, genes: Sequence[str], *, seed: int) -> Self:
        """Build scBERT with random weights over the panel `genes`."""
        return cls(config, genes, seed=seed)

    def check_input(self, adata: AnnData) -> GeneReport:
        """Raise `InputError` when `adata` cannot be used; otherwise count the known genes."""
        report = check_panel_input(adata, self.panel, display_name=self.display_name)
        notes = list(report.notes)
        if self.sizes.panel_size is not None:
            notes.append(f"not as published: {len(self.panel):,} genes chosen on training cells")
        elif n_few := int((~self._passes_filter(adata)).sum()):
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
        return replace(report, notes=tuple(notes))

    def _passes_filter(self, adata: AnnData) -> np.ndarray:
        return passes_gene_filter(align_to_panel(adata.X, adata.var_names, self.panel))

    def tokenise(self, chunks: Iterable[AnnData], *, seed: int = 0) -> TokenStore:
        """Bin the expressed panel genes of each cell; `ids` are panel positions.

        Genes that are expressed below 1 in 10,000 have bin 0, like those that are not expressed.
        Nothing is drawn at random, so `seed` changes nothing.
        """
        del seed
        return join(self._tokens(chunk) for chunk in chunks)

    def _tokens(self, chunk: AnnData) -> TokenStore:
        aligned = align_to_panel(chunk.X, chunk.var_names, self.panel)
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
        with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
            if self.seed is not None:
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
        """Return the authors' fine-tuning defaults, or ours where there are no weights to keep.

        `small` trains every layer from any start, so that starts can be compared.
        """
        if self.weights is None or self.config.name == "scbert.small":
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
            size = max(1, TOKENS_PER_PASS // (last + 1))
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


def _fill_in_gene_vectors(
    tensors: dict[str, Tensor], panel: Sequence[str], path: Path | None, folder: Path
) -> list[str]:
    """Check that weights, panel and gene vectors belong together; add vectors that are missing."""
    name = "pos_emb.emb.weight"
    n_positions = len(panel) + 1
    if path is not None:
        try:
            vectors = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            msg = f"`{path.name}` is not a plain NumPy array: {error}."
            raise InputError(msg, "Get the file from the authors of scBERT again.") from None
        if vectors.ndim != 2 or len(vectors) != len(panel):
            msg = (
                f"`{path.name}` has shape {vectors.shape}, but the panel has {len(panel):,} genes: "
                "they do not belong together."
            )
            raise InputError(msg, "Use the gene vectors and the panel of one checkpoint.")
        # The appended token has no gene: its vector is zero.
        table = torch.from_numpy(np.pad(vectors, ((0, 1), (0, 0))))
        if name not in tensors:
            tensors[name] = table
            return [f"gene vectors read from {path.name}"]
        same_shape = tensors[name].shape == table.shape
        if not same_shape or not torch.allclose(tensors[name].double(), table.double(), atol=1e-6):
            msg = f"The weights were trained with other gene vectors than those of `{path.name}`."
            raise InputError(msg, "Use the gene vectors of this checkpoint, or remove the file.")
    elif name not in tensors:
        raise unavailable(ScBert.display_name, folder, ["gene2vec_16906.npy"], _WHERE)
    if len(tensors[name]) != n_positions:
        msg = (
            f"The weights are for {len(tensors[name]) - 1:,} genes, but the panel has "
            f"{len(panel):,}: they do not belong together."
        )
        raise InputError(msg, "Use the panel that the weights were trained on, in its order.")
    return ["gene vectors taken from the weights"]


def _sizes_in(tensors: Mapping[str, Tensor]) -> ScBertSizes:
    """Read the sizes of the network from its tensors."""
    layer = "performer.net.layers.{}.0.fn."
    first_query = layer.format(0) + "to_q.weight"
    if first_query not in tensors or "token_emb.weight" not in tensors:
        found = ", ".join(sorted(tensors)[:5])
        msg = f"The file holds no scBERT weights. Found: {found}."
        raise InputError(msg, "Use panglao_pretrain.pth of the authors.")
    depth = 1 + max(int(name.split(".")[3]) for name in tensors if _IN_BLOCK.match(name))
    absent = [i for i in range(depth) if layer.format(i) + _PROJECTION not in tensors]
    if absent:
        msg = (
            f"{len(absent)} of {depth} blocks have no `{_PROJECTION}`: weights trained with other "
            "random features mean nothing."
        )
        raise InputError(msg, "Use a file saved with the buffers of the network.")
    n_tokens, dim = tensors["token_emb.weight"].shape
    dim_head = tensors[layer.format(0) + _PROJECTION].shape[1]
    heads = len(tensors[first_query]) // dim_head
    options = sizes_of(ScBert.presets["panglao"])
    return replace(
        options, dim=dim, depth=depth, heads=heads, dim_head=dim_head, n_bins=n_tokens - 2
    )
