"""Code that numba compiles, kept on disk, so that only the first process of a machine waits."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from numba import njit
from numba.core.dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["compiled", "kept_compiled"]


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep it where there is a place to."""
    dispatcher = njit(function)
    _keep(dispatcher)
    return dispatcher


def kept_compiled(*modules: ModuleType) -> None:
    """Keep what other packages' modules compile from here on."""
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Dispatcher) and value.py_func.__module__ == module.__name__:
                _keep(value)


def _keep(dispatcher: Any) -> None:
    # numba finds no folder that it may write to: compiled anew in each process, as without this.
    with suppress(RuntimeError):
        dispatcher.enable_caching()
