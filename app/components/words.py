"""Names from outside on axes and in legends: short, and never two alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["shortened", "unique_texts"]

_LONGEST: Final = 30
_NOTHING: Final = "\u200b"
"""Takes no room; tells apart texts that look the same."""


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text on one line, its end replaced by "…" when it is longer."""
    line = " ".join(str(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def unique_texts(names: Iterable[str], longest: int = _LONGEST) -> list[str]:
    """Return shortened names, all different, because a chart takes equal names for one."""
    seen: dict[str, int] = {}
    texts = []
    for name in names:
        text = shortened(name, longest)
        times = seen.get(text, 0)
        seen[text] = times + 1
        texts.append(text + _NOTHING * times)
    return texts
