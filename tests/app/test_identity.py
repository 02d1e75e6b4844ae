"""Who may do what: this machine, an open server, and people who signed in."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
from streamlit.runtime.context import StreamlitHeaders
from streamlit.testing.v1 import AppTest

from app import identity as module
from app.components.export import FOOTER
from backend.config import project_root

ISSUER, SUBJECT = "https://sign-in.hospital.org", "4711"
PERSON = {
    "is_logged_in": True,
    "iss": ISSUER,
    "sub": SUBJECT,
    "email": "A.Person@hospital.org",
    "email_verified": True,
}
OWNER = hashlib.sha256(f"{ISSUER}{SUBJECT}".encode()).hexdigest()


class Secrets(dict):
    is_loaded = True

    def load_if_toml_exists(self):
        return self.is_loaded


@pytest.fixture
def seen(monkeypatch):
    """Return a function that says who the visitor is on some server."""
    monkeypatch.delenv("FAULTLINE_ANONYMOUS_WRITE", raising=False)

    monkeypatch.delenv("FAULTLINE_BEHIND_PROXY", raising=False)

    def see(*, address="127.0.0.1", headers=(), user=None, secrets=None, files=(), **others):
        found = Secrets(secrets or {})
        found.is_loaded = secrets is not None
        options = {"server.address": address, "secrets.files": files} | {
            "browser.serverAddress": "localhost",
            "server.baseUrlPath": "",
            "server.corsAllowedOrigins": [],
            "server.sslCertFile": None,
            **{name.replace("_", "."): value for name, value in others.items()},
        }
        fake = SimpleNamespace(
            get_option=options.__getitem__,
            context=SimpleNamespace(headers=StreamlitHeaders(list(headers))),
            user=user or {},
            secrets=found,
        )
        monkeypatch.setattr(module, "st", fake)
        return module.identity()

    return see


def handshake(host="localhost:8501", origin=None, **added):
    """Return what Chromium and Firefox send between them when the page opens its websocket."""
    return [
        ("host", host),
        ("connection", "keep-alive, Upgrade"),
        ("pragma", "no-cache"),
        ("cache-control", "no-cache"),
        ("user-agent", "Mozilla/5.0"),
        ("upgrade", "websocket"),
        ("origin", f"http://{host}" if origin is None else origin),
        ("sec-websocket-version", "13"),
        ("sec-fetch-site", "same-origin"),
        ("sec-gpc", "1"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en"),
        ("cookie", "_streamlit_xsrf=1"),
        ("dnt", "1"),
        *((name.replace("_", "-"), value) for name, value in added.items()),
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machine_belongs_to_its_user(seen, address):
    who = seen(address=address, headers=handshake())
    assert (who.owner, who.role, who.may_write, who.reason) == ("local", "local", True, None)


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "::", "10.0.0.5", "host.org", "unix://x"])
def test_server_that_others_reach_is_for_reading(seen, address):
    who = seen(address=address, headers=handshake())
    assert (who.owner, who.role, who.may_write) == ("anonymous", "viewer", False)
    assert "no sign-in" in who.reason
    assert "listens beyond" in who.reason


@pytest.mark.parametrize(
    "host",
    ["faultline.hospital.org", "10.0.0.5:8501", "localhost.evil.org", "[bad", "evil@127.0.0.1", ""],
)
def test_visit_that_asks_for_another_machine_is_from_elsewhere(seen, host):
    who = seen(headers=handshake(host))
    assert (who.owner, who.may_write) == ("anonymous", False)
    assert "another machine" in who.reason


@pytest.mark.parametrize(
    "origin",
    [
        "https://faultline.hospital.org",
        "http://localhost.evil.org:8501",
        "http://localhost:8080",
        "http://127.0.0.1:8501",
        "https://localhost:8501",
        "null",
        "",
    ],
)
def test_page_of_another_address_is_from_elsewhere(seen, origin):
    """A proxy that names this machine as host still shows in the address of the page."""
    who = seen(headers=handshake(origin=origin))
    assert (who.owner, who.may_write) == ("anonymous", False)
    assert "another address" in who.reason


def test_every_visit_says_which_page_it_is_from(seen):
    for left_out in ("host", "origin"):
        headers = [pair for pair in handshake() if pair[0] != left_out]
        assert not seen(headers=headers).may_write
    assert not seen(headers=[*handshake(), ("host", "localhost:8501")]).may_write


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Server",
        "X-Real-IP", "X-Original-Host", "X-Request-ID", "CF-Connecting-IP", "CF-Ray", "CDN-Loop",
        "True-Client-IP", "Fly-Client-IP", "Tailscale-User-Login", "X-Envoy-External-Address",
        "Authorization", "Remote-User",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["127.0.0.1", "", "localhost"])
def test_header_that_no_browser_sends_is_a_proxy(seen, name, value):
    who = seen(headers=[*handshake(), (name.lower(), value)])
    assert (who.owner, who.may_write) == ("anonymous", False)
    assert "as proxies add it" in who.reason
    # In code the escapes of a name would be seen, and a name may hold backticks.
    assert "`" not in who.reason


@pytest.mark.parametrize(
    "option",
    [
        {"server_corsAllowedOrigins": ["https://faultline.hospital.org"]},
        {"server_baseUrlPath": "faultline"},
        {"server_baseUrlPath": "/faultline"},
        {"browser_serverAddress": "faultline.hospital.org"},
    ],
)
def test_options_of_a_server_for_others_make_it_public(seen, option):
    assert not seen(headers=handshake(), **option).may_write
    assert not seen(**option).may_write


def test_administrator_can_say_that_there_is_a_proxy(seen, monkeypatch):
    see = seen
    for text, is_local in (("1", False), ("yes", False), ("0", True), ("", True)):
        monkeypatch.setenv("FAULTLINE_BEHIND_PROXY", text)
        assert see(headers=handshake()).may_write == is_local


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1:8501", "[::1]:8501", "localhost"])
def test_names_of_this_machine_are_its_own(seen, host):
    assert seen(headers=handshake(host)).may_write
    assert seen(headers=handshake(host, f"https://{host}"), server_sslCertFile="own.pem").may_write


def test_anonymous_writing_must_be_asked_for(seen, monkeypatch):
    see = seen
    monkeypatch.setenv("FAULTLINE_ANONYMOUS_WRITE", "1")
    who = see(address="0.0.0.0")
    assert (who.owner, who.role, who.may_write) == ("anonymous", "analyst", True)
    for text in ("0", "true", ""):
        monkeypatch.setenv("FAULTLINE_ANONYMOUS_WRITE", text)
        assert not see(address="0.0.0.0").may_write


def test_owner_is_made_of_issuer_and_subject(seen):
    who = seen(secrets={"auth": {}}, user=PERSON, address="0.0.0.0")
    assert who.owner == OWNER
    other = seen(secrets={"auth": {}}, user=PERSON | {"sub": "4712"})
    assert other.owner != OWNER
    assert len(other.owner) == 64


def test_roles_come_from_the_secrets(seen):
    for roles, role, may_write in (
        ({}, "viewer", False),
        ({"analyst": ["a.person@HOSPITAL.org"]}, "analyst", True),
        ({"analyst": ["b.person@hospital.org"]}, "viewer", False),
        ({"default": "analyst"}, "analyst", True),
        ({"default": "analyst", "viewer": ["a.person@hospital.org"]}, "viewer", False),
        ({"default": "none", "viewer": ["a.person@hospital.org"]}, "viewer", False),
    ):
        who = seen(secrets={"auth": {}, "roles": roles}, user=PERSON)
        assert (who.role, who.may_write) == (role, may_write), roles
        assert who.owner == OWNER
        assert (who.reason is None) == may_write


@pytest.mark.parametrize(
    ("change", "roles"),
    [
        ({"is_logged_in": False}, {}),
        ({"email_verified": False}, {}),
        ({"email_verified": None}, {}),
        ({"email_verified": 1.5}, {}),
        ({"email": ""}, {}),
        ({"iss": ""}, {}),
        ({"sub": None}, {}),
        ({}, {"default": "none"}),
        ({}, {"default": "typo"}),
    ],
)
def test_nobody_else_is_anybody(seen, change, roles):
    """An account that is kept out never has an owner, even where writing is free to all."""
    roles = {"analyst": []} | roles
    who = seen(secrets={"auth": {}, "roles": roles}, user=PERSON | change)
    assert (who.owner, who.may_write) == ("anonymous", False)


def test_anonymous_writing_does_not_open_a_server_with_sign_in(seen, monkeypatch):
    monkeypatch.setenv("FAULTLINE_ANONYMOUS_WRITE", "1")
    assert not seen(secrets={"auth": {}}, user={"is_logged_in": False}).may_write


def test_secrets_that_cannot_be_read_let_nobody_write(seen, tmp_path):
    broken = tmp_path / "secrets.toml"
    broken.write_text("[auth")
    assert seen(files=[str(broken)]).may_write is False
    assert seen(files=[str(tmp_path / "none.toml")]).may_write is True


def open_app(**options):
    app = AppTest.from_file(str(project_root() / "app" / "main.py"), default_timeout=60)
    for name, value in options.items():
        setattr(app, name, value)
    return app.run()


def test_sign_in_stands_before_every_page():
    app = open_app(secrets={"auth": {"cookie_secret": "x"}}, user={"is_logged_in": False})
    assert not app.exception
    assert [button.label for button in app.button] == ["Sign in"]
    assert not app.dataframe
    assert not app.selectbox
    assert FOOTER in [caption.value for caption in app.caption]


def test_unverified_person_is_told_why_and_sees_nothing():
    app = open_app(
        secrets={"auth": {"cookie_secret": "x"}}, user=PERSON | {"email_verified": False}
    )
    assert "did not confirm your e-mail" in app.error[0].value
    assert [button.label for button in app.button] == ["Sign out"]
    assert not app.dataframe


def test_signed_in_person_has_the_pages_under_their_own_name():
    app = open_app(secrets={"auth": {"cookie_secret": "x"}}, user=dict(PERSON))
    assert not app.exception
    assert app.session_state["faultline.scope"].owner == OWNER
    assert "Signed in as" in "\n".join(caption.value for caption in app.caption)
    assert app.dataframe
