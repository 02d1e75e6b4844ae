"""A small reverse proxy that changes headers, as the one before a server would."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_END = b"\r\n\r\n"


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


def _head_of(source: socket.socket) -> tuple[bytes, bytes]:
    """Read up to the end of the headers; return them, and what came with them."""
    text = b""
    while _END not in text:
        part = source.recv(1 << 16)
        if not part:
            return b"", b""
        text += part
    head, _, rest = text.partition(_END)
    return head + _END, rest


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 16):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)


class _Forward(socketserver.BaseRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        self.server.connected.append(self.request)
        with contextlib.suppress(OSError):
            head, rest = _head_of(self.request)
            if head:
                with socket.create_connection(("127.0.0.1", self.server.target)) as upstream:
                    self.server.connected.append(upstream)
                    self._exchange(upstream, _one_request(self.server.asking(head)) + rest)

    def _exchange(self, upstream: socket.socket, request: bytes) -> None:
        upstream.sendall(request)
        sending = threading.Thread(target=_pump, args=(self.request, upstream))
        sending.start()
        try:
            head, rest = _head_of(upstream)
            first, _, others = head.partition(b"\r\n")
            self.request.sendall(first + b"\r\n" + self.server.added + others + rest)
            _pump(upstream, self.request)
        finally:
            _hang_up(self.request)
            sending.join()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Proxy(socketserver.ThreadingTCPServer):
    def __init__(self, target: int, headers: Mapping[str, str], asked: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target, self.asked = target, asked
        self.added = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        self.connected: list[socket.socket] = []

    def asking(self, head: bytes) -> bytes:
        return _rewritten(head, self.asked) if self.asked else head


@contextlib.contextmanager
def proxy(
    target: int, headers: Mapping[str, str], asked: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Forward a free port to `target` on this machine; give the address to visit.

    `headers` are added to every answer, `asked` replace or join those of every request.
    """
    with _Proxy(target, headers, asked or {}) as server:
        running = threading.Thread(target=server.serve_forever)
        running.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            running.join()
            # Pages that are still open keep a websocket.
            for connection in server.connected:
                _hang_up(connection)
