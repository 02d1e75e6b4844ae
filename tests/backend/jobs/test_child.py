"""The process of a job, when its worker is gone."""

from __future__ import annotations

import signal
import subprocess
import sys

from backend.config import environment, project_root

TELL = """
import os, sys
from backend.jobs.child import Context
from backend.processes import Channel
reading, writing = os.pipe()
context = Context(Channel(writing), "x", "x", "x")
context.progress(0.1, "heard")
os.close(reading)
try:
    context.progress(0.2, "not heard")
except OSError:
    print("the handler saw it")
print("went on")
"""


def test_a_handler_never_sees_that_its_worker_is_gone():
    """It would take the error for one of the file at hand, and remove an upload as unusable."""
    done = subprocess.run(
        [sys.executable, "-c", TELL],
        cwd=project_root(),
        env=environment(),
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""
