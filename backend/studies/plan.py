"""`plan.toml`: which runs a study consists of, read and checked before any work.

Every key is described in `docs/plans.md`. One run is a plan of one row (`plan_of_one`). What a run
may be is said by `Series` and by the models; here mistakes only get their place in front.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import itertools
import math
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from backend.data.roles import Roles, parse_roles
from backend.errors import FaultlineError, InputError, ModelUnavailable
from backend.models.catalogue import check_name, find_checkpoint, registered
from backend.models.registry import model_class
from backend.studies.subsets import SUBSET_KEYS, Subset, parse_subset
from backend.training.runs import build_typer
from backend.training.settings import find_preset, preset_of
from backend.types import Series, is_whole, kind_of, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from backend.training.progress import Folds

__all__ = [
    "OF_SPLIT",
    "PRETRAIN_KEYS",
    "RUN_KEYS",
    "TOP_KEYS",
    "Plan",
    "Pretraining",
    "Row",
    "plan_of_one",
    "read_plan",
]

OF_SPLIT: Final = ("protocol", "folds", "split_seed", "budget")
_OF_SERIES: Final = ("model", "preset", *OF_SPLIT, "label_level", "fraction", "seed")
"""In the order in which values vary, the last one fastest; after them come the weights."""
RUN_KEYS: Final = (*_OF_SERIES, "init", "checkpoint", "fold", "settings")
"""Keys of a `[[run]]` table. Each but `settings` takes a list, and may stand above the tables."""
PRETRAIN_KEYS: Final = ("name", "model", "preset", *OF_SPLIT, "fold", "seed", "settings")
"""Keys of a `[[pretrain]]` table."""
TOP_KEYS: Final = (
    *("dataset", "subset", "roles", "out", "any_genes", "threads"),
    *(*RUN_KEYS, "run", "pretrain"),
)
"""Keys of the plan itself: values for all its tables, and the tables."""

MOST_ROWS: Final = 2_000
_MOST_DOTS: Final = 1_000
_LARGEST: Final = 1 << 20

_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "preset": (None,),
    "init": ("scratch",),
    "checkpoint": (),
    "protocol": ("donor",),
    "fold": ("all",),
    "folds": (5,),
    "split_seed": (0,),
    "budget": ("equal",),
    "label_level": ("lineage",),
    "fraction": (1.0,),
    "seed": (0,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One series, and which of its folds are run.

    place  : where the plan names it, for messages; "" where it was given by hand
    series : its dataset, and the folds that a small dataset can have, are known with the data
    """

    place: str = ""
    series: Series
    folds: Folds = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining(Row):
    """A checkpoint of one model and preset, made for the folds of one split under one name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked plan.

    name      : of its file, for messages
    datasets  : h5ad files, absolute
    subset    : what is drawn of each of them, None for all cells
    any_genes : whether genes need not be human
    roles     : columns that a person named; the others are guessed
    out       : folder or URL of the results, or None
    threads   : threads of one run; part of the plan so that no result depends on the machine
    split     : frozen split that takes the place of the one that the rows describe
    options   : keywords of `run_series` that belong to no series
    missing   : model and name of checkpoints that are neither registered nor made by the plan
    """

    name: str
    datasets: tuple[Path, ...]
    subset: Subset | None = None
    any_genes: bool = False
    roles: Roles | None = None
    out: str | None = None
    threads: int = 1
    rows: tuple[Row, ...] = ()
    pretrainings: tuple[Pretraining, ...] = ()
    split: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[tuple[str, str], ...] = ()


def plan_of_one(
    fields: Mapping[str, Any],
    *,
    dataset: Path,
    folds: Folds = "all",
    **others: Any,
) -> Plan:
    """Return the plan of one row.

    Parameters
    ----------
    fields
        Of `Series`, all but the dataset's; a preset may be named without its model.
    others
        Further fields of `Plan`.

    Raises
    ------
    InputError, ModelUnavailable
        If no such run can be had, whatever the data.
    """
    for name, value in fields.items():
        if value is not None or name not in ("preset", "checkpoint"):
            Series.check_field(name, value)
    series = Series(**_with_preset({"dataset_id": ""} | dict(fields)))
    series.check_folds(folds)
    row = Row(series=series, folds=folds)
    plan = Plan(name=series.configuration, datasets=(dataset,), rows=(row,), **others)
    return _check_models(plan)


def read_plan(path: Path, *, dataset: Path | None = None, is_tolerant: bool = False) -> Plan:
    """Read a plan and check all of it that can be checked without data.

    Parameters
    ----------
    dataset
        Takes the place of the plan's `dataset`.
    is_tolerant
        Whether checkpoints may be missing: they are then named in `missing`.

    Raises
    ------
    InputError
        If the file cannot be read, or a key, type or value is wrong; the message says where.
    ModelUnavailable
        If a model, preset or checkpoint is unknown.
    """
    top = _parse(path)
    with _at(path.name):
        _check_keys(top, TOP_KEYS)
        _check_top(top)
    datasets = (dataset.resolve(),) if dataset is not None else _datasets(top, path)
    for each in datasets:
        if not each.is_file():
            msg = f"{path.name}: there is no dataset `{each}`."
            raise InputError(msg, "Correct `dataset`, or give the file with --dataset.")
    shared: dict[str, Any] = {
        name: top[name] for name in RUN_KEYS if name in top and name != "settings"
    }
    with _at(path.name):
        by_model = _settings_by_model(top.get("settings", {}))
        roles = _roles(top["roles"]) if "roles" in top else None
        tables = {name: _tables(top[name], name) for name in ("run", "pretrain") if name in top}
    subset = None
    if "subset" in top:
        with _at(f"{path.name}, [subset]"):
            _check_keys(top["subset"] if isinstance(top["subset"], dict) else {}, SUBSET_KEYS)
            subset = parse_subset(top["subset"])
    rows: list[Row] = []
    made: list[Pretraining] = []
    if "run" not in tables:
        with _at(path.name):
            rows += _rows(shared, path.name, by_model)
    for number, table in enumerate(tables.get("run", ()), start=1):
        place = f"{path.name}, [[run]] {number}"
        with _at(place):
            _check_keys(table, RUN_KEYS)
            rows += _rows(shared | table, place, by_model)
    for number, table in enumerate(tables.get("pretrain", ()), start=1):
        place = f"{path.name}, [[pretrain]] {number}"
        with _at(place):
            _check_keys(table, PRETRAIN_KEYS)
            # Runs may vary their seed; a checkpoint has one.
            usable = {k: v for k, v in shared.items() if k in PRETRAIN_KEYS and k != "seed"}
            made += _pretrainings(usable | table, place)
    if len(rows) + len(made) > MOST_ROWS:
        msg = f"{path.name} makes {len(rows) + len(made):,} series."
        raise InputError(msg, f"Write at most {MOST_ROWS:,} in one plan.")
    plan = Plan(
        name=path.name,
        datasets=datasets,
        subset=subset,
        any_genes=top.get("any_genes", False),
        roles=roles,
        out=top.get("out"),
        threads=top.get("threads", 1),
        rows=tuple(rows),
        pretrainings=tuple(made),
    )
    return _check_models(plan, is_tolerant=is_tolerant)


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"{path.name} has {path.stat().st_size:,} bytes; a plan has at most {_LARGEST:,}."
            raise InputError(msg, "Give a plan.toml.")
        text = path.read_text(encoding="utf-8")
        if max(line.count(".") for line in text.split("\n")) > _MOST_DOTS:
            # `a.a.a… = 1` is read in a time that grows with the square of its dots.
            msg = f"{path.name} has a line with more than {_MOST_DOTS:,} dots."
            raise InputError(msg, "Write lists of plain values, a few in a line.")
        return tomllib.loads(text)
    except (FileNotFoundError, IsADirectoryError):
        msg = f"There is no plan `{path}`."
        raise InputError(msg, "Give the path of a plan.toml; `plans/` holds examples.") from None
    except UnicodeDecodeError as error:
        msg = f"{path.name} is not UTF-8 text (byte {error.start})."
        raise InputError(msg, "Save it as UTF-8.") from None
    except RecursionError:
        msg = f"{path.name} nests its values too deeply."
        raise InputError(msg, "Write lists of plain values.") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:
        msg = f"{path.name} is not TOML: {error}."
        raise InputError(msg, "Correct it there; `docs/plans.md` shows a whole plan.") from None


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Put the place of a mistake in front of its message."""
    try:
        yield
    except FaultlineError as error:
        if not place:
            raise
        msg = f"{place}: {error.message}"
        raise type(error)(msg, error.hint) from error


def _check_keys(table: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [name for name in table if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        msg = f'there is no key "{unknown[0]}".'
        hint = f'Did you mean "{near[0]}"?' if near else f"It has: {', '.join(known)}."
        raise InputError(msg, hint)


def _check_top(top: Mapping[str, Any]) -> None:
    """Refuse values of the keys that belong to no run."""
    for value in _listed("dataset", top.get("dataset", "-")):
        if not isinstance(value, str) or not value:
            refuse("dataset", value, "the path of a file")
    if not isinstance(top.get("out", "-"), str) or top.get("out") == "":
        refuse("out", top["out"], "a folder or URL")
    if not isinstance(top.get("any_genes", False), bool):
        refuse("any_genes", top["any_genes"], "true or false")
    if not is_whole(top.get("threads", 1), 1):
        refuse("threads", top["threads"], "a whole number from 1")


def _listed(name: str, value: Any) -> list[Any]:
    """Return a list as it is, and any other value as a list of one."""
    if value == []:
        msg = f"`{name}` is an empty list, so nothing would be run."
        raise InputError(msg, "Give at least one value, or leave the key out.")
    return list(value) if isinstance(value, list) else [value]


def _datasets(top: Mapping[str, Any], path: Path) -> tuple[Path, ...]:
    if "dataset" not in top:
        msg = f"{path.name} names no dataset."
        raise InputError(msg, 'Write `dataset = "FILE.h5ad"`, or give the file with --dataset.')
    # Relative to the plan, so that it means the same wherever the command is given.
    folder = path.resolve().parent
    found = [type(path)(each).expanduser() for each in _listed("dataset", top["dataset"])]
    return tuple((folder / each).resolve() for each in found)


def _tables(value: Any, name: str) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return value
    msg = f"`{name}` is {kind_of(value)}."
    raise InputError(msg, f"Write a table for each: [[{name}]].")


def _roles(table: Any) -> Roles:
    """Return the plan's `[roles]`: column of a role, and under `timepoints` what words mean."""
    if not isinstance(table, dict):
        msg = f"`roles` is {kind_of(table)}."
        raise InputError(msg, "Write a table: [roles].")
    words = table.get("timepoints", {})
    columns = {name: value for name, value in table.items() if name != "timepoints"}
    for name, value in (columns | (words if isinstance(words, dict) else {"": words})).items():
        if not isinstance(value, str):
            refuse(f"roles.{name}", value, "text")
    found = parse_roles(
        [f"{name}={value}" for name, value in columns.items()],
        [f"{word}={timepoint}" for word, timepoint in words.items()],
    )
    return found or Roles()


def _settings_by_model(table: Any) -> dict[str, dict[str, Any]]:
    """Return the plan's `[settings.MODEL]` tables."""
    Series.check_field("settings", table)
    for model, values in table.items():
        with _at(f"[settings.{model}]"):
            model_class(model)
        if not isinstance(values, dict):
            msg = f"`settings.{model}` is {kind_of(values)}."
            raise InputError(msg, f"Write a table: [settings.{model}].")
    return {model: dict(values) for model, values in table.items()}


def _values(table: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the values of every key but `settings`, each of them one that a series can hold."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in RUN_KEYS:
        if name not in table or name == "settings":
            continue
        values = _listed(name, table[name])
        for value in values:
            if name != "fold":
                Series.check_field(name, value)
            elif value not in ("all", "final") and not is_whole(value, 0):
                refuse(name, value, '"all", "final", or numbers from 0')
        # 1 and 1.0 are one fraction, and must be one run.
        values = [float(value) if name == "fraction" else value for value in values]
        found[name] = tuple(dict.fromkeys(values))
    return dict(_DEFAULTS) | found


def _require(table: Mapping[str, Any], names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in table]:
        msg = f"there is no `{missing[0]}`."
        raise InputError(msg, f"Add it; needed: {', '.join(names)}.")


def _rows(table: Mapping[str, Any], place: str, by_model: Mapping[str, Any]) -> Iterator[Row]:
    """Give every combination of the values of a `[[run]]` table."""
    _require(table, ["model"])
    values = _values(table)
    own = table.get("settings", {})
    Series.check_field("settings", own)
    checkpoints = values["checkpoint"] or (None,)
    # Rows from scratch take no checkpoint, where it is meant for others of the table.
    for_scratch = (None,) if len(values["init"]) > 1 else checkpoints
    weights = [
        (init, checkpoint)
        for init in values["init"]
        for checkpoint in (for_scratch if init == "scratch" else checkpoints)
    ]
    _check_size([*(values[name] for name in _OF_SERIES), weights])
    for *found, (init, checkpoint) in itertools.product(
        *(values[name] for name in _OF_SERIES), weights
    ):
        fields = dict(zip(_OF_SERIES, found, strict=True))
        fields |= {"dataset_id": "", "init": init, "checkpoint": checkpoint}
        fields["settings"] = dict(by_model.get(fields["model"], {})) | own
        series = Series(**_with_preset(fields))
        series.check_folds(values["fold"])
        yield Row(place=place, series=series, folds=values["fold"])


def _check_size(lists: Sequence[Sequence[Any]]) -> None:
    """Refuse more combinations than anybody runs, before any is made."""
    n = math.prod(len(values) for values in lists)
    if n > MOST_ROWS:
        msg = f"the lists of values make {n:,} series."
        raise InputError(msg, f"Write at most {MOST_ROWS:,} in one plan.")


def _with_preset(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a series with the full name of its preset."""
    return fields | {"preset": preset_of(model_class(fields["model"]), fields.get("preset"))}


def _pretrainings(table: Mapping[str, Any], place: str) -> Iterator[Pretraining]:
    _require(table, ["name", "model", "preset"])
    values = _values({name: value for name, value in table.items() if name != "seed"})
    check_name(table["name"])
    seed, settings = table.get("seed", 0), table.get("settings", {})
    names = ("model", "preset", *OF_SPLIT)
    _check_size([values[name] for name in names])
    for found in itertools.product(*(values[name] for name in names)):
        fields = dict(zip(names, found, strict=True))
        model = model_class(fields["model"])
        if model.kind == "baseline":
            msg = f"{model.display_name} is a baseline: it cannot be pre-trained."
            raise InputError(msg, "Name a foundation model.")
        fields["preset"] = find_preset(model, fields["preset"])
        series = Series(dataset_id="", seed=seed, settings=settings, **fields)
        series.check_folds(values["fold"])
        # Imports torch, which the baselines do without.
        steps = importlib.import_module("backend.training.pretrain").PretrainSettings
        steps.of({k: v for k, v in settings.items() if k not in model.options})
        yield Pretraining(place=place, series=series, folds=values["fold"], name=table["name"])


def _check_models(plan: Plan, *, is_tolerant: bool = False) -> Plan:
    """Try every model of a plan with its settings, and look for the checkpoints that it names.

    Returns
    -------
    The plan with the checkpoints that are missing, where that is tolerated.
    """
    in_plan = {(made.series.model, made.name) for made in plan.pretrainings}
    tried = set()
    missing: dict[tuple[str, str], ModelUnavailable] = {}
    for row in plan.rows:
        series, is_final = row.series, "final" in row.folds
        names = (series.model, series.preset, series.init, series.checkpoint, is_final)
        if (row.place, *names) in tried:
            continue
        tried.add((row.place, *names))
        with _at(row.place):
            build_typer(series, is_final=is_final)
            wanted = (series.model, series.checkpoint or "")
            if series.checkpoint is None or wanted in in_plan:
                continue
            made = {entry.name: entry for entry in registered(series.model)}
            entry = made.get(series.checkpoint)
            if entry is not None and entry.preset != series.preset:
                msg = f'the checkpoint "{entry.name}" is {entry.preset}, not {series.preset}.'
                hint = "Name its preset, or register the files of that preset under another name."
                raise InputError(msg, hint)
        if entry is None:
            try:
                with _at(row.place):
                    # Refuses, and says how to register one.
                    find_checkpoint(*wanted)
            except ModelUnavailable as error:
                missing[wanted] = error
    if missing and not is_tolerant:
        raise _all_missing(plan.name, missing)
    return replace(plan, missing=tuple(missing))


def _all_missing(
    name: str, missing: Mapping[tuple[str, str], ModelUnavailable]
) -> ModelUnavailable:
    """Return one refusal that names everything missing, so that it can be had in one go."""
    first, *others = missing.values()
    if not others:
        return first
    names = ", ".join(f'{model} "{checkpoint}"' for model, checkpoint in missing)
    hints = dict.fromkeys(error.hint for error in missing.values())
    msg = f"{name}: {len(missing)} checkpoints are not registered here: {names}."
    return ModelUnavailable(msg, " ".join(hints))
