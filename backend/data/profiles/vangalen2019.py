"""Profile of van Galen et al. 2019: a folder of text files, made one `.h5ad` by its import."""

from __future__ import annotations

from typing import Final

from backend.data.geo import ABOUT, import_geo
from backend.data.profiles.base import Profile

__all__ = ["VANGALEN2019"]

VANGALEN2019: Final = Profile(
    key="vangalen2019",
    title="van Galen et al. 2019",
    accession="GSE116256",
    about=ABOUT,
    page="tutorial-vangalen2019.md",
    # Cells of AML samples were typed by a random forest trained on cells of healthy bone marrow
    # (and, for malignant states, on the genotyped cells).
    labelled="AML labels",
    classifier="a random forest",
    sorted_samples=("BM5-34p", "BM5-34p38n"),
    import_folder=import_geo,
)
