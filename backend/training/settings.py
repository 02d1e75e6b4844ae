"""Settings of a series: what may be given to a model, checked before anything is computed."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_settings", "find_preset", "parse_settings"]


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=VALUE` words as settings; a value that is not JSON is text.

    Raises
    ------
    InputError
        If a word has no name, or a name is given twice.
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator or not name or name in settings:
            msg = f'The setting "{word}" is not NAME=VALUE, or its name was given before.'
            raise InputError(msg, "Write each setting once, for example --set n_genes=2000.")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


def check_settings(model: type, settings: dict[str, Any]) -> None:
    """Raise `InputError` for settings that the constructor of a baseline does not take."""
    known = [
        name
        for name, parameter in inspect.signature(model).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        msg = f"{getattr(model, 'display_name', model)} has no setting {', '.join(unknown[:5])}."
        raise InputError(msg, f"It has: {', '.join(known)}." if known else "It has none.")


def find_preset(model: Any, preset: str | None) -> str:
    """Return the full key of a foundation model's preset, such as `scgpt.small` for `small`.

    Raises
    ------
    InputError
        If none was given, or the model does not have it.
    """
    names = [config.name for config in model.presets.values()]
    for name in names:
        if preset in (name, name.rpartition(".")[2]):
            return name
    found = "no preset was given" if preset is None else f'there is no preset "{preset}"'
    msg = f"{model.display_name} needs a preset, and {found}."
    raise InputError(msg, f"Choose one of: {', '.join(names)}.")
