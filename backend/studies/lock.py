"""One sweep at a time in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from backend.errors import InputError
from backend.files import link_first, locked
from backend.processes import Process, is_alive, myself

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NAME", "SweepLock"]

NAME: Final = "sweep.lock"
_HEARTBEAT_SECONDS: Final = 10.0
_EXPIRED_SECONDS: Final = 600.0


class SweepLock:
    """Keep other sweeps out of a folder for the time of a `with` block.

    The lock is a file that appears by a hard link, with the process that holds it inside; its
    modification time is the last sign of life. A lock whose process died on this machine is taken
    over. Of a process on another machine only the sign of life is known, so that one is refused until
    it has been silent for ten minutes.

    Parameters
    ----------
    folder
        Made when it is missing.
    plan
        Name of the plan, for the message that another sweep gets.

    Attributes
    ----------
    notice
        What was taken over, in a sentence, or "".

    Raises
    ------
    InputError
        On entering, when another sweep is at work in the folder.
    """

    def __init__(self, folder: Path, plan: str) -> None:
        self.folder, self.plan = folder, plan
        self.path = folder / NAME
        self.notice = ""
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {
            "process": myself()._asdict(),
            "plan": self.plan,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": self._token,
        }
        while not link_first(self.path, json.dumps(values)):
            self._remove_dead()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with locked(self.folder):
            if (self._read() or {}).get("token") == self._token:
                self.path.unlink()

    def _read(self) -> dict[str, Any] | None:
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
            return values | {"process": Process(**values["process"])}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            msg = f"The lock `{self.path}` cannot be read."
            raise InputError(
                msg, "If no sweep is at work in that folder, delete the file."
            ) from None

    def _remove_dead(self) -> None:
        """Remove the lock of a dead process of this machine, or raise."""
        with locked(self.folder):
            found = self._read()
            if found is None:
                return
            holder: Process = found["process"]
            who = f"plan {found['plan']}, process {holder.pid} on {holder.host}"
            silence = max(0.0, time.time() - self.path.stat().st_mtime)
            if holder.host != myself().host and silence <= _EXPIRED_SECONDS:
                msg = (
                    f"A sweep of another machine is at work in this folder ({who}, since "
                    f"{found['since']}, last sign of life {silence:.0f} s ago)."
                )
                hint = f"Give another --out; if that sweep is dead, delete `{self.path}`."
                raise InputError(msg, hint)
            if holder.host == myself().host and is_alive(holder):
                msg = f"Another sweep is at work in this folder ({who}, since {found['since']})."
                raise InputError(msg, "Wait until it ends, or give another --out.")
            self.path.unlink()
            self.notice = f"Took over from a sweep that died ({who}, since {found['since']})."

    def _beat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            # Gone only if somebody deleted it by hand; then there is nothing to keep alive.
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path)
