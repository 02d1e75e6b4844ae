"""The one message that the server sends to the map in the browser.

4 bytes `FLM1`, u32 length of the header, header (JSON, UTF-8), zeros up to a multiple of 8, then
the columns one after another: x u16, y u16, category u8, continuous u8, facet u8, flags u8, all
little-endian. Row i is the cell with `cell_index` i. That is 8 bytes a cell. A browser that holds
the coordinates already gets a message without x and y: 4 bytes a cell.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backend.types import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.evaluation.cells.coordinates import Coordinates

__all__ = ["encode", "flags_of"]

MAGIC: Final = b"FLM1"

COORDINATE_COLUMNS: Final = ("x", "y")
COLUMNS: Final = ("x", "y", "category", "continuous", "facet", "flags")
"""Order of the columns."""

WRONG: Final = 1
CONFIDENT: Final = 2
SELECTED: Final = 4
CONTEXT: Final = 8
"""Bits of the flags: `CONTEXT` marks cells outside the filters, drawn grey below all others."""

_DTYPES: Final = {name: "<u2" if name in COORDINATE_COLUMNS else "u1" for name in COLUMNS}


def flags_of(
    *,
    wrong: np.ndarray,
    confident: np.ndarray,
    selected: np.ndarray | None,
    context: np.ndarray,
) -> np.ndarray:
    """Return the flags of all cells from four masks: (n,) uint8."""
    flags = wrong.astype(np.uint8) * np.uint8(WRONG)
    flags |= confident.astype(np.uint8) * np.uint8(CONFIDENT)
    if selected is not None:
        flags |= selected.astype(np.uint8) * np.uint8(SELECTED)
    flags |= context.astype(np.uint8) * np.uint8(CONTEXT)
    return flags


def encode(
    coordinates: Coordinates,
    *,
    category: np.ndarray,
    continuous: np.ndarray,
    facet: np.ndarray,
    flags: np.ndarray,
    header: Mapping[str, Any],
    with_coordinates: bool = True,
) -> bytes:
    """Return the message.

    Parameters
    ----------
    category, continuous, facet, flags
        (n,) uint8.
    header
        What the map shows besides: `categories`, `colours`, `facets`, `mode` and texts. `n`, the
        bounds, the names of the columns and the token of the coordinates are added.
    with_coordinates
        Whether x and y go along; False for a browser that has those of this token.
    """
    columns: dict[str, np.ndarray] = {
        "x": coordinates.x,
        "y": coordinates.y,
        "category": category,
        "continuous": continuous,
        "facet": facet,
        "flags": flags,
    }
    names = [n for n in COLUMNS if with_coordinates or n not in COORDINATE_COLUMNS]
    for name in names:
        if columns[name].shape != (len(coordinates),):
            msg = (
                f"Column {name} has the shape {columns[name].shape}; ({len(coordinates)},) is due."
            )
            raise ValueError(msg)
    whole = {
        **header,
        **coordinates.bounds,
        "n": len(coordinates),
        "columns": names,
        "coordinates": coordinates.token,
    }
    text = canonical_json(whole).encode("utf-8")
    start = len(MAGIC) + 4 + len(text)
    parts = [MAGIC, struct.pack("<I", len(text)), text, b"\0" * (-start % 8)]
    parts += [np.ascontiguousarray(columns[n], dtype=_DTYPES[n]).tobytes() for n in names]
    return b"".join(parts)
