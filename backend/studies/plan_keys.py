"""The keys of a plan, and what each may hold."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from backend.errors import InputError
from backend.types import INITS, LABEL_LEVELS, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PRETRAIN_KEYS",
    "RUN_KEYS",
    "SHARED",
    "TOP_KEYS",
    "Key",
    "as_list",
    "check_table",
    "kind_of",
]

_CHECKPOINT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_BUDGET: Final = re.compile(r"full|equal|cap[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Key:
    """What a key may hold; `is_list` lets it hold a list of such values too.

    A fold is a number from 0, `all` or `final`; a number is above 0, up to 1.
    """

    kind: Literal["text", "whole", "number", "fold", "switch", "table"]
    choices: tuple[str, ...] = ()
    lowest: int = 0
    is_list: bool = True


RUN_KEYS: Final[Mapping[str, Key]] = {
    "model": Key("text"),
    "preset": Key("text"),
    "init": Key("text", INITS),
    "checkpoint": Key("text"),
    "protocol": Key("text", tuple(PROTOCOLS)),
    "fold": Key("fold"),
    "folds": Key("whole", lowest=2),
    "split_seed": Key("whole"),
    "budget": Key("text"),
    "label_level": Key("text", LABEL_LEVELS),
    "fraction": Key("number"),
    "seed": Key("whole"),
    "settings": Key("table", is_list=False),
}
"""Keys of a `[[run]]` table, in the order in which values vary (the last but `fold` fastest)."""

SHARED: Final = tuple(name for name in RUN_KEYS if name != "settings")
"""Keys of a `[[run]]` table that may stand above the tables."""

PRETRAIN_KEYS: Final[Mapping[str, Key]] = {
    "name": Key("text", is_list=False),
    **{name: RUN_KEYS[name] for name in ("model", "preset", "protocol", "fold")},
    **{name: RUN_KEYS[name] for name in ("folds", "split_seed", "budget")},
    "seed": Key("whole", is_list=False),
    "settings": RUN_KEYS["settings"],
}
"""Keys of a `[[pretrain]]` table."""

TOP_KEYS: Final[Mapping[str, Key]] = {
    "dataset": Key("text"),
    "out": Key("text", is_list=False),
    "any_genes": Key("switch", is_list=False),
    "threads": Key("whole", lowest=1, is_list=False),
    **{name: RUN_KEYS[name] for name in SHARED},
    "settings": RUN_KEYS["settings"],
    "run": Key("table"),
    "pretrain": Key("table"),
}
"""Keys of the plan itself: values for all its tables, and the tables."""


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and any other value as a list of one."""
    return list(value) if isinstance(value, list) else [value]


def check_table(table: Mapping[str, Any], known: Mapping[str, Key], place: str) -> None:
    """Raise `InputError` for the first key of a table that is unknown or holds a wrong value."""
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            msg = f'{place}: there is no key "{name}".'
            hint = f'Did you mean "{near[0]}"?' if near else f"It has: {', '.join(known)}."
            raise InputError(msg, hint)
        key = known[name]
        if key.kind == "table":
            if name == "settings" and not isinstance(value, dict):
                msg = f"{place}: `settings` is {kind_of(value)}."
                raise InputError(msg, "Write a table, such as settings = {epochs = 4}.")
            if name == "settings":
                _check_setting(name, value, place)
            continue
        if isinstance(value, list) and not key.is_list:
            msg = f"{place}: `{name}` is a list, but takes one value."
            raise InputError(msg, "Give one value.")
        if isinstance(value, list) and not value:
            msg = f"{place}: `{name}` is an empty list, so nothing would be run."
            raise InputError(msg, "Give at least one value, or leave the key out.")
        for each in as_list(value):
            _check_value(name, each, key, place)


def _check_value(name: str, value: Any, key: Key, place: str) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_number = is_whole or isinstance(value, float)
    if key.kind == "text":
        is_right, wanted = isinstance(value, str) and bool(value), "text"
        if key.choices:
            is_right, wanted = value in key.choices, f"one of: {', '.join(key.choices)}"
        elif name == "budget":
            is_right = isinstance(value, str) and bool(_BUDGET.fullmatch(value))
            wanted = "full, equal, or cap and a number of cells, such as cap500"
        elif name == "name":
            is_right = isinstance(value, str) and bool(_CHECKPOINT_NAME.fullmatch(value))
            wanted = "small letters, digits, dots, hyphens and underscores"
    elif key.kind == "whole":
        is_right, wanted = is_whole and value >= key.lowest, f"a whole number from {key.lowest}"
    elif key.kind == "switch":
        is_right, wanted = isinstance(value, bool), "true or false"
    elif key.kind == "number":
        is_right, wanted = is_number and 0 < value <= 1, "a number above 0, up to 1"
    else:
        is_right = value in ("all", "final") or (is_whole and value >= 0)
        wanted = '"all", "final", or numbers from 0'
    if not is_right:
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        near = difflib.get_close_matches(str(value), key.choices, n=1)
        msg = f"{place}: `{name}` is {shown} ({kind_of(value)})."
        raise InputError(msg, f"Give {wanted}." + (f' Did you mean "{near[0]}"?' if near else ""))


def _check_setting(name: str, value: Any, place: str) -> None:
    """Raise `InputError` for a value that JSON, and so the identity of a run, cannot hold."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check_setting(f"{name}.{key}", each, place)
    elif isinstance(value, list):
        for each in value:
            _check_setting(name, each, place)
    elif not isinstance(value, str | int | float) or not math.isfinite(
        0 if isinstance(value, str) else value
    ):
        found = str(value) if isinstance(value, float) else kind_of(value)
        msg = f"{place}: `{name}` is {found}."
        raise InputError(msg, "Give text, a finite number, true or false, or a list of them.")


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    kinds = ((bool, "true or false"), (str, "text"), (int, "a whole number"), (float, "a number"))
    for kind, words in (*kinds, (list, "a list"), (dict, "a table")):
        if isinstance(value, kind):
            return words
    return "a date or time"
