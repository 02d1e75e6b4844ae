"""A worker of the local executor: one task after the other, with events and outcomes sent back."""

from __future__ import annotations

import dataclasses
import traceback
from typing import TYPE_CHECKING

from backend.studies.executors.common import execute
from backend.training.progress import Outcome

if TYPE_CHECKING:
    from backend.processes import Channel
    from backend.studies.planned_runs import Task

__all__ = ["work"]


def work(channel: Channel, threads: int) -> None:
    """Do the tasks that the executor orders, until no one follows."""
    while (task := channel.order()) is not None:
        channel.say(outcome=dataclasses.asdict(_outcome(task, channel, threads)))


def _outcome(task: Task, channel: Channel, threads: int) -> Outcome:
    try:
        if task.uses_gpu:
            # Threads of other libraries are fixed by the environment.
            import torch

            torch.set_num_threads(threads)
        return execute(task, lambda event: channel.say(event=dataclasses.asdict(event)))
    except Exception as error:  # noqa: BLE001 - the worker's top loop: the sweep must go on
        traceback.print_exc()
        return Outcome(task.key, "failed", f"fault of the program: {type(error).__name__}: {error}")
