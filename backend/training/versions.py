"""Versions of the packages that compute a run: recorded with it, never part of its id."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import TYPE_CHECKING, Final

from backend import __version__

if TYPE_CHECKING:
    from backend.types import Series

__all__ = ["versions_of"]

_PACKAGES: Final = ("anndata", "numpy", "pandas", "scikit-learn", "scipy")
_PACKAGES_OF: Final = {"celltypist": ("celltypist",)}
_FOUNDATION_PACKAGES: Final = ("torch", "lightning-fabric")
_PACKAGES_OF_SETTING: Final = {"lora": "peft", "oversample": "imbalanced-learn"}


def versions_of(series: Series) -> dict[str, str]:
    """Return package → version of what computes the runs of a series."""
    packages = (
        *_PACKAGES,
        *_PACKAGES_OF.get(series.model, ()),
        *(_FOUNDATION_PACKAGES if series.preset is not None else ()),
        *(name for key, name in _PACKAGES_OF_SETTING.items() if series.settings.get(key)),
    )
    versions = {"faultline": __version__, "python": python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions
