"""The real server, started as the README says, opens one session and runs the script."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from app import server
from backend.config import project_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

websockets = pytest.importorskip("websockets")


@pytest.fixture(scope="module")
def port(results_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    own = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app/server.py", "--server.port", str(number)],
        cwd=project_root(),
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(project_root()),
            "HOME": str(own),
            "FAULTLINE_HOME": str(own),
            "FAULTLINE_PRECOMPUTED": str(results_home),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{number}/_stcore/health") as answer:
                    assert answer.read() == b"ok"
                    break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield number
    finally:
        process.terminate()
        process.wait(20)


async def _first_run(port: int) -> tuple[str, bool]:
    """Return all texts of the first script run and whether it succeeded."""
    texts, is_done = [], False
    async with websockets.connect(
        f"ws://127.0.0.1:{port}/_stcore/stream",
        subprotocols=["streamlit"],
        origin=f"http://127.0.0.1:{port}",
        max_size=None,
    ) as stream:
        start = BackMsg()
        start.rerun_script.query_string = ""
        await stream.send(start.SerializeToString())
        while not is_done:
            message = ForwardMsg.FromString(await asyncio.wait_for(stream.recv(), 60))
            texts.append(str(message))
            if message.WhichOneof("type") == "script_finished":
                is_done = message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
                break
    return "\n".join(texts), is_done


@pytest.mark.slow
def test_first_session_runs_the_first_page(port):
    # In a thread of its own: a browser of another test keeps a loop in this one.
    with ThreadPoolExecutor(1) as thread:
        text, is_done = thread.submit(lambda: asyncio.run(_first_run(port))).result()
    assert is_done
    assert "Where do the models break on this data?" in text
    assert "Research use only" in text
    assert "exception {" not in text


@pytest.mark.slow
def test_server_listens_on_this_machine_only(port):
    with socket.socket() as other:
        other.settimeout(1)
        address = socket.gethostbyname(socket.gethostname())
        if address.startswith("127."):
            pytest.skip("this machine has no other address")
        assert other.connect_ex((address, port)) != 0


def test_the_end_of_an_answer_waits_for_nothing():
    """A socket as Streamlit opens one: its number of the protocol is 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening, socket.socket() as visitor:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server._send_at_once()
        visitor.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
