"""Words of the project as types: timepoints, label levels, series, scope.

Nothing here imports more than the standard library.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from backend.errors import InputError, ModelUnavailable
from backend.protocols import EXTERNAL, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CONVERGENCE",
    "EXTERNAL",
    "GENOTYPES",
    "ID",
    "INITS",
    "LABEL_LEVELS",
    "LABEL_SOURCES",
    "MAX_FOLDS",
    "MAX_SEED",
    "OWNER",
    "PROTOCOLS",
    "STILL_IMPROVING",
    "STOPPED_IMPROVING",
    "TIMEPOINTS",
    "TRUTHS",
    "Scope",
    "Series",
    "canonical_json",
    "cap_of",
    "is_whole",
    "kind_of",
    "refuse",
    "sha256_of",
]

TIMEPOINTS: Final = ("Healthy", "Diagnosis", "Post-treatment", "Relapse")
"""Clinical timepoints in clinical order."""

LABEL_LEVELS: Final = ("fine", "lineage")
LABEL_SOURCES: Final = ("clustering", "classifier", "expert", "unknown")
GENOTYPES: Final = ("mutant", "wildtype_only", "none")
INITS: Final = ("pretrained", "scratch", "frozen")
STOPPED_IMPROVING: Final = "stopped improving"
STILL_IMPROVING: Final = "still improving when stopped"
CONVERGENCE: Final = (STOPPED_IMPROVING, STILL_IMPROVING)
"""How a fit with epochs ended, by its validation cells."""

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


MAX_FOLDS: Final = 2**15 - 1
"""Bundles hold the number of a fold in 16 bits."""
MAX_SEED: Final = 2**32 - 1
"""The largest that every library takes."""
_BUDGET: Final = re.compile(r"full|equal|cap([1-9]\d{0,8})")


def cap_of(budget: str) -> int | None:
    """Return N of the budget `capN`, None of the others."""
    match = _BUDGET.fullmatch(budget)
    return int(match[1]) if match and match[1] else None


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    kinds = ((bool, "true or false"), (str, "text"), (int, "a whole number"), (float, "a number"))
    for kind, words in (*kinds, (list, "a list"), (dict, "a table"), (type(None), "nothing")):
        if isinstance(value, kind):
            return words
    return "a date or time" if hasattr(value, "isoformat") else f"a {type(value).__name__}"


def is_whole(value: Any, lowest: int, highest: float = math.inf) -> bool:
    """Say whether a value is a whole number within limits; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def refuse(name: str, value: Any, wanted: str, choices: tuple[str, ...] = ()) -> NoReturn:
    """Raise `InputError` for a value that a field of this name cannot hold."""
    shown = f'"{value[:60]}"' if isinstance(value, str) else str(value)[:60]
    near = difflib.get_close_matches(str(value)[:60], choices, n=1)
    msg = f"`{name}` is {shown} ({kind_of(value)})."
    raise InputError(msg, f"Give {wanted}." + (f' Did you mean "{near[0]}"?' if near else ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All folds of one configuration on one split: the thing that pages show and compare.

    `budget` names how training cells are limited: `full`, `equal` (as many as the smallest
    training fold over the `random` and `donor` protocols) or `capN` (at most N cells a donor,
    then as `equal`). A baseline has no `preset`, and so neither `init` nor `checkpoint`.

    Raises
    ------
    InputError
        If a field holds what it cannot, or fields do not go together.
    ModelUnavailable
        If weights are to come from a checkpoint, and none is named.
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

    def __post_init__(self) -> None:
        is_from_outside = EXTERNAL in (self.protocol, self.model)
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            is_optional = each.name in ("preset", "checkpoint") and value is None
            is_allowed = is_from_outside and (each.name, value) in (
                ("protocol", EXTERNAL),
                ("folds", 1),
            )
            if not is_optional and not is_allowed:
                self.check_field(each.name, value)
        if self.preset is None and (self.init, self.checkpoint) != ("scratch", None):
            given = self.checkpoint if self.init == "scratch" else self.init
            msg = f'{self.model} has no preset, so it cannot start from "{given}".'
            raise InputError(msg, "Leave out init and checkpoint: baselines have no weights.")
        if self.init != "scratch" and self.checkpoint is None:
            msg = f'`init` is "{self.init}", but no `checkpoint` is named.'
            hint = (
                "Register the authors' files (`python -m backend checkpoints add "
                f"{self.model} DIR`) or make some (`python -m backend pretrain`, in a plan "
                "[[pretrain]]), and name them with `checkpoint`."
            )
            raise ModelUnavailable(msg, hint)
        if self.init == "scratch" and self.checkpoint is not None:
            msg = f'`checkpoint` is "{self.checkpoint}", but `init` is "scratch".'
            raise InputError(msg, "Give init pretrained or frozen, or leave out `checkpoint`.")

    @staticmethod
    def check_field(name: str, value: Any) -> None:
        """Raise `InputError` for a value that the field of a series that is run cannot hold."""
        choices = {"protocol": tuple(PROTOCOLS), "init": INITS, "label_level": LABEL_LEVELS}.get(
            name, ()
        )
        if choices:
            is_right, wanted = value in choices, f"one of: {', '.join(choices)}"
        elif name == "folds":
            is_right = is_whole(value, 2, MAX_FOLDS)
            wanted = f"a whole number from 2 to {MAX_FOLDS}"
        elif name in ("split_seed", "seed"):
            is_right = is_whole(value, 0, MAX_SEED)
            wanted = f"a whole number from 0 to {MAX_SEED}"
        elif name == "fraction":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_right, wanted = is_number and 0 < value <= 1, "a number above 0, up to 1"
        elif name == "budget":
            is_right = isinstance(value, str) and bool(_BUDGET.fullmatch(value))
            wanted = "full, equal, or cap and a number of cells up to 999999999, such as cap500"
        elif name == "settings":
            if isinstance(value, dict):
                _check_setting(name, value)
            is_right, wanted = isinstance(value, dict), "a table, such as settings = {epochs = 4}"
        else:
            is_right, wanted = isinstance(value, str) and bool(value), "text"
        if not is_right:
            refuse(name, value, wanted, choices)

    def check_folds(self, wanted: str | Iterable[Any]) -> list[int | Literal["final"]]:
        """Return the folds that are meant, each once and `final` last.

        Parameters
        ----------
        wanted
            `all`, numbers from 0, and `final`; one of them or several.

        Raises
        ------
        InputError
            If there is no such fold.
        """
        found: list[Any] = []
        for fold in [wanted] if isinstance(wanted, str) else wanted:
            if fold == "all":
                found += range(self.folds)
            elif fold == "final" or is_whole(fold, 0, self.folds - 1):
                found.append(fold)
            else:
                msg = f"There is no fold {fold}: the split has the folds 0 to {self.folds - 1}."
                raise InputError(msg, "Choose all, final, or some of them.")
        # A final fit learns from the folds how long to train, so it comes last.
        return sorted(dict.fromkeys(found), key=lambda fold: fold == "final")

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


def _check_setting(name: str, value: Any) -> None:
    """Raise `InputError` for a value that JSON, and so the identity of a run, cannot hold."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check_setting(f"{name}.{key}", each)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_setting(name, each)
    elif not isinstance(value, str | int | float | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        refuse(name, value, "text, a finite number, true or false, or a list of them")


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
