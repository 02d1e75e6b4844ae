"""What is published of scBERT, and how its weights, panel and gene vectors are read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from backend.errors import InputError
from backend.models.checkpoints import CheckpointFile, read_tensors, unavailable
from backend.models.gene_panel import find_file, read_gene_list
from backend.models.scbert.network import ScBertSizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

__all__ = ["FILES", "NAME", "PUBLISHED", "read_folder"]

_IN_BLOCK: Final = re.compile(r"performer\.net\.layers\.\d{1,3}\.")
_PROJECTION: Final = "fast_attention.projection_matrix"

PUBLISHED: Final = ScBertSizes(checkpoint_activations=True)

NAME: Final = "scBERT"
SOURCE: Final = (
    "Get the weights from the authors: the link is in the README of "
    "github.com/TencentAILabHealthcare/scBERT."
)

FILES: Final = (
    CheckpointFile("scbert.panglao", "panglao_pretrain.pth", None, "", SOURCE),
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


def read_folder(
    folder: Path,
) -> tuple[ScBertSizes, tuple[str, ...], dict[str, Tensor], list[str]]:
    """Return sizes, panel, tensors and notes of the authors' files.

    Raises
    ------
    ModelUnavailable
        If a file is missing.
    InputError
        If a file is damaged, or files do not belong together.
    """
    names = tuple(file.name for file in FILES)
    weights_path = find_file(folder, (names[0], "panglao_pretrained.pth"), "*.pth")
    panel_path = find_file(folder, (names[1], "panel.txt"), "panglao_gene_order*.txt")
    vectors_path = find_file(folder, (names[2], "gene2vec.npy"), "gene2vec*.npy")
    if weights_path is None or panel_path is None:
        found = zip(names, (weights_path, panel_path), strict=False)
        raise unavailable(NAME, folder, [name for name, path in found if path is None], SOURCE)
    panel = read_gene_list(panel_path)
    tensors = {
        name.removeprefix("module."): tensor
        for name, tensor in read_tensors(weights_path, inside=("model_state_dict",)).items()
    }
    notes = _fill_in_gene_vectors(tensors, panel, vectors_path, folder)
    return _sizes_in(tensors), panel, tensors, notes


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
        raise unavailable(NAME, folder, ["gene2vec_16906.npy"], SOURCE)
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
    return replace(
        PUBLISHED, dim=dim, depth=depth, heads=heads, dim_head=dim_head, n_bins=n_tokens - 2
    )
