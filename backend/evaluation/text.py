"""Words from outside inside our Markdown: they must be read as text."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["plain"]

_PUNCTUATION: Final = re.compile(r"([!-/:-@\[-`{-~])")
_SHORTCODE: Final = re.compile(r":(?=[\w+-]+:)")
_JOINER: Final = "\u2060"
"""Takes no room; between colon and word it keeps `:name:` from becoming a picture."""


def plain(text: object) -> str:
    """Return Markdown that shows `text` as it is, on one line.

    Every ASCII punctuation mark is escaped, which CommonMark allows; HTML, links, formulas, colours
    and picture names of a label stay letters.
    """
    line = " ".join(str(text).split())
    return _PUNCTUATION.sub(r"\\\1", _SHORTCODE.sub(":" + _JOINER, line))
