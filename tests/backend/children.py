"""What a child of the tests may do; each runs in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def add(channel: Any, *numbers: int) -> int:
    for number in numbers:
        channel.say(seen=number)
    return sum(numbers)


def repeat(channel: Any) -> None:
    while (order := channel.order()) is not None:
        channel.say(said=order)


def big(channel: Any) -> str:
    return "x" * (20 << 20)


def write(channel: Any, path: str) -> None:
    Path(path).write_text("x")


def leave_one_behind(channel: Any) -> int:
    """Start a process that outlives this one, and take memory in it."""
    code = "held = bytearray(200 << 20); held[::4096] = held[::4096]; import time; time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code])
    channel.say(pid=other.pid)
    time.sleep(60)
    return os.getpid()


def never_let_go(channel: Any) -> None:
    """Keep the interpreter to itself, as a library in C may over a harmed file."""
    channel.say(pid=os.getpid())
    re.match("(a+)+$", "a" * 60 + "b")
