"""How far work is and how it ended: told by fits, checkpoints and executors, shown everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Fold", "Folds", "Outcome", "ProgressEvent", "Tally"]

Fold = int | Literal["final"]
"""A fold from 0, or `final`: fitted on all labelled cells, saved, nothing tested."""


Folds = Literal["all"] | Sequence[Fold | Literal["all"]]
"""Which folds of a series are meant: see `Series.check_folds`."""


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Something entered a state, or went on in it.

    state : such as started, fitting, training, predicting, retried, done, failed or skipped
    share : part of it that is over (0-1)
    key   : the task that this is of, see `Outcome`
    fold  : None outside any split
    epoch : from 1
    step  : optimiser steps so far
    row   : the epoch's row of the history, at its end only
    """

    state: str
    text: str = ""
    share: float | None = None
    _: KW_ONLY
    key: str = ""
    fold: Fold | None = None
    epoch: int | None = None
    step: int | None = None
    row: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended; `skipped` means that its result was already there.

    key : of a run `SERIES_ID-FOLD`; of a checkpoint what `PlannedCheckpoint` says
    """

    key: str
    status: Literal["done", "failed", "skipped"]
    reason: str | None = None
    wall_seconds: float | None = None
    attempts: int = 1
    _: KW_ONLY
    fold: Fold | None = None
    run_id: str | None = None


_ENDED: Final = ("done", "failed", "skipped")


class Tally:
    """How many tasks are over, in tasks: each that ended counts 1, one under way its share."""

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._shares: dict[str, float] = {}

    def add(self, event: ProgressEvent | Outcome) -> None:
        """Take what an executor told."""
        state = event.status if isinstance(event, Outcome) else event.state
        if state in _ENDED:
            self._ended.add(event.key)
            self._shares.pop(event.key, None)
        elif state in ("started", "retried"):
            self._ended.discard(event.key)
            self._shares.pop(event.key, None)
        elif isinstance(event, ProgressEvent) and event.share is not None:
            self._shares[event.key] = event.share

    @property
    def n_ended(self) -> int:
        """Tasks that are over."""
        return len(self._ended)

    @property
    def done(self) -> float:
        """Tasks that are over, with those under way in part."""
        return self.n_ended + sum(self._shares.values())
