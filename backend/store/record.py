"""What the head of a bundle says: `run.json` as a `RunRecord`, `dataset.json` as plain values."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from backend.errors import StoreError
from backend.store.roots import check_id
from backend.types import CONVERGENCE

if TYPE_CHECKING:
    from backend.types import Series

__all__ = ["FORMAT_VERSION", "RunRecord", "is_damaged", "parse_dataset", "parse_run"]

FORMAT_VERSION: Final = 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What `run.json` says: which fit this is, whether it ended, and on what.

    `fold` is a number from 0 or `"final"` (fitted on all donors, nothing tested). `classes` is
    the order of every `proba` list. `notes` are sentences that every view of the run shows.
    """

    status: Literal["done", "failed"]
    reason: str | None = None
    error_kind: str | None = None
    created_at: str = field(default_factory=_now)

    run_id: str
    series_id: str

    dataset_id: str
    protocol: str
    folds: int
    split_seed: int = 0
    budget: str = "equal"
    model: str
    preset: str | None = None
    init: str = "scratch"
    checkpoint: str | None = None
    label_level: str
    fraction: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    fold: int | Literal["final"]
    split_sha256: str
    checkpoint_sha256: str | None = None
    recipe_version: int = 1

    display_name: str
    configuration: str
    classes: tuple[str, ...] = ()
    n_train: int = 0
    n_valid: int = 0
    n_test: int = 0
    n_train_donors: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    wall_seconds: float | None = None
    peak_memory_mib: float | None = None
    notes: tuple[str, ...] = ()
    convergence: dict[str, Any] | None = None
    """How a fit with epochs ended: its `state`, one of `CONVERGENCE`, and the numbers behind it."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """What the fit chose for itself on its training cells, such as the strength of a penalty."""
    files: dict[str, str] = field(default_factory=dict, compare=False)
    """Name → hex sha256 of the other files of the bundle; filled in when it is written."""

    def __post_init__(self) -> None:
        for name in ("run_id", "series_id", "dataset_id"):
            check_id(getattr(self, name), f"`{name}`")
        if self.status not in ("done", "failed"):
            msg = f"Run {self.run_id} has the status {self.status!r}."
            raise StoreError(msg, "A bundle is `done` or `failed`; running jobs leave none.")
        is_number = isinstance(self.fold, int) and not isinstance(self.fold, bool)
        if self.fold != "final" and not (is_number and 0 <= self.fold < 2**15):
            msg = f"Run {self.run_id} has the fold {self.fold!r}."
            raise StoreError(msg, 'A fold is a number from 0, or "final".')
        if len(set(self.classes)) != len(self.classes):
            msg = f"Run {self.run_id} lists a class twice: {', '.join(self.classes[:5])}."
            raise StoreError(msg, "Classes must be unique; they name the columns of `proba`.")

    @classmethod
    def for_series(
        cls,
        series: Series,
        *,
        fold: int | Literal["final"],
        split_sha256: str,
        checkpoint_sha256: str | None = None,
        recipe_version: int = 1,
        **values: Any,
    ) -> Self:
        """Return the record of one fit of `series`, its ids worked out."""
        identity = {
            "fold": fold,
            "split_sha256": split_sha256,
            "checkpoint_sha256": checkpoint_sha256,
            "recipe_version": recipe_version,
        }
        return cls(
            run_id=series.run_id(**identity),  # type: ignore[arg-type]
            series_id=series.series_id,
            configuration=series.configuration,
            **dataclasses.asdict(series),
            **identity,  # type: ignore[arg-type]
            **values,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        return {"format_version": FORMAT_VERSION} | dataclasses.asdict(self)


def _parse_head(content: bytes, what: str) -> dict[str, Any]:
    """Read a head file and refuse what this version does not understand."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = f"{what} is damaged: it is not JSON ({type(error).__name__})."
        raise StoreError(msg, "Delete the bundle's folder and make it again.") from error
    if not isinstance(values, dict):
        msg = f"{what} is damaged: found a {type(values).__name__} where an object belongs."
        raise StoreError(msg, "Delete the bundle's folder and make it again.")
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        msg = f"{what} has format version {version!r}; this Faultline reads {FORMAT_VERSION}."
        raise StoreError(msg, "Update Faultline, or make the bundle again with this one.")
    return values


def is_damaged(content: bytes) -> bool:
    """Say whether a head is not even JSON. One of an unknown version is not damaged."""
    try:
        return not isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return True


def _check_files(files: object, what: str) -> None:
    if not isinstance(files, dict) or not all(isinstance(each, str) for each in files.values()):
        msg = f"{what} is damaged: `files` must give a sha256 for each name."
        raise StoreError(msg, "Delete the bundle's folder and make it again.")


_TEXTS: Final = (
    "created_at", "protocol", "budget", "model", "init", "label_level", "split_sha256",
    "display_name", "configuration", "device",
)  # fmt: skip


_NUMBERS: Final = ("best_epoch", "last_epoch", "max_epochs", "patience", "best", "last")


def _is_convergence(value: object) -> bool:
    if not isinstance(value, dict) or value.get("state") not in CONVERGENCE:
        return False
    numbers = [value.get(name) for name in _NUMBERS]
    is_right = all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)
    return is_right and isinstance(value.get("select_by"), str)


def _check_kinds(record: RunRecord, what: str) -> None:
    """Refuse values that pages and queries could not take for what they are."""
    wrong = [name for name in _TEXTS if not isinstance(getattr(record, name), str)]
    wrong += [
        n for n in ("settings", "versions", "chosen") if not isinstance(getattr(record, n), dict)
    ]
    wrong += [
        name
        for name in ("classes", "notes")
        if not all(isinstance(each, str) for each in getattr(record, name))
    ]
    if record.convergence is not None and not _is_convergence(record.convergence):
        wrong.append("convergence")
    if wrong:
        msg = f"{what} is damaged: `{wrong[0]}` is of the wrong kind."
        raise StoreError(msg, "Delete the bundle's folder and make it again.")


def parse_run(content: bytes, name: str) -> RunRecord:
    """Return the record in the bytes of a `run.json` of folder `name`."""
    what = f"`run.json` of {name}"
    values = _parse_head(content, what)
    known = {item.name for item in dataclasses.fields(RunRecord)}
    values = {key: value for key, value in values.items() if key in known}
    try:
        for key in ("classes", "notes"):
            values[key] = tuple(values.get(key) or ())
        _check_files(values.get("files", {}), what)
        record = RunRecord(**values)
        _check_kinds(record, what)
    except TypeError as error:
        msg = f"{what} is damaged: {str(error).removeprefix('RunRecord.__init__() ')}."
        raise StoreError(msg, "Delete the bundle's folder and make it again.") from error
    if record.run_id != name:
        msg = f"{what} names run {record.run_id}."
        raise StoreError(msg, "A bundle's folder bears its run id; do not rename it.")
    return record


def parse_dataset(content: bytes, name: str) -> dict[str, Any]:
    """Return the values in the bytes of a `dataset.json` of folder `name`."""
    what = f"`dataset.json` of {name}"
    values = _parse_head(content, what)
    if values.get("dataset_id") != name:
        msg = f"{what} names dataset {values.get('dataset_id')!r}."
        raise StoreError(msg, "A bundle's folder bears its dataset id; do not rename it.")
    _check_files(values.get("files", {}), what)
    if not isinstance(values.get("name"), str) or not isinstance(values.get("simulated"), bool):
        msg = f"{what} is damaged: `name` must be text and `simulated` true or false."
        raise StoreError(msg, "Delete the bundle's folder and make it again.")
    return values
