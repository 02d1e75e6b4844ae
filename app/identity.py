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

from backend.config import allows_anonymous_write
from backend.evaluation.text import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Identity", "gate", "has_sign_in", "identity", "sign_out_button"]

LOCAL: Final = "local"
ANONYMOUS: Final = "anonymous"
_FORWARDED: Final = ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Forwarded", "Via")

_OPEN_SERVER: Final = (
    "This server can be reached from other machines and has no sign-in, so it is read-only. "
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


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_this_machine_only() -> bool:
    """Say whether the visitor sits at the machine that serves.

    A proxy on the same machine makes a server at 127.0.0.1 public. It shows: it adds headers, or
    the browser asked for another host. The latter also stops pages of other sites whose name was
    made to lead here.
    """
    if not _is_loopback(st.get_option("server.address") or ""):
        return False
    headers = st.context.headers
    if any(headers.get(name) for name in _FORWARDED):
        return False
    asked = headers.get("Host")
    return asked is None or _is_loopback(urlsplit(f"//{asked}").hostname or "")


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
    if _is_this_machine_only():
        return Identity(LOCAL, "local", may_write=True)
    if allows_anonymous_write():
        return Identity(ANONYMOUS, "analyst", may_write=True)
    return Identity(ANONYMOUS, "viewer", may_write=False, reason=_OPEN_SERVER)


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
