"""The process that does the work of one job: `python -m backend.jobs.child`, started by a worker.

It sets its own limits before anything large is imported, and tells its worker by a pipe how far it
is. What it prints goes to the worker's log; only what the handler says goes to the job's.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from backend.errors import FaultlineError
from backend.jobs.directory import add_log

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Order", "main"]

_LOG: Final = logging.getLogger(__name__)
_WATCH_SECONDS: Final = 1.0
_NICE: Final = 5
"""The web process beside a job stays quick."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker tells its child.

    address_space : bytes, or None for no limit
    pipe          : file descriptor to answer on
    """

    folder: str
    home: str
    owner: str
    target: str
    address_space: int | None
    pipe: int

    def to_json(self) -> str:
        """Return the order as an argument of the child."""
        return json.dumps(asdict(self))


class Context:
    """What the handler gets; see `backend.jobs.handlers.JobContext`."""

    def __init__(self, order: Order) -> None:
        self.folder = Path(order.folder)
        self.home = Path(order.home)
        self.owner = order.owner
        self._pipe = order.pipe
        self._lock = threading.Lock()

    def tell(self, **words: Any) -> None:
        """Send one line to the worker."""
        line = json.dumps(words, allow_nan=False).encode("utf-8") + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._pipe, line) :]
            except BrokenPipeError:
                # Left to the handler, this would look like a fault of the file that it reads.
                _leave()

    def progress(self, share: float, message: str = "") -> None:
        """Say how far the work is, from 0 to 1, and what it does now."""
        self.tell(progress=min(max(float(share), 0.0), 1.0), message=str(message)[:500])

    def log(self, text: str) -> None:
        """Add a line to the log that the owner reads."""
        add_log(self.folder, text)


def _set_limits(address_space: int | None) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if address_space is not None:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most == resource.RLIM_INFINITY or address_space < most:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, most))
    os.nice(_NICE)


def _leave() -> None:
    """End this process and all that it started: its worker is gone, and nobody watches it."""
    os.killpg(0, signal.SIGKILL)


def _die_with(parent: int) -> None:
    """Leave once the worker is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        _leave()

    threading.Thread(target=watch, daemon=True).start()


def _end(*_: object) -> None:
    """Leave through every `finally`, so that half-written files are removed."""
    raise SystemExit(128 + signal.SIGTERM)


def _handler(target: str) -> Callable[[dict[str, Any], Context], dict[str, Any]]:
    module, _, name = target.partition(":")
    found: Callable[[dict[str, Any], Context], dict[str, Any]] = getattr(
        importlib.import_module(module), name
    )
    return found


def _work(order: Order, context: Context) -> bool:
    """Run the handler and tell the worker how it ended; return whether it gave a result."""
    request = json.loads((context.folder / "request.json").read_text(encoding="utf-8"))
    try:
        result = _handler(order.target)(request, context)
        context.tell(result=result)
    except FaultlineError as error:
        _LOG.warning("job %s refused", context.folder.name, exc_info=error)
        context.tell(error=error.message, hint=error.hint)
    except MemoryError:
        traceback.print_exc()
        context.tell(
            error="The job needed more memory than it may use.",
            hint="Choose a smaller file or batch, or ask the administrator for a higher limit.",
        )
    except Exception:  # noqa: BLE001 - the worker's top loop: whatever fails must end as a message
        reference = uuid4().hex[:8]
        print(f"job {context.folder.name} failed [{reference}]", file=sys.stderr)
        traceback.print_exc()
        context.tell(
            error=f"The job failed by a fault of the program (reference {reference}).",
            hint="The worker's log has the details under this reference.",
        )
    else:
        return True
    return False


def main() -> int:
    """Do the job that the first argument orders; return 0 when it gave a result."""
    order = Order(**json.loads(sys.argv[1]))
    _die_with(os.getppid())
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO)
    _set_limits(order.address_space)
    return 0 if _work(order, Context(order)) else 1


if __name__ == "__main__":
    sys.exit(main())
