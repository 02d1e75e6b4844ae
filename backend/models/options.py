"""Options of a model that a series may set beside the settings of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_options"]


def check_options(
    options: Mapping[str, Any], kinds: Mapping[str, type | tuple[str, ...]], display_name: str
) -> None:
    """Raise `InputError` for an option that the model does not have or that has a wrong value.

    Parameters
    ----------
    kinds
        Of each option: `bool`, `int` (from 1), `str`, or the values to choose from.
    """
    for name, value in options.items():
        if name not in kinds:
            msg = f"{display_name} has no option {name}."
            raise InputError(msg, f"It has: {', '.join(sorted(kinds))}.")
        kind = kinds[name]
        if isinstance(kind, tuple):
            is_right, wanted = value in kind, f"one of: {', '.join(kind)}"
        elif kind is int:
            is_right = isinstance(value, int) and not isinstance(value, bool) and value > 0
            wanted = "a whole number above 0"
        else:
            is_right = isinstance(value, kind)
            wanted = "true or false" if kind is bool else "text"
        if not is_right:
            msg = f"The option {name} of {display_name} is {value!r}."
            raise InputError(msg, f"Give {wanted}.")
