"""How many names a file may bring, and how long they may be.

Pages, tables of scores and models grow with every type and donor; a name is read by people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backend.data.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["LONGEST_LABEL", "MOST_NAMES", "MOST_TYPES", "check_names"]

LONGEST_LABEL: Final = 300
"""Characters of a cell type, donor, sample or study."""
MOST_TYPES: Final = 1_000
MOST_NAMES: Final = 50_000
"""Different donors, samples or studies."""


def check_names(role: str, names: Collection[str]) -> None:
    """Refuse names of a role that are too many or too long.

    Raises
    ------
    Refusal
        With the number, or the length, and the limit.
    """
    most = MOST_TYPES if role == "cell_type" else MOST_NAMES
    words = role.replace("_", " ")
    if len(names) > most:
        msg = f"The column for the {words} has {len(names):,} different values; at most {most:,} are read."
        raise Refusal(msg, "Choose a column of names, not of cells or numbers.", code="names")
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST_LABEL:
        msg = (
            f'The {words} "{longest[:40]}…" has {len(longest):,} characters; '
            f"at most {LONGEST_LABEL} are read."
        )
        raise Refusal(msg, "Shorten it, and save the file again.", code="names")
