"""What the server does before its first visitor: load modules, read results, answer what pages ask.

Everything here is only asked earlier; a page that finds nothing prepared asks for itself.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import walk_packages
from typing import TYPE_CHECKING, Final

import app
from app import cache
from app.identity import LOCAL
from app.state import models_in_order, ordered
from backend.evaluation.metrics import DEFAULT
from backend.protocols import PROTOCOLS
from backend.types import LABEL_LEVELS, Scope

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ask_first_page", "ask_other_pages", "load_modules", "opening_model", "opening_scope"]

_SLOW: Final = ("pyarrow.pandas_compat", "vl_convert")
"""Modules that libraries load when they need them, which is on the first page."""

_NOT_PAGES: Final = frozenset({"app.main", "app.server"})


def load_modules() -> None:
    """Load what pages need, so that no first visitor waits for it."""
    for module in walk_packages(app.__path__, "app."):
        if module.name not in _NOT_PAGES:
            import_module(module.name)
    for name in _SLOW:
        import_module(name)
    # Streamlit looks at the stack when it draws its first element; to find the files of a thousand
    # modules takes a third of a second, once.
    inspect.stack()


def opening_scope(choices: pd.DataFrame, owner: str = LOCAL) -> Scope:
    """Return the scope on which the dashboard opens."""
    first = choices.sort_values(["is_upload", "simulated", "name"]).dataset_id.iloc[0]
    rows = choices[choices.dataset_id == first]
    level = ordered(rows.label_level, LABEL_LEVELS[::-1])[0]
    rows = rows[rows.label_level == level]
    protocol = ordered(rows.protocol, ["donor", *PROTOCOLS])[0]
    budget = ordered(rows[rows.protocol == protocol].budget, ("equal", "full"))[0]
    return Scope(dataset_id=first, owner=owner, label_level=level, protocol=protocol, budget=budget)


def opening_model(scope: Scope) -> str:
    """Return the configuration that pages about one model open on."""
    models = cache.configurations(scope)
    shown = models.configuration[models.is_default.astype(bool)]
    complete = models.configuration[models.is_complete.astype(bool)]
    baselines = models.configuration[models.is_baseline.astype(bool)]
    return models_in_order(shown, set(complete), set(baselines))[0]


def _opening() -> tuple[Scope, str] | None:
    """Return the scope and the model on which the dashboard opens; None without results."""
    choices = cache.scope_choices(LOCAL)
    if choices.empty:
        return None
    scope = opening_scope(choices)
    return scope, opening_model(scope)


def ask_first_page() -> None:
    """Answer what the first page asks."""
    if (opening := _opening()) is None:
        return
    scope, model = opening
    cache.timepoints(scope)
    cache.provenance(scope)
    cache.overview(scope, DEFAULT)
    cache.averages(scope)
    cache.blasts(scope)
    cache.absent_models(scope)
    cache.f1_by_cell_type(scope, by="timepoint", configuration=model)


def ask_other_pages() -> None:
    """Answer what the other pages ask of the scope on which the dashboard opens."""
    if (opening := _opening()) is None:
        return
    scope, model = opening
    cache.scores_by_timepoint(scope, DEFAULT)
    cache.series_table(scope)
    cache.patient_courses(scope, model, DEFAULT)
    cache.f1_by_cell_type(scope, by="model", configuration=None)
    cache.scores_by_donor(scope, model, DEFAULT)
    cache.confusions(scope, model)
    cache.optimism(scope, DEFAULT)
    cache.published(scope)
    cache.cells_on_map(scope, model)
