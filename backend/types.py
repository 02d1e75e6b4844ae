"""Words of the project as types: timepoints, label levels, series, scope.

Nothing here imports more than the standard library.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from backend.errors import InputError
from backend.protocols import EXTERNAL, PROTOCOLS

__all__ = [
    "EXTERNAL",
    "GENOTYPES",
    "ID",
    "INITS",
    "LABEL_LEVELS",
    "LABEL_SOURCES",
    "OWNER",
    "PROTOCOLS",
    "TIMEPOINTS",
    "TRUTHS",
    "Scope",
    "Series",
    "canonical_json",
    "sha256_of",
]

TIMEPOINTS: Final = ("Healthy", "Diagnosis", "Post-treatment", "Relapse")
"""Clinical timepoints in clinical order."""

LABEL_LEVELS: Final = ("fine", "lineage")
LABEL_SOURCES: Final = ("clustering", "classifier", "expert", "unknown")
GENOTYPES: Final = ("mutant", "wildtype_only", "none")
INITS: Final = ("pretrained", "scratch", "frozen")

TRUTHS: Final = {
    "all": "All labelled cells",
    "clustering": "Cells labelled by clustering",
    "classifier": "Cells labelled by a classifier",
    "mutant": "Cells with a mutant transcript",
}
"""Which cells are scored, by where their label came from or by genotype."""

ID: Final = re.compile(r"[0-9a-f]{16}")
"""What names a dataset, run, job, upload or selection; it becomes the name of a folder."""
OWNER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What names an owner, a folder too."""


def canonical_json(value: Any) -> str:
    """Serialise `value` with sorted keys, no spaces and UTF-8, so that equal values hash equally."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def sha256_of(value: Any) -> str:
    """Return the hex sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All folds of one configuration on one split: the thing that pages show and compare.

    `budget` names how training cells are limited: `full`, `equal` (as many as the smallest
    training fold over the `random` and `donor` protocols) or `capN` (at most N cells a donor,
    then as `equal`).
    """

    dataset_id: str
    protocol: str
    folds: int = 5
    split_seed: int = 0
    budget: str = "equal"
    model: str
    preset: str | None = None
    init: Literal["pretrained", "scratch", "frozen"] = "scratch"
    checkpoint: str | None = None
    label_level: str = "lineage"
    fraction: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def hashed_fields(self) -> dict[str, Any]:
        """Return the fields that identify the series, the split's grouped under `split`."""
        fields = asdict(self)
        split = {
            "protocol": fields.pop("protocol"),
            "folds": fields.pop("folds"),
            "seed": fields.pop("split_seed"),
            "budget": fields.pop("budget"),
        }
        return fields | {"split": split}

    @property
    def series_id(self) -> str:
        """First 16 hex digits of the sha256 over the identifying fields."""
        return sha256_of(self.hashed_fields())[:16]

    def run_id(
        self,
        *,
        fold: int | Literal["final"],
        split_sha256: str,
        checkpoint_sha256: str | None,
        recipe_version: int,
    ) -> str:
        """Return the id of one fit of this series."""
        extra = {
            "fold": fold,
            "split_sha256": split_sha256,
            "checkpoint_sha256": checkpoint_sha256,
            "recipe_version": recipe_version,
        }
        return sha256_of(self.hashed_fields() | extra)[:16]

    @property
    def configuration(self) -> str:
        """Readable key of what was fitted, equal over datasets, splits, label levels and seeds."""
        parts = [self.preset or self.model]
        if self.preset is not None:
            parts.append(self.init if self.checkpoint is None else f"{self.init}-{self.checkpoint}")
        if self.fraction != 1.0:
            parts.append(f"{self.fraction:g}")
        if self.settings:
            parts.append(sha256_of(self.settings)[:6])
        return "-".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the user is looking at; hashable, so that it keys caches. Empty tuples mean all.

    Raises
    ------
    InputError
        If a word is unknown, or a field is of another type; lists become tuples.
    """

    dataset_id: str
    owner: str = "local"
    label_level: str = "lineage"
    protocol: str = "donor"
    budget: str = "equal"
    configurations: tuple[str, ...] = ()
    timepoints: tuple[str, ...] = ()
    cell_types: tuple[str, ...] = ()
    truth: str = "all"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("label level", self.label_level, LABEL_LEVELS),
            ("protocol", self.protocol, (*PROTOCOLS, EXTERNAL)),
            ("truth", self.truth, tuple(TRUTHS)),
        ):
            if value not in known:
                msg = f'Unknown {name} "{str(value)[:60]}".'
                raise InputError(msg, f"Choose one of: {', '.join(known)}.")
        for name in ("dataset_id", "owner", "budget"):
            if not isinstance(getattr(self, name), str):
                msg = f"`{name}` is {str(getattr(self, name))[:60]}, which is no text."
                raise InputError(msg, "Give a text.")
        for name in ("configurations", "timepoints", "cell_types"):
            values = getattr(self, name)
            is_list = isinstance(values, tuple | list)
            if not is_list or not all(isinstance(value, str) for value in values):
                msg = f"`{name}` is no list of texts."
                raise InputError(msg, "Give a list of texts.")
            object.__setattr__(self, name, tuple(values))
        if strange := sorted(set(self.timepoints) - set(TIMEPOINTS)):
            msg = f'Unknown timepoint "{strange[0][:60]}".'
            raise InputError(msg, f"Choose among: {', '.join(TIMEPOINTS)}.")

    def with_(self, **changes: Any) -> Scope:
        """Return a copy with some fields changed."""
        return replace(self, **changes)
