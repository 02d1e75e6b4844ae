"""A small reverse proxy that adds headers to every answer, as the one before a server would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from backend.config import environment, project_root
from tests.browser.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_END = b"\r\n\r\n"


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()


def _one_request(head: bytes) -> bytes:
    """Return the head of a request so that its answer is the last of the connection."""
    if b"upgrade: websocket" in head.lower():
        return head
    first, *lines = head.removesuffix(_END).split(b"\r\n")
    lines = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([first, *lines, b"Connection: close"]) + _END


async def _serve(port: int, target: int, added: bytes) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(_END)
            answer, upstream = await asyncio.open_connection("127.0.0.1", target)
            upstream.write(_one_request(head))
            sending = asyncio.create_task(_pipe(reader, upstream))
            first, _, rest = (await answer.readuntil(_END)).partition(b"\r\n")
            writer.write(first + b"\r\n" + added + rest)
            await _pipe(answer, writer)
            sending.cancel()
        for each in (upstream, writer):
            if each is not None:
                each.close()

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    await server.serve_forever()


@contextlib.contextmanager
def proxy(target: int, headers: Mapping[str, str]) -> Iterator[str]:
    """Forward a free port to `target` on this machine; give the address to visit."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.browser.proxy", str(port), str(target), json.dumps(headers)],
        cwd=project_root(),
        env=environment(),
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    given = json.loads(sys.argv[3])
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items()).encode()
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), lines))
