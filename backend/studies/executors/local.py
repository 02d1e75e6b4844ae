"""Run tasks in processes of this machine, one per GPU where there are several."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final

from backend.config import environment
from backend.processes import Child
from backend.studies.executors.common import ATTEMPTS, leave_failure
from backend.training.progress import Outcome, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.studies.planned_runs import Task

__all__ = ["LocalExecutor", "gpu_names", "thread_limits"]

_LOOK_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 10.0


def thread_limits(threads: int) -> dict[str, str]:
    """Return the environment that fixes the threads of every numerical library."""
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}


def gpu_names() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` would name them."""
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = [name.strip() for name in environment().get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(given[:n]) if any(given) else tuple(str(number) for number in range(n))


@dataclass(slots=True)
class _Worker:
    """A process and what it does; `slot` is the number of its GPU, if any."""

    child: Child
    slot: int
    task: Task | None = None


class LocalExecutor:
    """Processes of this machine.

    Parameters
    ----------
    jobs
        Runs at a time.
    threads
        Threads of one run, whatever `jobs` is: sums of floats depend on their number.
    gpus
        Names for `CUDA_VISIBLE_DEVICES`, dealt to the workers in turn; empty leaves it alone.
    """

    def __init__(self, *, jobs: int, threads: int = 1, gpus: Sequence[str] = ()) -> None:
        self.jobs, self.threads, self.gpus = jobs, threads, tuple(gpus)
        self._workers: list[_Worker] = []

    def run(
        self, tasks: Sequence[Task], tell: Callable[[ProgressEvent | Outcome], None]
    ) -> list[Outcome]:
        """Run all tasks.

        A task whose worker dies is tried again in a new one, and goes on where it stopped; when
        that dies too the task has failed. Outcomes come in the order of the tasks.
        """
        waiting = deque(tasks)
        attempts = {task.key: 1 for task in tasks}
        outcomes: dict[str, Outcome] = {}

        def end(outcome: Outcome) -> None:
            outcomes[outcome.key] = replace(outcome, attempts=attempts[outcome.key])
            tell(outcomes[outcome.key])

        try:
            while len(outcomes) < len(tasks):
                self._give(waiting)
                for worker in self._ready():
                    self._listen(worker, tell, end)
                    if not worker.child.has_ended:
                        continue
                    task, how = self._bury(worker, tell, end)
                    if task is None:
                        continue
                    if attempts[task.key] < ATTEMPTS:
                        attempts[task.key] += 1
                        waiting.appendleft(task)
                        tell(ProgressEvent("retried", f"its worker {how}", key=task.key))
                    else:
                        reason = f"Its worker {how}, {ATTEMPTS} times."
                        leave_failure(task, reason)
                        end(Outcome(task.key, "failed", reason))
        finally:
            self._close()
        return [outcomes[task.key] for task in tasks]

    def _give(self, waiting: deque[Task]) -> None:
        """Hand waiting tasks to idle workers, started as they are needed."""
        while waiting:
            idle = [worker for worker in self._workers if worker.task is None]
            if not idle and len(self._workers) >= self.jobs:
                return
            worker = idle[0] if idle else self._start()
            worker.task = waiting.popleft()
            # One that died idle is found dead by `run`, and its task is tried again.
            worker.child.send(worker.task)

    def _start(self) -> _Worker:
        taken = {worker.slot for worker in self._workers}
        slot = next(number for number in range(self.jobs) if number not in taken)
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        child = Child(
            "backend.studies.executors.worker:work", self.threads,
            env=thread_limits(self.threads) | gpu, has_orders=True,
        )  # fmt: skip
        worker = _Worker(child, slot)
        self._workers.append(worker)
        return worker

    def _ready(self) -> list[_Worker]:
        """Wait a little, and return the workers that said something or ended."""
        found = wait([worker.child.fileno() for worker in self._workers], timeout=_LOOK_SECONDS)
        return [
            worker
            for worker in self._workers
            if worker.child.fileno() in found or worker.child.has_ended
        ]

    def _listen(
        self,
        worker: _Worker,
        tell: Callable[[ProgressEvent | Outcome], None],
        end: Callable[[Outcome], None],
    ) -> None:
        """Take what a worker has sent."""
        for words in worker.child.heard():
            if "outcome" in words:
                worker.task = None
                end(Outcome(**words["outcome"]))
            elif "event" in words:
                tell(ProgressEvent(**words["event"]))

    def _bury(
        self,
        worker: _Worker,
        tell: Callable[[ProgressEvent | Outcome], None],
        end: Callable[[Outcome], None],
    ) -> tuple[Task | None, str]:
        """Forget a worker that ended; return the task it left, if any, and how it ended."""
        self._listen(worker, tell, end)
        worker.child.end()
        self._workers.remove(worker)
        return worker.task, worker.child.how_it_ended

    def _close(self) -> None:
        """End all workers: idle ones by ending their orders, busy ones by a signal."""
        for worker in self._workers:
            worker.child.close_input()
            if worker.task is not None:
                worker.child.ask_to_end()
        end = time.monotonic() + _GRACE_SECONDS
        for worker in self._workers:
            worker.child.wait(max(0.0, end - time.monotonic()))
            worker.child.end()
        self._workers.clear()
