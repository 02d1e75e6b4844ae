"""Who is looking, and what they may do.

Without sign-in, a server that only this machine reaches belongs to its user; one that others reach
is for reading. With `[auth]` in the secrets, people sign in at their own provider.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import streamlit as st

from backend.config import allows_anonymous_write, is_behind_proxy
from backend.evaluation.wording import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Identity", "gate", "has_sign_in", "identity", "readers", "sign_out_button"]

LOCAL: Final = "local"
ANONYMOUS: Final = "anonymous"
_FROM_BROWSERS: Final = frozenset(
    {
        "host", "origin", "connection", "upgrade", "user-agent", "pragma", "cache-control",
        "cookie", "dnt", "priority", "referer",
    }
)  # fmt: skip
"""Headers that a browser sends by itself when it opens the websocket, beside `Accept-` and `Sec-`."""
_FOR_OTHERS: Final = ("browser.serverAddress", "server.baseUrlPath", "server.corsAllowedOrigins")
"""Options that only a server for others needs."""

_OPEN_SERVER: Final = (
    "This server can be reached from other machines and has no sign-in, so it is read-only ({why}). "
    "Its administrator can set up sign-in (see docs/deployment.md)."
)
_VIEWER: Final = (
    "Your role on this server is viewer, so you can read but not upload, start or delete. "
    "Its administrator can make you an analyst."
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The person of this session.

    owner     : names their folder and their rows in the store
    role      : local, viewer or analyst
    may_write : whether they may upload, start and delete; `reason` says why not
    """

    owner: str
    role: Literal["local", "viewer", "analyst"]
    may_write: bool
    reason: str | None = None


def _secrets() -> Mapping[str, Any]:
    return st.secrets if st.secrets.load_if_toml_exists() else {}


def has_sign_in() -> bool:
    """Say whether the server's secrets have `[auth]`."""
    return "auth" in _secrets()


def _has_broken_secrets() -> bool:
    """Say whether there are secrets that cannot be read: then it is unknown who may come in."""
    files = st.get_option("secrets.files")
    return not st.secrets.load_if_toml_exists() and any(Path(file).exists() for file in files)


def _host(address: str) -> str:
    """Return the host of `host:port` or of a URL; "" where there is none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _sign_of_others() -> str | None:
    """Return what shows that the visitor may sit at another machine, or None for this one.

    A proxy on the same machine makes a server at 127.0.0.1 public. Proxies differ in what they add
    and keep, so the rule is the other way round: the visitor is local only if the server listens
    here alone, no option speaks of others, the browser asked for this machine by name, the page
    that asks is the one that was asked for, and no header is there that browsers do not send. That
    also stops pages of other sites whose name was made to lead here.
    """
    if is_behind_proxy():
        return "`FAULTLINE_BEHIND_PROXY` is set"
    if not _is_loopback(st.get_option("server.address") or ""):
        return "it listens beyond 127.0.0.1"
    for option in _FOR_OTHERS:
        values = st.get_option(option) or ()
        values = (values,) if isinstance(values, str) else values
        if any(not _is_loopback(_host(str(value))) for value in values):
            return f"`{option}` is set"
    headers = st.context.headers
    if not headers:  # no browser at all: a script, a test
        return None
    for name in headers:
        if name.casefold() not in _FROM_BROWSERS and not name.casefold().startswith(
            ("accept", "sec-")
        ):
            return f"the visit came with the header {plain(name[:40])}, as proxies add it"
    hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
    if len(hosts) != 1 or "@" in hosts[0] or not _is_loopback(_host(hosts[0])):
        return "the visit asked for another machine"
    scheme = "https" if st.get_option("server.sslCertFile") else "http"
    if origins != [f"{scheme}://{hosts[0]}"]:
        return "the visit came from the page of another address"
    return None


def _role(email: str) -> str:
    """Return the role that the secrets give an e-mail address; `none` keeps people out."""
    roles = _secrets().get("roles", {})
    for role in ("analyst", "viewer"):
        if email.casefold() in {str(listed).casefold() for listed in roles.get(role, ())}:
            return role
    return str(roles.get("default", "viewer"))


def _refusal() -> str | None:
    """Return why the signed-in person is kept out, or None."""
    if not st.user.get("email") or st.user.get("email_verified") not in (True, "true"):
        return (
            "Your provider did not confirm your e-mail address, so you cannot be let in. "
            "Verify it there, then sign in again."
        )
    if not st.user.get("iss") or not st.user.get("sub"):
        return "Your provider did not say who you are (no `iss` or `sub`)."
    if _role(str(st.user["email"])) not in ("viewer", "analyst"):
        return "Your account has no access to this server. Ask its administrator."
    return None


def readers() -> str:
    """Say who can see what a person leaves here."""
    return "you alone" if has_sign_in() else "anyone who can open this address"


def identity() -> Identity:
    """Return who is looking; with sign-in only after `gate`."""
    if has_sign_in() or _has_broken_secrets():
        if not st.user.get("is_logged_in") or _refusal():
            return Identity(ANONYMOUS, "viewer", may_write=False, reason="Sign in first.")
        person = f"{st.user['iss']}{st.user['sub']}"
        owner = hashlib.sha256(person.encode("utf-8")).hexdigest()
        if _role(str(st.user["email"])) == "analyst":
            return Identity(owner, "analyst", may_write=True)
        return Identity(owner, "viewer", may_write=False, reason=_VIEWER)
    why = _sign_of_others()
    if why is None:
        return Identity(LOCAL, "local", may_write=True)
    if allows_anonymous_write():
        return Identity(ANONYMOUS, "analyst", may_write=True)
    return Identity(ANONYMOUS, "viewer", may_write=False, reason=_OPEN_SERVER.format(why=why))


def gate() -> None:
    """With sign-in, stop the page until somebody who may read has signed in."""
    if _has_broken_secrets():
        st.title("Faultline", anchor=False)
        st.error(
            "The server's secrets cannot be read. Its administrator finds the reason in its log."
        )
        st.stop()
    if not has_sign_in():
        return
    if not st.user.get("is_logged_in"):
        st.title("Faultline", anchor=False)
        st.markdown("Sign in to see where cell-type models break.")
        st.button("Sign in", type="primary", on_click=st.login, key="identity.sign_in")
        st.stop()
    if reason := _refusal():
        st.title("Faultline", anchor=False)
        st.error(reason, icon=":material/lock:")
        st.button("Sign out", on_click=st.logout, key="identity.sign_out")
        st.stop()


def sign_out_button() -> None:
    """With sign-in, show who is signed in and a way out."""
    if has_sign_in():
        st.caption(f"Signed in as {plain(st.user['email'])} ({identity().role})")
        st.button("Sign out", on_click=st.logout, key="identity.sign_out")
