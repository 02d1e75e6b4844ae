"""What is published of scFoundation, and how its nested weight file is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torch import Tensor

from backend.errors import InputError
from backend.models.checkpoints import CheckpointFile, read_torch, unavailable
from backend.models.gene_panel import find_file, read_gene_list
from backend.models.scfoundation.network import N_SPECIAL, ScFoundationSizes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILES", "FINETUNE_ENTRY", "NAME", "read_folder"]

ARCHITECTURE: Final = "mae_autobin"
FINETUNE_ENTRY: Final = "gene"
"""The weight set that the authors fine-tune; others embed cells."""

NAME: Final = "scFoundation"
SOURCE: Final = (
    "Get models.ckpt from the authors: the link is in the README of "
    "github.com/biomap-research/scFoundation, folder model."
)
_LAYOUT_HINT: Final = (
    "Use models.ckpt of the authors: parts gene, cell and rde, each with config and state_dict."
)

FILES: Final = (
    CheckpointFile("scfoundation.cell_01b", "models.ckpt", None, "", SOURCE),
    CheckpointFile(
        "scfoundation.cell_01b",
        "OS_scRNA_gene_index.19264.tsv",
        228_232,
        "bb337ea195d94e7b033543abc02a42e7060d6562eba97deb077f7dcecec62661",
        "In the authors' repository github.com/biomap-research/scFoundation, folder model.",
    ),
)


def read_folder(folder: Path) -> tuple[ScFoundationSizes, tuple[str, ...], dict[str, Tensor]]:
    """Return sizes, gene index and the tensors to fine-tune of the authors' files.

    Raises
    ------
    ModelUnavailable
        If a file is missing.
    InputError
        If a file is damaged or of another layout, or files do not belong together.
    """
    weights_name, index_name = (file.name for file in FILES)
    weights_path = find_file(folder, (weights_name,), "*.ckpt")
    index_path = find_file(folder, (index_name, "gene_index.tsv"), "*gene_index*.tsv")
    if weights_path is None or index_path is None:
        found = ((weights_name, weights_path), (index_name, index_path))
        missing = [name for name, path in found if path is None]
        raise unavailable(NAME, folder, missing, SOURCE)
    panel = read_gene_list(index_path)
    sizes, tensors = read_entry(read_torch(weights_path), FINETUNE_ENTRY, weights_path.name)
    n_genes = len(tensors.get("pos_emb.weight", ())) - N_SPECIAL
    if n_genes != len(panel):
        msg = (
            f"The weights are for {n_genes:,} genes, but `{index_path.name}` has "
            f"{len(panel):,}: they do not belong together."
        )
        raise InputError(msg, "Use the gene index of the weights, in its order.")
    return sizes, panel, tensors


def read_entry(file: Any, entry: str, name: str) -> tuple[ScFoundationSizes, dict[str, Tensor]]:
    """Return sizes and tensors of one of the weight sets in the authors' file.

    Parameters
    ----------
    file
        What the file holds: {entry: {"config": …, "state_dict": …}}.
    entry
        "gene", "cell" or "rde".
    name
        Of the file, for messages.

    Raises
    ------
    InputError
        If the nesting, the architecture or the configuration is another.
    """
    part = _step(file, entry, name)
    tensors = _step(part, "state_dict", name)
    config = _step(part, "config", name)
    kind = _step(config, "model", name)
    if kind != ARCHITECTURE:
        msg = f'`{name}` holds the architecture "{kind}", not "{ARCHITECTURE}".'
        raise InputError(msg, _LAYOUT_HINT)
    # The data's part of the configuration wins, as in the authors' loader.
    values = _step(_step(config, "model_config", name), kind, name) | _step(
        _step(config, "dataset_config", name), "rnaseq", name
    )
    encoder, decoder = _step(values, "encoder", name), _step(values, "decoder", name)
    for part_name, part, expected in (
        ("encoder", encoder, "transformer"),
        ("decoder", decoder, "performer"),
    ):
        if (found := _step(part, "module_type", name)) != expected:
            msg = f'The {part_name} in `{name}` is a "{found}", not a "{expected}".'
            raise InputError(msg, _LAYOUT_HINT)
    sizes = ScFoundationSizes(
        dim=_step(encoder, "hidden_dim", name),
        depth=_step(encoder, "depth", name),
        heads=_step(encoder, "heads", name),
        n_bins=_step(values, "bin_num", name),
        bin_alpha=_step(values, "bin_alpha", name),
        pad_token_id=_step(values, "pad_token_id", name),
        mask_token_id=_step(values, "mask_token_id", name),
        decoder_dim=_step(decoder, "hidden_dim", name),
        decoder_depth=_step(decoder, "depth", name),
        decoder_heads=_step(decoder, "heads", name),
        decoder_dim_head=_step(decoder, "dim_head", name),
    )
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        msg = f'"state_dict" of "{entry}" in `{name}` does not map names to tensors.'
        raise InputError(msg, _LAYOUT_HINT)
    return sizes, {key.removeprefix("model."): tensor for key, tensor in tensors.items()}


def _step(value: Any, key: str, name: str) -> Any:
    """Return value[key] of a nested file, or say what is there instead."""
    if isinstance(value, dict) and key in value:
        return value[key]
    found = type(value).__name__
    if isinstance(value, dict):
        found = ", ".join(sorted(map(str, value))[:5]) or "nothing"
    msg = f'`{name}` has no part "{key}" where it is expected. Found: {found}.'
    raise InputError(msg, _LAYOUT_HINT)
