"""What is published of Geneformer, and how its weights and gene dictionaries are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.errors import InputError, ModelUnavailable
from backend.models.checkpoints import CheckpointFile, read_json, read_tensors, unavailable
from backend.models.geneformer.network import PRESETS
from backend.models.geneformer.tokens import CLS, EOS, MASK, PAD, SPECIAL, Dictionaries
from backend.models.unpickle import read_pickled_dict

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = [
    "FILES",
    "NAME",
    "checkpoint_places",
    "find_dictionaries",
    "read_folder",
]

NAME: Final = "Geneformer"
SOURCE: Final = (
    "The authors offer models and dictionaries on huggingface.co/ctheodoris/Geneformer: each model "
    "in its own folder, the dictionaries in `geneformer/` (V2) and "
    "`geneformer/gene_dictionaries_30m/` (V1). Copy those of the model's version beside it."
)

_WEIGHTS: Final = {
    "v1_10m": (41_183_536, "a5e33a757431643b3697de7ef6127950cdc49e06e58d4266b3a3ab191b683f14"),
    "v2_104m": (417_571_156, "fff5cba29ddd8792991fa77b4872246fbe548a178cebda3775cdc72b67780e7f"),
    "v2_316m": (1_265_455_076, "965ceccea81953d362081ef3843560a0e4fef88d396c28017881f1e94b1246f3"),
}
_DICTIONARIES: Final = {
    "gc30M": {
        "token_dictionary": (
            788_424,
            "ab9dc40973fa5224d77b793e2fd114cacf3d08423ed9c4c49caf0ba9c7f218f1",
        ),
        "gene_median_dictionary": (
            940_965,
            "b3b589bb5ec75040d05fc44dd6bf0184cf87f3c362cf158d196a6ed3b7fe5f39",
        ),
        "ensembl_mapping_dict": (
            584_125,
            "eac0fb0b3007267871b6305ac0003ceba19d4f28d85686cb9067ecf142787869",
        ),
    },
    "gc104M": {
        "token_dictionary": (
            425_590,
            "67c445f4385127adfc48dcc072320cd65d6822829bf27dd38070e6e787bc597f",
        ),
        "gene_median_dictionary": (
            1_512_661,
            "a51c53f6a771d64508dfaf61529df70e394c53bd20856926117ae5d641a24bf5",
        ),
        "ensembl_mapping_dict": (
            3_957_652,
            "0819bcbd869cfa14279449b037eb9ed1d09a91310e77bd1a19d927465030e95c",
        ),
    },
}


def _published(tag: str) -> list[CheckpointFile]:
    preset, corpus = f"geneformer.{tag}", "gc30M" if tag.startswith("v1") else "gc104M"
    return [
        CheckpointFile(preset, "config.json", None, "", SOURCE),
        CheckpointFile(preset, "model.safetensors", *_WEIGHTS[tag], SOURCE),
        *(
            CheckpointFile(
                preset,
                f"{name}_{corpus}.pkl",
                *known,
                SOURCE,
                is_required=name != "ensembl_mapping_dict",
            )
            for name, known in _DICTIONARIES[corpus].items()
        ),
    ]


FILES: Final = tuple(file for tag in _WEIGHTS for file in _published(tag))


def checkpoint_places(folder: Path) -> list[Path]:
    """Return where files of a checkpoint may lie, the folder itself first."""
    return [
        folder,
        folder / "dictionaries",
        folder.parent / "dictionaries",
        folder / "geneformer",
        folder / "geneformer" / "gene_dictionaries_30m",
        folder.parent / "geneformer",
        folder.parent / "geneformer" / "gene_dictionaries_30m",
    ]


def read_folder(folder: Path) -> tuple[dict[str, Any], Dictionaries, dict[str, Tensor]]:
    """Return sizes, dictionaries and tensors of the authors' files.

    Raises
    ------
    ModelUnavailable
        If a file is missing.
    InputError
        If a file is damaged, or the dictionaries do not belong to the model.
    """
    names = ("config.json", "model.safetensors")
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise unavailable(NAME, folder, absent, SOURCE)
    values = read_json(folder / "config.json")
    wanted = PRESETS["v1_10m"].values.keys() - {"has_cls"} | {"vocab_size"}
    if absent := sorted(wanted - values.keys()):
        msg = f"`config.json` does not give {', '.join(absent)}."
        raise InputError(msg, "Use the `config.json` that came with `model.safetensors`.")
    known = {**PRESETS["v1_10m"].values, "vocab_size": 0}
    if odd := sorted(name for name in wanted if not _is_like(values[name], known[name])):
        found = ", ".join(f"{name} as {type(values[name]).__name__}" for name in odd)
        msg = f"`config.json` gives {found}."
        raise InputError(msg, "Use the `config.json` that came with `model.safetensors`.")
    dictionaries = find_dictionaries(folder, values["vocab_size"])
    sizes = {name: values[name] for name in sorted(wanted - {"vocab_size"})}
    sizes["has_cls"] = CLS in dictionaries.tokens
    return sizes, dictionaries, read_tensors(folder / "model.safetensors")


def _is_like(value: object, known: object) -> bool:
    """Say whether a setting has the type of a known one; whole numbers may stand for others."""
    return type(value) is type(known) or (type(value) is int and type(known) is float)


def find_dictionaries(folder: Path, vocab_size: int) -> Dictionaries:
    """Find the dictionaries that belong to a model with `vocab_size` embeddings.

    Raises
    ------
    ModelUnavailable
        If no token dictionary, or no median dictionary beside it, is found.
    InputError
        If those found do not belong to the model.
    """
    seen: dict[str, int] = {}
    for place in checkpoint_places(folder):
        for path in _candidates(place, "token_dictionary"):
            tokens = _read(path)
            seen[path.name] = len(tokens)
            if len(tokens) == vocab_size:
                return _checked(path, tokens)
    if not seen:
        msg = f"Geneformer was not read: no token dictionary lies in or beside `{folder.name}`."
        raise ModelUnavailable(msg, SOURCE)
    found = ", ".join(f"`{name}` with {n:,}" for name, n in sorted(seen.items()))
    msg = (
        f"The token dictionary does not belong to the model, which embeds {vocab_size:,} tokens. "
        f"Found: {found}."
    )
    raise InputError(msg, "Use gc30M dictionaries with V1 models and gc104M ones with V2 models.")


def _candidates(place: Path, name: str, suffix: str = "") -> list[Path]:
    return [
        *sorted(place.glob(f"{name}{suffix or '*'}.pkl")),
        *sorted(place.glob(f"{name}{suffix or '*'}.json")),
    ]


def _read(path: Path) -> dict[str, Any]:
    return read_pickled_dict(path) if path.suffix == ".pkl" else read_json(path)


def _checked(path: Path, tokens: dict[str, Any]) -> Dictionaries:
    """Read the companions of a token dictionary and check that all of them fit together."""
    hint = "Use the dictionaries of one version as the authors distribute them."
    if not all(type(token) is int for token in tokens.values()) or sorted(tokens.values()) != list(
        range(len(tokens))
    ):
        msg = f"`{path.name}` does not number its {len(tokens):,} entries from 0 without gaps."
        raise InputError(msg, hint)
    if PAD not in tokens or MASK not in tokens or (CLS in tokens) != (EOS in tokens):
        found = ", ".join(name for name in SPECIAL if name in tokens) or "none"
        msg = f"`{path.name}` lacks special tokens. Found: {found}."
        raise InputError(msg, "V1 has <pad> and <mask>; V2 also has <cls> and <eos>.")
    suffix = path.stem.removeprefix("token_dictionary")

    def companion(name: str) -> Path | None:
        exact = [
            place for place in _candidates(path.parent, name, suffix) if place.stem == name + suffix
        ]
        return exact[0] if exact else None

    medians_path, mapping_path = (
        companion("gene_median_dictionary"),
        companion("ensembl_mapping_dict"),
    )
    if medians_path is None:
        msg = f"Geneformer was not read: `{path.name}` lies there without its median dictionary."
        raise ModelUnavailable(msg, SOURCE)
    medians = _read(medians_path)
    genes = [gene for gene in tokens if gene not in SPECIAL]
    bad = [
        gene
        for gene in genes
        if not isinstance(medians.get(gene), float | int) or not 0 < medians[gene] < np.inf
    ]
    if bad:
        msg = (
            f"`{medians_path.name}` lacks a positive median for {len(bad):,} of {len(genes):,} genes "
            f"of `{path.name}`. Found: {', '.join(sorted(bad)[:5])}."
        )
        raise InputError(msg, hint)
    current = _read(mapping_path) if mapping_path is not None else {}
    return Dictionaries(
        tokens,
        {gene: float(medians[gene]) for gene in genes},
        {old: new for old, new in current.items() if new in tokens},
        (path, medians_path, *([mapping_path] if mapping_path else [])),
    )
