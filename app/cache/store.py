"""The store of this process, and how an answer is keyed: by scope and by the store's version.

What belongs to an upload is kept in the sessions of its owner, everything else for all.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import streamlit as st

from app.identity import LOCAL
from backend.config import home
from backend.evaluation import views
from backend.store.cache import PUBLIC, Store
from backend.types import Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

__all__ = [
    "Reader",
    "apart",
    "ask",
    "is_private",
    "refresh",
    "shared_store",
    "store_notice",
    "store_version",
]

P = ParamSpec("P")
R = TypeVar("R")
_SYNC_SECONDS = 30


def is_private(owner: str, dataset_id: str | None) -> bool:
    """Tell whether an answer may hold what somebody brought to a server of several people."""
    if owner in (LOCAL, PUBLIC):
        return False
    own = home() / "users" / owner / "datasets"
    return (own / dataset_id if dataset_id else own).is_dir()


def apart(kind: Any, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Cache for all sessions, but what belongs to an upload in the session that asks.

    The wrapped function gets a `Scope`, or `owner` and `dataset_id` by their names.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        shared, own = kind(**options)(function), kind(scope="session", **options)(function)

        @wraps(function)
        def asked(*args: P.args, **kwargs: P.kwargs) -> R:
            scope = next((value for value in args if isinstance(value, Scope)), None)
            owner = scope.owner if scope else str(kwargs["owner"])
            dataset_id = scope.dataset_id if scope else kwargs.get("dataset_id")
            is_own = is_private(owner, dataset_id)  # type: ignore[arg-type]
            return (own if is_own else shared)(*args, **kwargs)

        return asked

    return wrap


@st.cache_resource(show_spinner="Reading the results …")
def shared_store() -> Store:
    """Return the store of this process; it takes a cursor per call."""
    return Store.open_default()


@st.cache_data(ttl=_SYNC_SECONDS, max_entries=1, show_spinner=False)
def store_version() -> str:
    """Return the store's version after bringing it up to date, at most every half minute."""
    store = shared_store()
    store.sync()
    return store.version


def store_notice() -> str:
    """Return what became of a damaged store file, or "" when nothing did."""
    return shared_store().notice


# What every view asks first: small answers over all runs or cells.
_COMMON = frozenset({"cell_support", "datasets", "label_sources", "runs"})


@apart(st.cache_data, max_entries=64, show_spinner=False)
def _common(version: str, name: str, **parameters: Any) -> pd.DataFrame:
    return shared_store().query(name, **parameters)


@apart(st.cache_data, max_entries=8, show_spinner=False)
def _tallies(version: str, **parameters: Any) -> pd.DataFrame:
    return shared_store().query("tallies", **parameters)


class Reader:
    """The store of one version, as views read it."""

    def __init__(self, version: str) -> None:
        self.version = version

    def query(self, name: str, **parameters: Any) -> pd.DataFrame:
        """Return a query's rows, kept when many views ask for them."""
        if name in _COMMON:
            return _common(self.version, name, **parameters)
        if name == "tallies":
            return _tallies(self.version, **parameters)
        return shared_store().query(name, **parameters)

    def sql(self, statement: str, **parameters: Any) -> pd.DataFrame:
        """Return a statement's rows."""
        return shared_store().sql(statement, **parameters)


@apart(st.cache_data, max_entries=256, show_spinner=False)
def _view(name: str, version: str, scope: Scope, **arguments: Any) -> Any:
    question: Callable[..., Any] = getattr(views, name)
    return question(Reader(version), scope, **arguments)


def ask(name: str, scope: Scope, **arguments: Any) -> Any:
    """Return what a view of `backend.evaluation.views` says of a scope."""
    return _view(name, store_version(), scope, **arguments)


def refresh() -> None:
    """Bring the store up to date at the next question, for results that were just made."""
    store_version.clear()
