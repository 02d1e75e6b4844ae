"""Roles of obs columns: which column holds the cell type, the donor, the timepoint."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
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
    """Column of each role, None where the file has none.

    `timepoints` maps values of the timepoint column to the clinical ones where their words are
    not known; `counts` names the matrix that holds counts ("X", "raw.X" or "layers/NAME").
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
    timepoints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.timepoints.values()) - set(TIMEPOINTS))
        if unknown:
            msg = f"Unknown timepoints: {', '.join(unknown[:5])}."
            raise InputError(msg, f"Use {', '.join(TIMEPOINTS)}.")

    def columns(self) -> dict[str, str]:
        """Return role → column for the roles that have one."""
        found = {name: getattr(self, name) for name in ROLE_NAMES}
        return {name: column for name, column in found.items() if column is not None}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"timepoints": dict(self.timepoints)}


def parse_roles(words: Iterable[str]) -> Roles | None:
    """Read words such as `cell_type=annotation` or `counts=layers/NAME`; None without any.

    Raises
    ------
    InputError
        If a word does not name a role and its column.
    """
    known = (*ROLE_NAMES, "counts")
    given: dict[str, Any] = {}
    for word in words:
        role, _, column = word.partition("=")
        if not column or role not in known:
            msg = f'"{word}" does not name a role and its column.'
            raise InputError(msg, f"Roles are: {', '.join(known)}.")
        given[role] = column
    return Roles(**given) if given else None


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
