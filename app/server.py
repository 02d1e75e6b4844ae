"""The server of the dashboard: what `streamlit run` serves, with the policy of docs/deployment.md.

`streamlit run app/main.py` shows the same pages without the policy, as for a proxy that sends it.
"""

from __future__ import annotations

import logging
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from streamlit.starlette import App

from backend.config import home, served_by
from backend.errors import FaultlineError
from backend.processes import end_with
from backend.store.cache import Store

if TYPE_CHECKING:
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
_FIRST_PAGE: Final = (
    "altair",
    "backend.evaluation.views",
    "backend.evaluation.cells.map_cells",
    "backend.prediction.model_choices",
    "pandas",
    "pyarrow.pandas_compat",
    "vl_convert",
)
"""Modules that take long to load; Streamlit would load them in the first session."""

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


def _warm_up() -> None:
    """Load what the first page needs and read the results, before the first visitor waits for it."""
    for name in _FIRST_PAGE:
        import_module(name)
    if (home() / "store.duckdb").exists():
        # Brought up to date by the first session, which tells what became of a damaged file.
        return
    try:
        with closing(Store.open_default()) as store:
            store.sync()
    except FaultlineError as error:
        # The page says it to whoever opens it.
        _LOG.warning("%s %s", error.message, error.hint)


end_with(served_by())
_warm_up()
app = App(Path(__file__).with_name("main.py"), middleware=[Middleware(_Guarded)])
