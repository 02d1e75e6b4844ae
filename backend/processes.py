"""Processes of this machine: children that are limited, watched and always ended; who is alive.

A `Child` runs one function in a fresh interpreter, `python -m backend.processes MODULE:FUNCTION`.
It sets its own limits before anything large is imported, leads a process group of its own, and dies
with its parent. It answers in lines of JSON: it may have read a hostile file, so nothing that it
says is ever unpickled.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

import psutil

from backend.config import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Channel",
    "Child",
    "ChildEnded",
    "Limits",
    "Process",
    "ask_child",
    "end_group",
    "end_with",
    "host",
    "is_alive",
    "limit_myself",
    "machine_memory",
    "myself",
    "started",
]

_WATCH_SECONDS: Final = 0.25
_GRACE_SECONDS: Final = 5
_LOOK_SECONDS: Final = 1.0
_MEMORY_SECONDS: Final = 1.0
_CGROUP_MEMORY: Final = Path("/sys/fs/cgroup/memory.max")


class Process(NamedTuple):
    """One process; `started` tells it from a later one with the same number ("" if unknown)."""

    host: str
    pid: int
    started: str


@cache
def host() -> str:
    """Return the name of this machine or container."""
    return socket.gethostname()


def started(pid: int) -> str:
    """Return when a process started, in 1/100 s since the machine did; "" when there is none."""
    try:
        # Counted from the start of the machine: the clock may be set while a process runs.
        return str(round((psutil.Process(pid).create_time() - psutil.boot_time()) * 100))
    except psutil.Error:
        return ""


def myself() -> Process:
    """Return this process."""
    return Process(host(), os.getpid(), started(os.getpid()))


def is_alive(process: Process) -> bool:
    """Say whether a process of this machine still runs; an ended one that nobody reaped does not."""
    if process.pid <= 0:
        return False
    try:
        found = psutil.Process(process.pid)
        if found.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return not process.started or started(process.pid) == process.started


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of its container when that has less."""
    whole = int(psutil.virtual_memory().total)
    if _CGROUP_MEMORY.is_file():
        text = _CGROUP_MEMORY.read_text(encoding="ascii").strip()
        if text.isdecimal():
            return min(whole, int(text))
    return whole


def _session_memory(session: int) -> int:
    """Return the resident bytes of all processes of a session, orphans among them."""
    total = 0
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(pid) == session:
                total += psutil.Process(pid).memory_info().rss
    return total


def end_group(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process group; return False when nobody is left in it."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may use; None is no limit.

    address_space : bytes; beyond them the child gets a `MemoryError`
    spare_space   : the same, counted from what the child uses once its function is imported
    resident      : bytes in memory of the child and all that it started
    seconds       : wall clock
    silence       : seconds without a word
    may_write     : whether the child may write files
    nice          : how much other processes go first
    """

    address_space: int | None = None
    spare_space: int | None = None
    resident: int | None = None
    seconds: float | None = None
    silence: float | None = None
    nice: int = 0
    may_write: bool = True


Exceeded = Literal["resident", "seconds", "silence"]


class ChildEnded(Exception):  # noqa: N818 - reads as what happened, and may be nobody's fault
    """A child ended, or was ended, without an answer; `exceeded` is the limit that it broke."""

    def __init__(self, how: str, exceeded: Exceeded | None = None) -> None:
        super().__init__(how)
        self.exceeded = exceeded


class Child:
    """A process of ours with all that it starts; use it as a context, which ends them.

    Parameters
    ----------
    target
        `module:function`, called with a `Channel` and `args` in the child; what it returns is said
        as `answer`.
    args
        Plain values; they are pickled.
    env
        Changes of the environment.
    has_orders
        Whether more is sent after the arguments, for `Channel.orders`.
    is_quiet
        Drop what the child prints.
    """

    def __init__(
        self,
        target: str,
        *args: Any,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
        has_orders: bool = False,
        is_quiet: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self._rest = bytearray()
        self._begun = self._heard = time.monotonic()
        self._memory_due = 0.0
        self._pipe, writing = os.pipe()
        os.set_blocking(self._pipe, False)
        output = subprocess.DEVNULL if is_quiet else None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backend.processes", target],
                env=environment(**(env or {})),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writing],
                # Ctrl-C in a terminal reaches the parent only, which ends its children in order.
                start_new_session=True,
            )
        finally:
            os.close(writing)
        self.pid = self._process.pid
        self.send(_Order(args, self.limits, writing, os.getpid()))
        if not has_orders:
            self.close_input()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def fileno(self) -> int:
        """Return the descriptor that can be read when the child said something or ended."""
        return self._pipe

    def send(self, order: Any) -> None:
        """Send an order; one that is dead already gets none, as `has_ended` will tell."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(order, self._process.stdin)
            self._process.stdin.flush()

    def close_input(self) -> None:
        """Say that no order will follow."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def heard(self) -> list[dict[str, Any]]:
        """Return what the child has said since the last call; never waits."""
        lines: list[bytearray] = []
        while self._pipe >= 0:
            try:
                part = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                break
            if not part:
                break
            self._rest += part
            # Looked for in the part alone: a line may have many megabytes.
            if b"\n" in part:
                *whole, self._rest = self._rest.split(b"\n")
                lines += whole
        if lines:
            self._heard = time.monotonic()
        return [json.loads(line) for line in lines]

    @property
    def has_ended(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    @property
    def how_it_ended(self) -> str:
        """The end in words, such as "was killed (SIGKILL, perhaps for want of memory)"."""
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}"
        cause = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"was killed ({signal.Signals(-code).name}{cause})"

    def exceeded(self) -> Exceeded | None:
        """Return a limit that the child has broken and that it cannot watch itself."""
        now = time.monotonic()
        limits = self.limits
        if limits.seconds is not None and now - self._begun > limits.seconds:
            return "seconds"
        if limits.silence is not None and now - self._heard > limits.silence:
            return "silence"
        if limits.resident is not None and now >= self._memory_due:
            self._memory_due = now + _MEMORY_SECONDS
            if _session_memory(self.pid) > limits.resident:
                return "resident"
        return None

    def ask_to_end(self) -> None:
        """Let the child and all that it started leave through every `finally`."""
        end_group(self.pid, signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process; return whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """End what is left: the process and all that it started."""
        end_group(self.pid, signal.SIGKILL)
        self._process.wait()
        self.close_input()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def ask_child(
    target: str,
    *args: Any,
    limits: Limits,
    env: Mapping[str, str] | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
    is_quiet: bool = False,
) -> Any:
    """Run a function in a `Child` and return what it returned.

    Parameters
    ----------
    tell
        Called with whatever else the child says.

    Raises
    ------
    ChildEnded
        If it ends without an answer, or breaks a limit.
    """
    with Child(target, *args, limits=limits, env=env, is_quiet=is_quiet) as child:
        while True:
            # What was said before the end is still heard after it.
            has_ended = child.has_ended
            for words in child.heard():
                if "answer" in words:
                    return words["answer"]
                tell(words)
            if has_ended:
                raise ChildEnded(child.how_it_ended)
            exceeded = child.exceeded()
            if exceeded is not None:
                msg = f"broke its limit ({exceeded})"
                raise ChildEnded(msg, exceeded)
            if wait([child.fileno()], timeout=_WATCH_SECONDS):
                # Readable for ever once the other end is closed.
                child.wait(0.005)


class _Order(NamedTuple):
    """What a child is told first."""

    args: tuple[Any, ...]
    limits: Limits
    pipe: int
    parent: int


class Channel:
    """The child's end: what it says, and the orders that it gets."""

    def __init__(self, pipe: int, silence: float | None = None) -> None:
        self._pipe = pipe
        self._silence = silence
        self._lock = threading.Lock()

    def say(self, **words: Any) -> None:
        """Send one line to the parent; safe for threads. A child without a parent ends here."""
        line = json.dumps(words, default=_plain).encode("utf-8") + b"\n"
        _set_clock(self._silence)
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._pipe, line) :]
            except BrokenPipeError:
                # Left to the function, this would look like a fault of the file that it reads.
                _leave()

    def order(self) -> Any:
        """Return the next order, or None when no one will follow."""
        try:
            return pickle.load(sys.stdin.buffer)  # noqa: TID251 - from our own parent
        except EOFError:
            return None


def _plain(value: Any) -> Any:
    """Return the number in a scalar of numpy."""
    if hasattr(value, "item"):
        return value.item()
    msg = f"{type(value).__name__} is no plain data"
    raise TypeError(msg)


def _leave() -> None:
    """End this process and all that it started: nobody watches it any more."""
    os.killpg(0, signal.SIGKILL)


def end_with(parent: int | None, *, grace: float = 20.0) -> None:
    """End this process in its own way once `parent` is gone, and by force `grace` seconds later.

    Whoever kills the parent cannot stop its children; so each of them looks itself. The parent may
    be gone before this is called.
    """
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _die_with(parent: int) -> None:
    """Leave once the parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        _leave()

    threading.Thread(target=watch, daemon=True).start()


def _end(*_: object) -> None:
    """Leave through every `finally`, so that half-written files are removed."""
    raise SystemExit(128 + signal.SIGTERM)


def _limit_space(size: int) -> None:
    import resource  # only where POSIX is

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or size < most:
        resource.setrlimit(resource.RLIMIT_AS, (size, most))


def _set_clock(seconds: float | None) -> None:
    """Let the system's own clock end this process, in place of the one that was set before.

    The parent ends a child that is late. Where there is no parent any more, and code in C lets no
    thread of Python run, nobody else can.
    """
    if seconds is not None:
        signal.alarm(min(math.ceil(seconds) + _GRACE_SECONDS, 2**31 - 1))


def limit_myself(limits: Limits) -> None:
    """Set those limits on this process that the system itself can keep."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not limits.may_write:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.nice(limits.nice)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _set_clock(limits.silence if limits.seconds is None else limits.seconds)
    if limits.address_space is not None:
        _limit_space(limits.address_space)


def _run_child() -> None:
    """Do what the parent orders, within its limits."""
    module, _, name = sys.argv[1].partition(":")
    channel = Channel(-1)
    order: _Order | None = channel.order()
    if order is None:
        return
    _die_with(order.parent)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_myself(order.limits)
    function = getattr(importlib.import_module(module), name)
    if order.limits.spare_space is not None:
        _limit_space(psutil.Process().memory_info().vms + order.limits.spare_space)
    limits = order.limits
    channel = Channel(order.pipe, limits.silence if limits.seconds is None else None)
    channel.say(answer=function(channel, *order.args))


if __name__ == "__main__":
    # Under its own name: what is pickled and imported here is the same for parent and child.
    importlib.import_module("backend.processes")._run_child()
