"""Which models exist: key to module path, so that listing models imports none of them."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import Any, Final

from backend.errors import ModelUnavailable
from backend.models.base import CellTyper, FoundationModel

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
        If no model has that key; the message lists the known ones. Also if a plug-in does not
        keep the contract of `backend.models.base`.
    """
    target = _MODULES.get(key) or _plugins().get(key)
    if target is None:
        near = difflib.get_close_matches(key, list_models(), n=1)
        msg = f'There is no model "{key}". Known: {", ".join(list_models())}.'
        raise ModelUnavailable(msg, f'Did you mean "{near[0]}"?' if near else "Choose one of them.")
    module, _, name = target.partition(":")
    found = getattr(importlib.import_module(module), name)
    return found if key in _MODULES else _completed(key, found)


def _completed(key: str, found: Any) -> Any:
    """Return the class of a plug-in, which need not inherit ours, with our defaults.

    A class with presets is taken for a foundation model where it does not say what it is.
    """
    told = "foundation" if hasattr(found, "presets") else "baseline"
    is_foundation = getattr(found, "kind", told) == "foundation"
    contract = FoundationModel if is_foundation else CellTyper
    needed = {"key", "display_name", "card", *contract.__abstractmethods__}
    needed |= {"presets", "head"} if is_foundation else set()
    left = getattr(found, "__abstractmethods__", ())
    lacking = sorted(name for name in needed if not hasattr(found, name) or name in left)
    if lacking or not isinstance(found, type):
        msg = f'The plug-in model "{key}" has no {", ".join(lacking) or "class"}.'
        hint = (
            f"Let it inherit from `backend.models.base.{contract.__name__}`, or remove its package."
        )
        raise ModelUnavailable(msg, hint)
    for part in contract.__mro__[:-2]:
        for name, value in vars(part).items():
            if not name.startswith("_") and not hasattr(found, name):
                setattr(found, name, value)
    return found
