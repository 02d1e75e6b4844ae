"""`plan.toml`: which runs a study consists of, read and checked before any work.

Every key is described in `docs/plans.md`.
"""

from __future__ import annotations

import importlib
import itertools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from backend.errors import FaultlineError, InputError, ModelUnavailable
from backend.studies.plan_keys import (
    PRETRAIN_KEYS,
    RUN_KEYS,
    SHARED,
    TOP_KEYS,
    as_list,
    check_table,
    kind_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from backend.training.runs import Fold

__all__ = ["Grid", "Plan", "Pretraining", "read_plan"]

_NONE: Final = (None,)


_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "preset": _NONE,
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
class Grid:
    """One `[[run]]` table: each of its values combined with each other.

    `place` says where it stands, for messages. `values` holds a tuple for every key of
    `RUN_KEYS` but `settings`, which holds one dict per model.
    """

    place: str
    values: Mapping[str, tuple[Any, ...]]
    settings: Mapping[str, Mapping[str, Any]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the fields of `Series`, all but the dataset's, of every combination."""
        names = [
            name for name in RUN_KEYS if name not in ("init", "checkpoint", "fold", "settings")
        ]
        starts = [
            (init, checkpoint)
            for init in self.values["init"]
            for checkpoint in (_NONE if init == "scratch" else self.values["checkpoint"])
        ]
        for *found, (init, checkpoint) in itertools.product(
            *(self.values[name] for name in names), starts
        ):
            fields = dict(zip(names, found, strict=True))
            fields["preset"] = _preset_of(fields["model"], fields["preset"])
            settings = dict(self.settings.get(fields["model"], {}))
            yield fields | {"init": init, "checkpoint": checkpoint, "settings": settings}

    @property
    def folds(self) -> Literal["all"] | tuple[Fold, ...]:
        """Which folds of each series are run."""
        wanted = self.values["fold"]
        return "all" if wanted == ("all",) else wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """One checkpoint name of one model and preset, made for the folds of one split."""

    place: str
    name: str
    model: str
    preset: str
    protocol: str
    folds: int
    split_seed: int
    budget: str
    fold: Literal["all"] | tuple[Fold, ...]
    seed: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked plan.

    datasets  : h5ad files, absolute
    any_genes : whether genes need not be human
    out       : folder or URL of the results, or None
    threads   : threads of one run; part of the plan so that no result depends on the machine
    """

    path: Path
    datasets: tuple[Path, ...]
    any_genes: bool = False
    out: str | None = None
    threads: int = 1
    grids: tuple[Grid, ...] = ()
    pretrainings: tuple[Pretraining, ...] = field(default=())


def read_plan(path: Path, *, dataset: Path | None = None) -> Plan:
    """Read a plan and check all of it that can be checked without data.

    Parameters
    ----------
    dataset
        Takes the place of the plan's `dataset`.

    Raises
    ------
    InputError
        If the file cannot be read, or a key, type or value is wrong; the message says where.
    ModelUnavailable
        If a model, preset or checkpoint is unknown.
    """
    top = _parse(path)
    check_table(top, TOP_KEYS, path.name)
    datasets = (dataset.resolve(),) if dataset is not None else _datasets(top, path)
    for each in datasets:
        if not each.is_file():
            msg = f"{path.name}: there is no dataset `{each}`."
            raise InputError(msg, "Correct `dataset`, or give the file with --dataset.")
    shared = {name: top[name] for name in SHARED if name in top}
    by_model = _settings_by_model(top.get("settings", {}), path.name)
    tables = top.get("run")
    if tables is None:
        grids = [_grid(shared, path.name, by_model)]
    else:
        grids = []
        for number, table in enumerate(_tables(tables, "run", path.name), start=1):
            place = f"{path.name}, [[run]] {number}"
            check_table(table, RUN_KEYS, place)
            grids.append(_grid(shared | table, place, by_model))
    made: list[Pretraining] = []
    for number, table in enumerate(
        _tables(top.get("pretrain", []), "pretrain", path.name), start=1
    ):
        place = f"{path.name}, [[pretrain]] {number}"
        check_table(table, PRETRAIN_KEYS, place)
        usable = {name: value for name, value in shared.items() if name in PRETRAIN_KEYS}
        # Runs may vary their seed; a checkpoint has one.
        usable.pop("seed", None)
        made += _pretrainings(usable | table, place)
    plan = Plan(
        path=path,
        datasets=datasets,
        any_genes=top.get("any_genes", False),
        out=top.get("out"),
        threads=top.get("threads", 1),
        grids=tuple(grids),
        pretrainings=tuple(made),
    )
    _check_models(plan)
    return plan


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        msg = f"There is no plan `{path}`."
        raise InputError(msg, "Give the path of a plan.toml; `plans/` holds examples.") from None
    except UnicodeDecodeError as error:
        msg = f"{path.name} is not UTF-8 text (byte {error.start})."
        raise InputError(msg, "Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        msg = f"{path.name} is not TOML: {error}."
        raise InputError(msg, "Correct it there; `docs/plans.md` shows a whole plan.") from None


def _datasets(top: Mapping[str, Any], path: Path) -> tuple[Path, ...]:
    found = as_list(top.get("dataset", []))
    if not found:
        msg = f"{path.name} names no dataset."
        raise InputError(msg, 'Write `dataset = "FILE.h5ad"`, or give the file with --dataset.')
    # Relative to the plan, so that it means the same wherever the command is given.
    return tuple((path.resolve().parent / Path(each).expanduser()).resolve() for each in found)


def _tables(value: Any, name: str, place: str) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return value
    msg = f"{place}: `{name}` is {kind_of(value)}."
    raise InputError(msg, f"Write a table for each: [[{name}]].")


def _settings_by_model(table: Mapping[str, Any], place: str) -> dict[str, dict[str, Any]]:
    """Return the plan's `[settings.MODEL]` tables."""
    from backend.models.registry import model_class

    for model, values in table.items():
        _at(f"{place}, [settings.{model}]", model_class, model)
        if not isinstance(values, dict):
            msg = f"{place}: `settings.{model}` is {kind_of(values)}."
            raise InputError(msg, f"Write a table: [settings.{model}].")
    return {model: dict(values) for model, values in table.items()}


def _listed(table: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    values = {
        name: tuple(dict.fromkeys(as_list(table[name])))
        for name in RUN_KEYS
        if name in table and name != "settings"
    }
    if "fraction" in values:
        # 1 and 1.0 are one fraction, and must be one run.
        values["fraction"] = tuple(dict.fromkeys(float(each) for each in values["fraction"]))
    return dict(_DEFAULTS) | values


def _require(table: Mapping[str, Any], names: Sequence[str], place: str) -> None:
    if missing := [name for name in names if name not in table]:
        msg = f"{place}: there is no `{missing[0]}`."
        raise InputError(msg, f"Add it; needed: {', '.join(names)}.")


def _folds(values: Mapping[str, tuple[Any, ...]], place: str) -> None:
    if "all" in values["fold"] and len(values["fold"]) > 1:
        msg = f'{place}: `fold` names "all" and others.'
        raise InputError(msg, 'Give "all" alone, or a list of numbers and "final".')
    highest = max((fold for fold in values["fold"] if isinstance(fold, int)), default=-1)
    if highest >= min(values["folds"]):
        msg = f"{place}: `fold` is {highest}, but `folds` is {min(values['folds'])}."
        raise InputError(msg, "Folds are numbered from 0.")


def _grid(table: dict[str, Any], place: str, by_model: Mapping[str, Mapping[str, Any]]) -> Grid:
    _require(table, ["model"], place)
    values = _listed(table)
    _folds(values, place)
    needs = [init for init in values["init"] if init != "scratch"]
    if needs and not values["checkpoint"]:
        key = values["model"][0]
        msg = f'{place}: `init` is "{needs[0]}", but no `checkpoint` is named.'
        raise ModelUnavailable(
            msg,
            f"Register the authors' files (`python -m backend checkpoints add {key} DIR`) and name "
            "them with `checkpoint`, or let the plan make one with a [[pretrain]] table.",
        )
    if values["checkpoint"] and not needs:
        msg = (
            f'{place}: `checkpoint` is "{values["checkpoint"][0]}", but every `init` is "scratch".'
        )
        raise InputError(msg, 'Add init = "pretrained" or "frozen", or leave out `checkpoint`.')
    own = table.get("settings", {})
    settings = {model: dict(by_model.get(model, {})) | own for model in values["model"]}
    return Grid(place=place, values=values, settings=settings)


def _pretrainings(table: Mapping[str, Any], place: str) -> list[Pretraining]:
    _require(table, ["name", "model", "preset"], place)
    values = _listed({name: value for name, value in table.items() if name != "seed"})
    _folds(values, place)
    fold: Any = "all" if values["fold"] == ("all",) else values["fold"]
    names = ("model", "preset", "protocol", "folds", "split_seed", "budget")
    made = []
    for found in itertools.product(*(values[name] for name in names)):
        fields = dict(zip(names, found, strict=True))
        fields["preset"] = _at(place, _preset_of, fields["model"], fields["preset"])
        made.append(
            Pretraining(
                place=place,
                name=table["name"],
                fold=fold,
                seed=table.get("seed", 0),
                settings=table.get("settings", {}),
                **fields,
            )
        )
    return made


def _at(place: str, call: Any, *arguments: Any) -> Any:
    """Return what `call` returns; its refusal gets the place in the plan in front."""
    try:
        return call(*arguments)
    except FaultlineError as error:
        msg = f"{place}: {error.message}"
        raise type(error)(msg, error.hint) from error


def _preset_of(key: str, preset: str | None) -> str | None:
    """Return the full name of a foundation model's preset; a baseline keeps what it was given."""
    from backend.models.registry import model_class
    from backend.training.settings import find_preset

    model = model_class(key)
    return find_preset(model, preset) if model.kind == "foundation" else preset


def _check_models(plan: Plan) -> None:
    """Try every model of a plan with its preset, init and settings.

    Raises
    ------
    ModelUnavailable
        If a model, preset or checkpoint is unknown.
    InputError
        If preset, init or settings do not fit a model.
    """
    in_plan = set()
    for made in plan.pretrainings:
        in_plan.add((made.model, made.name))
        _at(made.place, _try_pretraining, made)
    for grid in plan.grids:
        tried = set()
        for fields in _at(grid.place, list, grid):
            key = tuple(fields[name] for name in ("model", "preset", "init", "checkpoint"))
            if key not in tried:
                tried.add(key)
                _at(grid.place, _try, fields, "final" in grid.folds, in_plan)


def _try_pretraining(made: Pretraining) -> None:
    from backend.models.registry import model_class

    model = model_class(made.model)
    if model.kind == "baseline":
        msg = f"{model.display_name} is a baseline: it cannot be pre-trained."
        raise InputError(msg, "Name a foundation model.")
    # Imports torch, which the baselines do without.
    check = importlib.import_module("backend.training.pretrain").PretrainSettings.of
    options = model.options
    check({name: value for name, value in made.settings.items() if name not in options})


def _try(fields: Mapping[str, Any], is_final: bool, in_plan: set[tuple[str, str]]) -> None:  # noqa: FBT001 - passed on by `_at`
    from backend.models.catalogue import find_checkpoint, registered
    from backend.models.registry import model_class
    from backend.training.runs import build_typer
    from backend.types import Series

    series = Series(dataset_id="", **fields)
    model = model_class(series.model)
    if model.kind == "baseline" and (series.preset or series.init != "scratch"):
        msg = f"{model.display_name} is a baseline: it has no preset, init or checkpoint."
        raise InputError(msg, "Give baselines a [[run]] table of their own.")
    typer = build_typer(series)
    if is_final and not typer.is_savable:
        msg = f"{model.display_name} cannot be saved, so a final fit of it would be lost."
        raise ModelUnavailable(msg, 'Leave "final" out for it.')
    if series.checkpoint is not None and (series.model, series.checkpoint) not in in_plan:
        names = [entry.name for entry in registered(series.model)]
        if series.checkpoint not in names:
            # Refuses, and says how to register one.
            find_checkpoint(series.model, series.checkpoint)
