"""What is published of scGPT, and how its weights and vocabulary are read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from backend.errors import InputError
from backend.models.checkpoints import CheckpointFile, read_json, read_tensors, unavailable
from backend.models.scgpt.network import ScGPTSizes
from backend.models.scgpt.tokens import CLS, PAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

__all__ = ["FILES", "NAME", "UNUSED", "explain", "read_folder", "rename"]

NAME: Final = "scGPT"
SOURCE: Final = (
    "The authors offer the whole-human checkpoint as a Google Drive folder, linked in the README "
    "of github.com/bowang-lab/scGPT."
)
UNUSED: Final = ("flag_encoder.*", "mvc_decoder.*", "grad_reverse_discriminator.*")
"""Tensors of the authors' files that a classifier has no use for."""

FILES: Final = (
    CheckpointFile("scgpt.whole_human", "args.json", 1_300, "c18e075e", SOURCE),
    CheckpointFile("scgpt.whole_human", "vocab.json", 1_317_639, "acca93d1", SOURCE),
    CheckpointFile(
        "scgpt.whole_human",
        "best_model.pt",
        205_385_258,
        "6cb5d451ab5c4b33eb673adbe4fddc61d2389df1b89b7651a9fe2e557572b922",
        SOURCE,
    ),
)


def rename(name: str) -> str:
    """Return the plain-torch name of a tensor in any of the authors' attention namings."""
    name = name.replace(".self_attn._impl.", ".self_attn.")
    return name.replace(".self_attn.Wqkv.", ".self_attn.in_proj_")


def explain(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """Return why a file does not fill the network, where its names tell, or ""."""
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


def read_folder(folder: Path) -> tuple[ScGPTSizes, dict[str, int], dict[str, Tensor]]:
    """Return sizes, vocabulary and tensors of the authors' files.

    Raises
    ------
    ModelUnavailable
        If a file is missing.
    InputError
        If a file is damaged, or the vocabulary does not belong to the weights.
    """
    names = [file.name for file in FILES]
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise unavailable(NAME, folder, absent, SOURCE)
    arguments = read_json(folder / "args.json")
    wanted = ("embsize", "nheads", "d_hid", "nlayers", "n_layers_cls", "n_bins", "pad_value")
    if absent := [name for name in wanted if not isinstance(arguments.get(name), int)]:
        msg = f"`args.json` does not give {', '.join(absent)} as whole numbers."
        raise InputError(msg, "Use the `args.json` that came with `best_model.pt`.")
    tensors = read_tensors(folder / "best_model.pt")
    vocabulary = _read_vocabulary(folder / "vocab.json", tensors)
    return replace(ScGPTSizes(), **{name: arguments[name] for name in wanted}), vocabulary, tensors


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
