"""Run tasks in processes of this machine, one per GPU where there are several."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from os import getpid
from typing import TYPE_CHECKING, Final

from backend.config import environment
from backend.processes import end_group
from backend.studies.executors.common import ATTEMPTS, Outcome, TaskEvent, leave_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.studies.executors.common import Task

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

    process: subprocess.Popen[bytes]
    connection: Connection
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
        self, tasks: Sequence[Task], tell: Callable[[TaskEvent | Outcome], None]
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
                    if worker.process.poll() is None:
                        continue
                    task, how = self._bury(worker, tell, end)
                    if task is None:
                        continue
                    if attempts[task.key] < ATTEMPTS:
                        attempts[task.key] += 1
                        waiting.appendleft(task)
                        tell(TaskEvent(task.key, "retried", f"its worker {how}"))
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
            try:
                worker.connection.send(worker.task)
            except BrokenPipeError:
                # It died idle: `run` finds it dead, and the task is tried again.
                return

    def _start(self) -> _Worker:
        taken = {worker.slot for worker in self._workers}
        slot = next(number for number in range(self.jobs) if number not in taken)
        ours, theirs = socket.socketpair()
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "backend.studies.executors.worker",
                    *map(str, (theirs.fileno(), self.threads, getpid())),
                ],
                pass_fds=[theirs.fileno()],
                env=environment(**thread_limits(self.threads), **gpu),
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal reaches the sweep only, which ends its workers in order.
                start_new_session=True,
            )
        worker = _Worker(process, Connection(ours.detach()), slot)
        self._workers.append(worker)
        return worker

    def _ready(self) -> list[_Worker]:
        """Wait a little, and return the workers that said something or ended."""
        found = wait([worker.connection for worker in self._workers], timeout=_LOOK_SECONDS)
        return [
            worker
            for worker in self._workers
            if worker.connection in found or worker.process.poll() is not None
        ]

    def _listen(
        self,
        worker: _Worker,
        tell: Callable[[TaskEvent | Outcome], None],
        end: Callable[[Outcome], None],
    ) -> None:
        """Take what a worker has sent."""
        try:
            while worker.connection.poll():
                said = worker.connection.recv()
                if isinstance(said, Outcome):
                    worker.task = None
                    end(said)
                else:
                    tell(said)
        except (EOFError, ConnectionResetError):
            # The other end is closed, so the process is ending: collect it.
            worker.process.wait()

    def _bury(
        self,
        worker: _Worker,
        tell: Callable[[TaskEvent | Outcome], None],
        end: Callable[[Outcome], None],
    ) -> tuple[Task | None, str]:
        """Forget a worker that ended; return the task it left, if any, and how it ended."""
        self._listen(worker, tell, end)
        end_group(worker.process.pid, signal.SIGKILL)
        worker.connection.close()
        self._workers.remove(worker)
        return worker.task, _how_it_ended(worker.process.returncode)

    def _close(self) -> None:
        """End all workers: idle ones by closing their connection, busy ones by a signal."""
        for worker in self._workers:
            worker.connection.close()
            if worker.task is not None:
                end_group(worker.process.pid, signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.process.wait(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                end_group(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
        self._workers.clear()


def _how_it_ended(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        cause = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"was killed ({name}{cause})"
    return f"ended with exit code {code}"
