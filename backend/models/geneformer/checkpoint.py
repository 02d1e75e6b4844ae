"""What is published of Geneformer: sizes, checkpoints and gene dictionaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.errors import InputError, ModelUnavailable
from backend.models.base import ModelConfig
from backend.models.checkpoints import CheckpointFile, read_json
from backend.models.unpickle import read_pickled_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "CLS",
    "EOS",
    "FILES",
    "MASK",
    "PAD",
    "PRESETS",
    "SOURCE",
    "Dictionaries",
    "checkpoint_places",
    "find_dictionaries",
]

PAD, MASK, CLS, EOS = "<pad>", "<mask>", "<cls>", "<eos>"
SPECIAL: Final = (PAD, MASK, CLS, EOS)

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


def _values(
    *, hidden: int, layers: int, heads: int, inter: int, length: int, dropout: float, has_cls: bool
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inter,
        "max_position_embeddings": length,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "type_vocab_size": 2,
        "has_cls": has_cls,
    }


PRESETS: Final[dict[str, ModelConfig]] = {
    "v1_10m": ModelConfig(
        "geneformer.v1_10m",
        _values(hidden=256, layers=6, heads=4, inter=512, length=2048, dropout=0.02, has_cls=False),
        is_published_size=True,
    ),
    "v2_104m": ModelConfig(
        "geneformer.v2_104m",
        _values(
            hidden=768, layers=12, heads=12, inter=3072, length=4096, dropout=0.1, has_cls=True
        ),
        is_published_size=True,
    ),
    "v2_316m": ModelConfig(
        "geneformer.v2_316m",
        _values(
            hidden=1152, layers=18, heads=18, inter=4608, length=4096, dropout=0.1, has_cls=True
        ),
        is_published_size=True,
    ),
    "small": ModelConfig(
        "geneformer.small",
        # Dropout of attention weights takes most of the time on a CPU.
        _values(hidden=64, layers=2, heads=4, inter=256, length=256, dropout=0.1, has_cls=True)
        | {"attention_probs_dropout_prob": 0.0},
        is_published_size=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Dictionaries:
    """What Geneformer knows of genes.

    tokens      : gene id or special token to token
    medians     : gene id to its median of counts per 10,000 where expressed, for each gene
    current_ids : id in upper case to current id; empty means that ids are taken as they are
    paths       : the files that they were read from
    """

    tokens: dict[str, int]
    medians: dict[str, float]
    current_ids: dict[str, str]
    paths: tuple[Path, ...] = ()

    @property
    def uses_ensembl(self) -> bool:
        """Whether genes are named by Ensembl ids."""
        return sum(gene.startswith("ENS") for gene in self.medians) > len(self.medians) / 2

    def tokens_of(self, ids: Iterable[str]) -> np.ndarray:
        """Return the token of each gene id, -1 for unknown ones."""
        if self.current_ids:
            ids = (self.current_ids.get(gene.upper(), "") for gene in ids)
        return np.array(
            [-1 if gene in SPECIAL else self.tokens.get(gene, -1) for gene in ids], dtype=np.int64
        )

    def medians_of(self, tokens: np.ndarray) -> np.ndarray:
        """Return the median of each token, 1 for special and unknown ones."""
        by_token = np.ones(len(self.tokens) + 1)
        for gene, median in self.medians.items():
            by_token[self.tokens[gene]] = median
        return by_token[tokens]

    def count_aliases(self, ids: Sequence[str]) -> int:
        """Count the ids that are known only under another, current id."""
        if not self.current_ids:
            return 0
        return sum(
            gene.upper() not in self.tokens and self.current_ids.get(gene.upper()) in self.tokens
            for gene in ids
        )


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
