"""The process that does the work of one job, started by a worker.

What it prints goes to the worker's log; only what the handler says goes to the job's.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from backend.errors import FaultlineError
from backend.jobs.directory import add_log

if TYPE_CHECKING:
    from backend.processes import Channel

__all__ = ["Context", "work"]

_LOG: Final = logging.getLogger(__name__)


class Context:
    """What the handler gets; see `backend.jobs.handlers.JobContext`."""

    def __init__(self, channel: Channel, folder: Path, home: Path, owner: str) -> None:
        self.folder, self.home, self.owner = folder, home, owner
        self._channel = channel

    def progress(self, share: float, message: str = "") -> None:
        """Say how far the work is, from 0 to 1, and what it does now."""
        # In this order a share that is no number counts as 0.
        share = min(max(0.0, float(share)), 1.0)
        self._channel.say(progress=share, message=str(message)[:500])

    def log(self, text: str) -> None:
        """Add a line to the log that the owner reads."""
        add_log(self.folder, text)


def work(channel: Channel, folder: str, home: str, owner: str, target: str) -> dict[str, Any]:
    """Run the handler `target`; return its `result`, or `error` and `hint`."""
    logging.basicConfig(level=logging.INFO)
    context = Context(channel, Path(folder), Path(home), owner)
    request = json.loads((context.folder / "request.json").read_text(encoding="utf-8"))
    module, _, name = target.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(request, context)
        # What is no plain data must fail here, where it is told.
        json.dumps(result, allow_nan=False)
    except FaultlineError as error:
        _LOG.warning("job %s refused", context.folder.name, exc_info=error)
        return {"error": error.message, "hint": error.hint}
    except MemoryError:
        traceback.print_exc()
        return {
            "error": "The job needed more memory than it may use.",
            "hint": "Choose a smaller file or batch, or ask the administrator for a higher limit.",
        }
    except Exception:  # noqa: BLE001 - the worker's top loop: whatever fails must end as a message
        reference = uuid4().hex[:8]
        print(f"job {context.folder.name} failed [{reference}]", file=sys.stderr)
        traceback.print_exc()
        return {
            "error": f"The job failed by a fault of the program (reference {reference}).",
            "hint": "The worker's log has the details under this reference.",
        }
    return {"result": result}
