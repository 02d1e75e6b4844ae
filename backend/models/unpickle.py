"""Read pickled dictionaries of names and numbers, and nothing else.

A pickle is a program: reading one runs what it says. The dictionaries that some authors distribute
need three harmless names only. In place of each stands a function of ours that makes text and plain
numbers; any other name is refused before it is looked up. Reading happens in a process of its own
with little memory and time, because pickles can also be made to exhaust or crash their reader.
"""

from __future__ import annotations

import math
import pickle
import struct
from typing import TYPE_CHECKING, Any, Final

from backend.errors import InputError
from backend.processes import ChildEnded, Limits, ask_child

if TYPE_CHECKING:
    from pathlib import Path

    from backend.processes import Channel

__all__ = ["read_pickled_dict"]

MAX_BYTES: Final = 64 * 2**20
"""The largest published dictionary has 4 MB."""
_LIMITS: Final = Limits(address_space=2 << 30, seconds=60.0, may_write=False)
_MOST_NAMES: Final = 2_000_000
_LONGEST_NAME: Final = 1000

_FORMATS: Final = {
    "b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q",
    "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
"""How `struct` calls the number types of numpy."""


class _NumberType:
    """A number type of numpy, of which only size and byte order matter."""

    __slots__ = ("format", "order")

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:  # noqa: FBT002 (numpy's order)
        if not isinstance(code, str) or code not in _FORMATS or {align, copy} - {False, True}:
            msg = "a number type that is not known"
            raise pickle.UnpicklingError(msg)
        self.format = _FORMATS[code]
        self.order = "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
        if order not in ("<", ">", "|", "=") or state[2:] != (None, None, None, -1, -1, 0):  # type: ignore[index]
            msg = "a number type with parts"
            raise pickle.UnpicklingError(msg)
        self.order = "=" if order == "|" else order


def _number(kind: object, raw: object) -> float:
    if not isinstance(kind, _NumberType) or not isinstance(raw, bytes):
        msg = "a number without type or bytes"
        raise pickle.UnpicklingError(msg)
    try:
        value: float = struct.unpack(kind.order + kind.format, raw)[0]
    except struct.error:
        msg = "a number of a wrong size"
        raise pickle.UnpicklingError(msg) from None
    return value


def _encoded(text: object, encoding: object) -> bytes:
    """Protocols before 3 write bytes as text."""
    if not isinstance(text, str) or encoding != "latin1" or len(text) > 8:
        msg = "encoded text"
        raise pickle.UnpicklingError(msg)
    return text.encode("latin1")


def _number_type(*given: object) -> _NumberType:
    return _NumberType(*given)


_ALLOWED: Final = {
    ("numpy", "dtype"): _number_type,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): _encoded,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            msg = f"the forbidden name `{module[:80]}.{name[:80]}`"
            raise pickle.UnpicklingError(msg) from None

    def persistent_load(self, pid: object) -> Any:
        msg = "a persistent object"
        raise pickle.UnpicklingError(msg)


def read_in_child(channel: Channel, path: Path) -> dict[str, Any]:
    """Return `{"values": …}` or `{"refused": why}` for a pickle."""
    try:
        with path.open("rb") as file:
            value = _RestrictedUnpickler(file).load()
    except pickle.UnpicklingError as error:
        return {"refused": f"was not read: it holds {error}"}
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError,
        TypeError, ValueError,
    ):  # fmt: skip
        return {"refused": "was not read: it is not a complete pickle"}
    if type(value) is not dict:
        return {"refused": f"holds a {type(value).__name__}; a dictionary is expected"}
    if len(value) > _MOST_NAMES:
        return {"refused": f"holds {len(value):,} names; at most {_MOST_NAMES:,} are read"}
    for key, item in value.items():
        if type(key) is not str or type(item) not in (str, int, float, bool):
            kinds = f"{type(key).__name__} to {type(item).__name__}"
            return {"refused": f"maps {kinds}; text to text or to numbers is expected"}
        if len(key) > _LONGEST_NAME or (type(item) is str and len(item) > _LONGEST_NAME):
            return {"refused": f"holds a name of more than {_LONGEST_NAME:,} characters"}
        if (type(item) is float and not math.isfinite(item)) or (
            type(item) is int and item.bit_length() > 64
        ):
            return {"refused": "holds a number that is not finite or needs more than 64 bits"}
    return {"values": value}


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
        found = ask_child(
            "backend.models.unpickle:read_in_child", path.resolve(), limits=_LIMITS, is_quiet=True
        )
    except ChildEnded as end:
        how = "reading it came to no end" if end.exceeded else f"the process that read it {end}"
        msg = f"`{path.name}` was not read: {how}."
        raise InputError(msg, hint) from None
    if "refused" in found:
        msg = f"`{path.name}` {found['refused']}."
        raise InputError(msg, hint)
    values: dict[str, Any] = found["values"]
    return values
