"""Checkpoints of the published layout with random numbers in place of learned ones.

    from tests.published import PUBLISHED, write_published

    tensors = write_published("scgpt.whole_human", tmp_path, ["CD34", "CD19"])

Names, shapes and types come from the tables of the authors' files among the golden fixtures; the
vocabulary begins with the genes that are given and is filled up with names that no dataset has.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import save_file

from backend.config import golden_dir
from backend.models.scfoundation.network import N_SPECIAL, ScFoundationSizes
from backend.models.scgpt.model import ScGPT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

__all__ = ["GENEFORMER", "PUBLISHED", "geneformer_table", "published_table", "write_published"]

GENEFORMER: Final = {
    "geneformer.v1_10m": "Geneformer-V1-10M",
    "geneformer.v2_104m": "Geneformer-V2-104M",
    "geneformer.v2_316m": "Geneformer-V2-316M",
}
"""Preset to its name in the table of the authors' files."""

_SMALL: Final = 0.02


def published_table(model: str) -> dict[str, Any]:
    """Return what is known of the files of one model."""
    name = {
        "scgpt": "fullsize_keys_scgpt_human.json",
        "geneformer": "fullsize_keys_geneformer.json",
    }.get(model, "full_size_manifest.json")
    found: dict[str, Any] = json.loads((golden_dir() / model / name).read_text(encoding="utf-8"))
    return found


def geneformer_table(preset: str) -> dict[str, Any]:
    """Return what is known of one of Geneformer's checkpoints."""
    found: dict[str, Any] = published_table("geneformer")[GENEFORMER[preset]]
    # One key carries a remark behind its name.
    return found | {"keys": {key.split(" ")[0]: shape for key, shape in found["keys"].items()}}


def write_published(preset: str, folder: Path, genes: Sequence[str] = ()) -> dict[str, Tensor]:
    """Write the files of a published checkpoint, the same for the same arguments.

    Parameters
    ----------
    preset
        One of `PUBLISHED`.
    genes
        Ensembl ids for Geneformer, symbols for the others. Those that exceed the published
        vocabulary are left out.

    Returns
    -------
    The tensors by the names that the file has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    return PUBLISHED[preset](preset, folder, genes, generator)


def _named(genes: Sequence[str], n: int) -> list[str]:
    return [*genes[:n], *(f"ABSENT{i}" for i in range(n - len(genes)))]


def _drawn(shapes: Mapping[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw weights as an untrained network has them, so that a fit begins with finite numbers."""
    return {name: _one(name, shape, generator) for name, shape in shapes.items()}


def _one(name: str, shape: Any, generator: torch.Generator) -> Tensor:
    dtype = torch.int64 if name.endswith("position_ids") else torch.float32
    if shape and isinstance(shape[-1], str):
        shape, dtype = shape[0], getattr(torch, shape[1])
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")), dtype=dtype)
    # Random features of a Performer are of unit variance.
    scale = 1.0 if name.endswith("projection_matrix") else _SMALL
    return scale * torch.randn(shape, generator=generator, dtype=dtype)


def _write_scgpt(
    preset: str, folder: Path, genes: Sequence[str], generator: torch.Generator
) -> dict[str, Tensor]:
    tensors = _drawn(published_table("scgpt")["keys"], generator)
    torch.save(tensors, folder / "best_model.pt")
    special = ["<pad>", "<cls>", "<eoc>"]
    n_tokens = len(tensors["encoder.embedding.weight"])
    names = [*_named(genes, n_tokens - len(special)), *special]
    _write_json(folder / "vocab.json", {name: token for token, name in enumerate(names)})
    _write_json(folder / "args.json", dict(ScGPT.presets[preset.partition(".")[2]].values))
    return tensors


def _write_geneformer(
    preset: str, folder: Path, genes: Sequence[str], generator: torch.Generator
) -> dict[str, Tensor]:
    published = geneformer_table(preset)
    tensors = _drawn(published["keys"], generator)
    save_file(tensors, folder / "model.safetensors")
    _write_json(folder / "config.json", {"initializer_range": 0.02, **published["config"]})
    is_first = preset.startswith("geneformer.v1")
    special = ["<pad>", "<mask>"] if is_first else ["<pad>", "<mask>", "<cls>", "<eos>"]
    names = _named(genes, published["config"]["vocab_size"] - len(special))
    medians = torch.empty(len(names)).log_normal_(1.0, 0.7, generator=generator).tolist()
    for file, values in (
        ("token_dictionary", {name: token for token, name in enumerate([*special, *names])}),
        ("gene_median_dictionary", dict(zip(names, medians, strict=True))),
    ):
        corpus = "gc30M" if is_first else "gc104M"
        (folder / f"{file}_{corpus}.pkl").write_bytes(pickle.dumps(values))
    return tensors


def _write_scbert(
    preset: str, folder: Path, genes: Sequence[str], generator: torch.Generator
) -> dict[str, Tensor]:
    del preset  # Only one is published.
    tensors = _drawn(published_table("scbert")["pretrain"]["keys"], generator)
    torch.save({"model_state_dict": tensors}, folder / "panglao_pretrain.pth")
    panel = _named(genes, len(tensors["pos_emb.emb.weight"]) - 1)
    (folder / "panglao_gene_order_16906.txt").write_text("\n".join(panel), encoding="utf-8")
    return tensors


def _write_scfoundation(
    preset: str, folder: Path, genes: Sequence[str], generator: torch.Generator
) -> dict[str, Tensor]:
    del preset  # Only one is published.
    keys = published_table("scfoundation")["keys_without_model_prefix"]
    state = _drawn({f"model.{name}": shape for name, shape in keys.items()}, generator)
    file = golden_dir() / "scfoundation" / "models_tiny.ckpt"
    tiny = torch.load(file, weights_only=True)["gene"]["config"]
    sizes = ScFoundationSizes()
    values = tiny["model_config"][tiny["model"]] | {"bin_num": sizes.n_bins}
    values["encoder"] |= {"hidden_dim": sizes.dim, "depth": sizes.depth, "heads": sizes.heads}
    values["decoder"] |= {
        "hidden_dim": sizes.decoder_dim,
        "depth": sizes.decoder_depth,
        "heads": sizes.decoder_heads,
        "dim_head": sizes.decoder_dim_head,
    }
    config = tiny | {
        "model_config": {tiny["model"]: values},
        "dataset_config": {"rnaseq": {"bin_num": sizes.n_bins}},
    }
    # Three weight sets, as published: the file takes three times the memory of the network.
    parts = {
        name: {"config": config, "state_dict": {key: x.clone() for key, x in state.items()}}
        for name in ("cell", "rde")
    }
    torch.save({"gene": {"config": config, "state_dict": state}} | parts, folder / "models.ckpt")
    panel = _named(genes, len(state["model.pos_emb.weight"]) - N_SPECIAL)
    rows = "".join(f"{gene}\t{i}\n" for i, gene in enumerate(panel))
    index = folder / "OS_scRNA_gene_index.19264.tsv"
    index.write_text("gene_name\tindex\n" + rows, encoding="utf-8")
    return state


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


PUBLISHED: Final[
    dict[str, Callable[[str, Path, Sequence[str], torch.Generator], dict[str, Tensor]]]
] = {
    "scgpt.whole_human": _write_scgpt,
    **dict.fromkeys(GENEFORMER, _write_geneformer),
    "scbert.panglao": _write_scbert,
    "scfoundation.cell_01b": _write_scfoundation,
}
"""Preset to what writes its files."""
