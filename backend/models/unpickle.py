"""Read pickled dictionaries of names and numbers, and nothing else.

A pickle is a program: reading one runs what it says. The dictionaries that some authors
distribute need two harmless names only; any other name is refused before it is looked up.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy._core.multiarray import scalar

from backend.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_pickled_dict"]

MAX_BYTES: Final = 64 * 2**20
"""The largest published dictionary has 4 MB."""

_ALLOWED: Final = {
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): scalar,
    ("numpy._core.multiarray", "scalar"): scalar,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            msg = f"the forbidden name `{module}.{name}`"
            raise pickle.UnpicklingError(msg) from None


def read_pickled_dict(path: Path) -> dict[str, Any]:
    """Return the dictionary pickled in `path`, with numpy scalars turned into Python numbers.

    Raises
    ------
    InputError
        If the file is too large, damaged, names anything but numpy scalars, or is no dictionary
        of text to text or numbers.
    """
    hint = "Get the file from the authors again and compare its sha256 with `checkpoints verify`."
    if path.stat().st_size > MAX_BYTES:
        msg = f"`{path.name}` has {path.stat().st_size:,} bytes; dictionaries have at most {MAX_BYTES:,}."
        raise InputError(msg, hint)
    try:
        with path.open("rb") as file:
            value = _RestrictedUnpickler(file).load()
    except pickle.UnpicklingError as error:
        msg = f"`{path.name}` was not read: it holds {error}."
        raise InputError(msg, hint) from None
    except (EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError):
        msg = f"`{path.name}` was not read: it is not a complete pickle."
        raise InputError(msg, hint) from None
    if not isinstance(value, dict):
        msg = f"`{path.name}` holds a {type(value).__name__}; a dictionary is expected."
        raise InputError(msg, hint)
    plain = {
        key: item.item() if isinstance(item, np.generic) else item for key, item in value.items()
    }
    for key, item in plain.items():
        if not isinstance(key, str) or not isinstance(item, (str, int, float)):
            msg = (
                f"`{path.name}` maps {type(key).__name__} to {type(item).__name__}; "
                "text to text or to numbers is expected."
            )
            raise InputError(msg, hint)
    return plain
