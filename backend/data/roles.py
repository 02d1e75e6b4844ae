"""Roles of obs columns: which column holds the cell type, the donor, the timepoint."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PURPOSES", "ROLE_NAMES", "Roles", "guess_roles", "map_timepoint", "parse_roles"]

PURPOSES: Final = {
    "train": ("cell_type", "donor"),
    "evaluate": ("cell_type",),
    "predict": (),
}
"""What a dataset is for → the roles that it must have then."""

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "cell_type": (
        "cell_type_fine",
        "cell_type",
        "celltype",
        "cell_types",
        "author_cell_type",
        "cell_type_original",
        "cell_label",
        "cell_annotation",
        "annotation",
        "labels",
        "label",
    ),
    "donor": ("donor", "donor_id", "patient", "patient_id", "individual", "subject", "subject_id"),
    "timepoint": (
        "timepoint",
        "time_point",
        "clinical_timepoint",
        "disease_stage",
        "stage",
        "visit",
    ),
    "study": ("study", "study_id", "dataset", "dataset_id", "cohort", "project"),
    "sample": ("sample", "sample_id", "sample_name", "orig.ident", "library", "library_id"),
    "day": ("day", "days", "day_from_diagnosis"),
    "label_source": ("label_source",),
    "genotype": ("genotype",),
    "is_malignant": ("is_malignant", "malignant", "malignancy"),
    "sort": ("sort",),
}
"""Role → column names that mean it, the most telling first; compared without case and marks."""

ROLE_NAMES: Final = tuple(_NAMES)

_TIMEPOINT_WORDS: Final = {
    "Healthy": ("healthy", "normal", "control", "hd", "nbm", "healthydonor", "healthycontrol"),
    "Diagnosis": ("diagnosis", "dx", "atdiagnosis", "newlydiagnosed", "primary", "baseline", "d0"),
    "Post-treatment": (
        "posttreatment",
        "posttherapy",
        "treated",
        "aftertreatment",
        "remission",
        "completeremission",
        "cr",
        "mrd",
        "followup",
    ),
    "Relapse": ("relapse", "relapsed", "rel", "atrelapse"),
}
_TIMEPOINT_OF: Final = {
    word: timepoint for timepoint, words in _TIMEPOINT_WORDS.items() for word in words
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Column of each role: None leaves it to the guess, "" says that the file has none.

    `timepoints` maps values of the timepoint column to the clinical ones where their words are
    not known; `counts` names the matrix that holds counts ("X", "raw.X" or "layers/NAME");
    `is_rounded` takes the nearest whole number where counts are not whole. `profile` is the key of
    the profile by which the file is read (`backend.data.profiles`): None recognises it, "" is none.
    """

    cell_type: str | None = None
    donor: str | None = None
    timepoint: str | None = None
    study: str | None = None
    sample: str | None = None
    day: str | None = None
    label_source: str | None = None
    genotype: str | None = None
    is_malignant: str | None = None
    sort: str | None = None
    counts: str | None = None
    profile: str | None = None
    is_rounded: bool = False
    timepoints: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.timepoints.values()) - set(TIMEPOINTS))
        if unknown:
            msg = f"Unknown timepoints: {', '.join(unknown[:5])}."
            raise InputError(msg, f"Use {', '.join(TIMEPOINTS)}.")

    def columns(self) -> dict[str, str]:
        """Return role → column for the roles that have one."""
        found = {name: getattr(self, name) for name in ROLE_NAMES}
        return {name: column for name, column in found.items() if column}

    def over(self, guessed: Roles) -> Roles:
        """Return the guessed roles, but for those that are given here; a column has one role."""
        own = self.columns()
        kept = {
            role: column
            for role, column in guessed.columns().items()
            if getattr(self, role) is None and column not in own.values()
        }
        columns: dict[str, Any] = dict.fromkeys(ROLE_NAMES) | kept | own
        return replace(self, **columns)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"timepoints": dict(self.timepoints)}


def parse_roles(
    words: Iterable[str], timepoints: Iterable[str] = (), *, is_rounded: bool = False
) -> Roles | None:
    """Read words such as `cell_type=annotation`, `donor=` (none), `counts=layers/NAME` or `profile=`.

    Parameters
    ----------
    words
        Roles with their columns; the others stay guessed.
    timepoints
        Words such as `Day 0=Diagnosis`.
    is_rounded
        See `Roles`.

    Returns
    -------
    None when nothing is given.

    Raises
    ------
    InputError
        If a word does not name a role and its column, or a value and its timepoint.
    """
    known = (*ROLE_NAMES, "counts", "profile")
    given: dict[str, Any] = {}
    for word in words:
        role, mark, column = word.partition("=")
        if not mark or role not in known or (role == "counts" and not column):
            msg = f'"{word}" does not name a role and its column.'
            raise InputError(msg, f"Roles are: {', '.join(known)}.")
        given[role] = column
    named: dict[str, str] = {}
    for word in timepoints:
        value, mark, timepoint = word.rpartition("=")
        if not mark or not value:
            msg = f'"{word}" does not name a value and its timepoint.'
            raise InputError(msg, 'Write, for example, --timepoint "Day 0=Diagnosis".')
        named[value] = timepoint
    if not (given or named or is_rounded):
        return None
    return Roles(**given, timepoints=named, is_rounded=is_rounded)


def guess_roles(columns: Iterable[str]) -> Roles:
    """Guess the roles from the names of obs columns; each column gets one role at most."""
    columns = list(columns)
    by_word: dict[str, str] = {}
    for column in columns:
        by_word.setdefault(_word(column), column)
    taken: set[str] = set()
    found: dict[str, str] = {}
    for role, names in _NAMES.items():
        for name in names:
            column = by_word.get(_word(name), "")
            if column and column not in taken:
                found[role] = column
                taken.add(column)
                break
    return Roles(**found)  # type: ignore[arg-type]


def map_timepoint(value: str, given: Mapping[str, str] | None = None) -> str | None:
    """Return the clinical timepoint that a value means, or None when that is not known.

    A day such as "D29" is never read as Relapse or Post-treatment: only "D0" is Diagnosis.
    """
    if given and value in given:
        return given[value]
    return _TIMEPOINT_OF.get(_word(value))


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())
