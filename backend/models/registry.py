"""Which models exist: key to module path, so that listing models imports none of them."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import Any, Final

from backend.errors import ModelUnavailable

__all__ = ["list_models", "model_class"]

_MODULES: Final = {
    "majority": "backend.models.baselines.majority:MajorityClass",
    "logreg": "backend.models.baselines.logreg:LogisticRegressionL1",
    "celltypist": "backend.models.baselines.celltypist:CellTypist",
    "hgb": "backend.models.baselines.hgb:GradientBoosting",
    "scbert": "backend.models.scbert.model:ScBert",
    "scfoundation": "backend.models.scfoundation.model:ScFoundation",
    "scgpt": "backend.models.scgpt.model:ScGPT",
    "geneformer": "backend.models.geneformer.model:Geneformer",
}


def _plugins() -> dict[str, str]:
    """Return third-party models by key (entry point group `faultline.models`)."""
    return {point.name: point.value for point in entry_points(group="faultline.models")}


def list_models() -> tuple[str, ...]:
    """Return the keys of all models, ours first, without importing any."""
    plugins = [key for key in _plugins() if key not in _MODULES]
    return (*_MODULES, *sorted(plugins))


def model_class(key: str) -> Any:
    """Import and return the class registered under `key`.

    Raises
    ------
    ModelUnavailable
        If no model has that key; the message lists the known ones.
    """
    target = _MODULES.get(key) or _plugins().get(key)
    if target is None:
        near = difflib.get_close_matches(key, list_models(), n=1)
        msg = f'There is no model "{key}". Known: {", ".join(list_models())}.'
        raise ModelUnavailable(msg, f'Did you mean "{near[0]}"?' if near else "Choose one of them.")
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
