"""What a reader of a hostile file may do; each runs in a process of its own."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np


def die(channel: Any, *_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(channel: Any, *_: Any) -> None:
    channel.say(progress=[1, 2, "Reading values"])
    while True:
        pass


def hog(channel: Any, *_: Any) -> None:
    np.ones(1 << 28)
