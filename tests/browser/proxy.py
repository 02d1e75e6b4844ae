"""A small reverse proxy that changes headers, as the one before a server would."""

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


def _rewritten(head: bytes, asked: Mapping[str, str]) -> bytes:
    """Return the head of a request with some headers in place of its own."""
    first, *lines = head.removesuffix(_END).split(b"\r\n")
    names = tuple(f"{name}:".lower().encode() for name in asked)
    lines = [line for line in lines if not line.lower().startswith(names)]
    added = [f"{name}: {value}".encode() for name, value in asked.items()]
    return b"\r\n".join([first, *lines, *added]) + _END


def _one_request(head: bytes) -> bytes:
    """Return the head of a request so that its answer is the last of the connection."""
    if b"upgrade: websocket" in head.lower():
        return head
    first, *lines = head.removesuffix(_END).split(b"\r\n")
    lines = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([first, *lines, b"Connection: close"]) + _END


async def _serve(port: int, target: int, added: bytes, asked: Mapping[str, str]) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(_END)
            answer, upstream = await asyncio.open_connection("127.0.0.1", target)
            upstream.write(_one_request(_rewritten(head, asked) if asked else head))
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
def proxy(
    target: int, headers: Mapping[str, str], asked: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Forward a free port to `target` on this machine; give the address to visit.

    `headers` are added to every answer, `asked` replace or join those of every request.
    """
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tests.browser.proxy",
            str(port), str(target), json.dumps(headers), json.dumps(asked or {}),
        ],
        cwd=project_root(),
        env=environment(),
    )  # fmt: skip
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
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), lines, json.loads(sys.argv[4])))
