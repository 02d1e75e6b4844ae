"""Charts as the browser reads them, so that a page that is drawn again builds none of them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app.cache.store import apart

if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial

__all__ = ["chart_spec"]


@apart(st.cache_data, max_entries=256, show_spinner=False)
def _spec(
    name: str,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    *,
    owner: str,
    dataset_id: str,
    _make: Callable[[], dict[str, Any]],
    **background: bool,
) -> dict[str, Any]:
    return _make()


def chart_spec(
    build: partial[Any],
    make: Callable[[], dict[str, Any]],
    *,
    owner: str,
    dataset_id: str,
    **background: bool,
) -> dict[str, Any]:
    """Return what `make` makes of the chart of `build`, once for the same data and background.

    Parameters
    ----------
    build
        A function of a module with all its arguments: they and its name are the key.
    owner, dataset_id
        Whose data the chart shows.
    background
        What else `make` depends on.
    """
    name = f"{build.func.__module__}.{build.func.__qualname__}"
    return _spec(
        name,
        build.args,
        build.keywords,
        owner=owner,
        dataset_id=dataset_id,
        _make=make,
        **background,
    )
