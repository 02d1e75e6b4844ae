"""Columns of text as categories: cost grows with the number of different words, not of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["as_text", "constant", "fill", "map_words"]

_MISSING: Final = {"", "nan", "na", "n/a", "none", "null", "unlabelled", "unlabeled", "unassigned"}


def as_text(values: pd.Series) -> pd.Categorical:
    """Return trimmed text, missing where the text means nothing; categories sorted."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        plain = values.astype(object).where(values.notna(), None)
        words = [None if v is None else _plain(v) for v in plain]
        values = pd.Series(pd.Categorical(words))
    return map_words(values.array, lambda name: name.strip() if _means(name) else None)


def constant(value: str | None, n: int) -> pd.Categorical:
    """Return one value, or a missing one, `n` times."""
    categories = pd.Index([] if value is None else [value], dtype=object)
    code = -1 if value is None else 0
    return pd.Categorical.from_codes(np.full(n, code, dtype=np.int8), categories=categories)


def map_words(
    values: pd.Categorical,
    function: Callable[[str], str | None],
    categories: Sequence[str] | None = None,
) -> pd.Categorical:
    """Apply a function to the categories in use; cost grows with their number, not the cells'."""
    codes = values.codes.astype(np.int64)
    used = np.unique(codes[codes >= 0])
    images = {code: function(str(values.categories[code])) for code in used}
    names = (
        list(categories)
        if categories is not None
        else sorted({image for image in images.values() if image is not None})
    )
    place = {name: position for position, name in enumerate(names)}
    table = np.full(len(values.categories) + 1, -1, dtype=np.int64)
    for code, image in images.items():
        table[code] = place.get(image, -1)  # type: ignore[arg-type]
    return pd.Categorical.from_codes(table[codes], categories=pd.Index(names, dtype=object))


def fill(values: pd.Categorical, filler: str) -> pd.Categorical:
    """Put a word where values are missing."""
    if not (values.codes < 0).any():
        return values
    if filler not in values.categories:
        values = values.add_categories([filler])
    codes = values.codes.astype(np.int64)
    codes[codes < 0] = values.categories.get_loc(filler)
    return pd.Categorical.from_codes(codes, categories=values.categories)


def _means(name: str) -> bool:
    return name.strip().casefold() not in _MISSING


def _plain(value: object) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
