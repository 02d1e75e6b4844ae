"""The server of the dashboard: what `streamlit run` serves, with the policy of docs/deployment.md.

`streamlit run app/main.py` shows the same pages without the policy, as for a proxy that sends it.
"""

from __future__ import annotations

import logging
import os
import socket
from asyncio import to_thread
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Final

from psutil import CONN_LISTEN, Process
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from streamlit.starlette import App

from backend.config import served_by
from backend.errors import FaultlineError
from backend.processes import end_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["POLICY", "app"]

_INLINE: Final = "sha256-THxz9J9+wf7rhwR2YkXJoSZ13UCmYyC+3lNDv2+8ugA="
"""The one inline script in the page of Streamlit 1.67."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'self' blob: 'wasm-unsafe-eval' 'unsafe-eval' '{_INLINE}'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_LOG: Final = logging.getLogger(__name__)
_QUIET_SECONDS: Final = 4.0
"""Until what the other pages ask is prepared: the first page, which is asked for at once, comes first."""

_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class _Guarded:
    """Add the headers that keep a page of ours from fetching or showing what is not ours."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, guarded)


def _prepare(answer: Callable[[], None]) -> None:
    """Ask early; what is wrong with the results is said by the page that asks for them."""
    try:
        answer()
    except FaultlineError as error:
        _LOG.warning("%s %s", error.message, error.hint)
    except Exception:  # noqa: BLE001 - the server answers all the same, and the log has it
        _LOG.exception("Pages are not prepared; they ask for themselves.")


def _send_at_once() -> None:
    """Send the end of an answer without waiting until its beginning was confirmed.

    Sockets that Streamlit opens lack the protocol by which asyncio knows TCP, so it leaves Nagle's
    algorithm on: with delayed acknowledgements (RFC 1122, 4.2.3.2) every small file takes 40 ms.
    Connections take the option over from the socket that listens.
    """
    for each in Process().net_connections("tcp"):
        if each.status == CONN_LISTEN and each.fd >= 0:
            with socket.socket(fileno=os.dup(each.fd)) as listening:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@asynccontextmanager
async def _prepared(_: App) -> AsyncIterator[None]:
    """Answer what the first page asks before the server does, and what the others ask after it."""
    _send_at_once()
    # Here, because Streamlit keeps answers from now on only.
    warm_up = await to_thread(import_module, "app.warm_up")
    await to_thread(warm_up.load_modules)
    await to_thread(_prepare, warm_up.ask_first_page)
    later = Timer(_QUIET_SECONDS, _prepare, [warm_up.ask_other_pages])
    later.daemon = True
    later.start()
    yield
    later.cancel()


end_with(served_by())
app = App(
    Path(__file__).with_name("main.py"),
    middleware=[Middleware(_Guarded)],
    lifespan=_prepared,
)
