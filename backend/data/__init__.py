"""Datasets: open, check, map, import, simulate and subset.

The public functions are loaded when they are first asked for, so that `import backend.data` stays
cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from backend.data.dataset import (
        CELLS_COLUMNS,
        DatasetInfo,
        cells_and_neighbours,
        cells_table,
        describe,
    )
    from backend.data.h5ad import load, read_chunks
    from backend.data.roles import Roles, guess_roles

__all__ = [
    "CELLS_COLUMNS",
    "DatasetInfo",
    "Roles",
    "cells_and_neighbours",
    "cells_table",
    "describe",
    "guess_roles",
    "load",
    "read_chunks",
]

_HOME_OF: Final = {
    "CELLS_COLUMNS": "dataset",
    "DatasetInfo": "dataset",
    "Roles": "roles",
    "cells_and_neighbours": "dataset",
    "cells_table": "dataset",
    "describe": "dataset",
    "guess_roles": "roles",
    "load": "h5ad",
    "read_chunks": "h5ad",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
