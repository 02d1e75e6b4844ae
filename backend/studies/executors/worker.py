"""A worker of the local executor: `python -m backend.studies.executors.worker FD THREADS PARENT`.

Takes one task after the other from the connection FD and sends back events and outcomes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Final

from backend.studies.executors.common import Outcome, PretrainTask, Task, TaskEvent, execute

__all__ = ["main"]

_WATCH_SECONDS: Final = 0.25


def _die_with(parent: int) -> None:
    """End this process and all that it started once the sweep is gone: another may take its place."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _say(connection: Connection, message: TaskEvent | Outcome) -> None:
    """Tell the sweep something; end this process when the sweep is gone."""
    try:
        connection.send(message)
    except (BrokenPipeError, ConnectionResetError):
        raise SystemExit(1) from None


def _work(task: Task, connection: Connection, threads: int) -> Outcome:
    try:
        if isinstance(task, PretrainTask) or task.series.preset is not None:
            # Threads of other libraries are fixed by the environment.
            import torch

            torch.set_num_threads(threads)
        return execute(task, lambda event: _say(connection, event))
    except Exception as error:  # noqa: BLE001 - the worker's top loop: the sweep must go on
        traceback.print_exc()
        return Outcome(task.key, "failed", f"fault of the program: {type(error).__name__}: {error}")


def main() -> None:
    """Work until the sweep closes the connection."""
    handle, threads, parent = (int(word) for word in sys.argv[1:4])
    _die_with(parent)
    connection = Connection(handle)
    while True:
        try:
            task = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        _say(connection, _work(task, connection, threads))


if __name__ == "__main__":
    main()
