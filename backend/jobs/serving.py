"""Start the dashboard and its workers, keep the workers alive, and stop all of them together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any, Final

from backend.config import environment, project_root
from backend.errors import InputError

__all__ = ["serve"]

_LOG: Final = logging.getLogger(__name__)
_TICK: Final = 0.25
_PAUSES: Final = (0.5, 2.0, 10.0, 60.0)
"""Seconds before a worker that died is started again; longer each time it dies soon."""
_STEADY_SECONDS: Final = 120.0
_WEB_GRACE: Final = 10.0
_WORKER_GRACE: Final = 20.0
"""A worker gives its job ten seconds to end."""


class _Child:
    """One process of ours; a worker is started again when it dies."""

    def __init__(self, name: str, command: list[str], *, grace: float) -> None:
        self.name = name
        self.command = command
        self.grace = grace
        self.n_deaths = 0
        self.start()

    def start(self) -> None:
        # A session of its own: Ctrl-C reaches us, and we stop the others in order.
        self.process = subprocess.Popen(
            self.command,
            cwd=project_root(),
            env=environment(FAULTLINE_SERVED_BY=str(os.getpid())),
            start_new_session=True,
        )
        self.born = time.monotonic()
        self.due: float | None = None

    def revive(self) -> None:
        """Start the process again some time after it died."""
        if self.process.poll() is None:
            return
        if self.due is None:
            is_steady = time.monotonic() - self.born > _STEADY_SECONDS
            self.n_deaths = 0 if is_steady else self.n_deaths + 1
            pause = _PAUSES[min(self.n_deaths, len(_PAUSES) - 1)]
            self.due = time.monotonic() + pause
            code = self.process.returncode
            _LOG.warning("%s ended (%s) and is started again in %g s", self.name, code, pause)
        elif time.monotonic() >= self.due:
            self.start()


def _stop(children: list[_Child]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    for child in children:
        try:
            child.process.wait(child.grace)
        except subprocess.TimeoutExpired:
            _LOG.warning("%s does not end and is killed", child.name)
            child.process.kill()
            child.process.wait()


def serve(*, port: int, host: str, workers: int) -> int:
    """Run the dashboard and some workers until SIGTERM or SIGINT.

    Returns
    -------
    0 after a signal; the exit code of the web process when that ended by itself.
    """
    if workers < 0 or not 0 < port < 1 << 16:
        msg = f"Cannot serve on port {port} with {workers} workers."
        raise InputError(msg, "Give a port from 1 to 65535, and 0 or more workers.")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signals: list[int] = []

    def note(number: int, _: Any) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    web = _Child(
        "the dashboard",
        [
            sys.executable, "-m", "streamlit", "run", "app/server.py",
            f"--server.port={port}", f"--server.address={host}", "--server.headless=true",
        ],
        grace=_WEB_GRACE,
    )  # fmt: skip
    children = [web]
    try:
        children += [
            _Child(
                f"worker {i + 1}", [sys.executable, "-m", "backend", "worker"], grace=_WORKER_GRACE
            )
            for i in range(workers)
        ]
        while not signals and web.process.poll() is None:
            for child in children[1:]:
                child.revive()
            time.sleep(_TICK)
    finally:
        _stop(children)
    return 0 if signals else int(web.process.returncode or 1)
