"""What studies report, in a table of our own: statements with their place, never our results.

`published.csv` holds one statement a row. Values are limits in words of the study ("above 0.90");
where it gives none, the direction alone stands there.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STUDIES", "Statement", "Study", "statements"]

_TABLE: Final = Path(__file__).with_name("published.csv")


@dataclass(frozen=True, slots=True)
class Study:
    """A study whose statements stand in the table.

    cells : which cells it scored
    """

    title: str
    citation: str
    cells: str


STUDIES: Final[Mapping[str, Study]] = {
    "naziri2025": Study(
        title="From Bias to Breakdown",
        citation="Naziri et al. 2025, From Bias to Breakdown",
        cells="about 250,000 cells of the atlas of Ennis et al. 2023",
    )
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that a study reports.

    study     : key of `STUDIES`
    figure    : where it stands there
    model, model_name : key of the model and its name, "" for all of its models
    timepoint : "" where it speaks of none
    cell_type : in words of the study's labels, "" where it speaks of none
    score     : what is scored
    relation  : "above" or "below" a value, "low" or "high" without one
    value     : None where it gives none
    note      : what it leaves open
    """

    study: str
    figure: str
    model: str
    model_name: str
    timepoint: str
    cell_type: str
    score: str
    relation: str
    value: float | None
    note: str

    @property
    def text(self) -> str:
        """Return "> 0.90", "low"."""
        sign = {"above": ">", "below": "<"}.get(self.relation)
        return self.relation if sign is None else f"{sign} {self.value:.2f}"

    @property
    def limits(self) -> tuple[float, float] | None:
        """Range of scores that it allows; None without a value."""
        if self.value is None:
            return None
        return (self.value, 1.0) if self.relation == "above" else (0.0, self.value)


@lru_cache(maxsize=1)
def statements() -> tuple[Statement, ...]:
    """Return all statements, in the order of the table."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Statement(**words, value=float(value) if value else None)
            for value, words in ((row.pop("value"), row) for row in csv.DictReader(file))
        )
