"""People sign in at a real provider on this machine, and see their own things only."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from backend.jobs.directory import cancel_job, create_job
from tests.browser.conftest import free_port, served, settled, visitor
from tests.helpers import draw_cells, write_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import Server

pytestmark = pytest.mark.browser

ANALYST, COLLEAGUE, VIEWER, UNVERIFIED = "ada", "bea", "vic", "una"
PEOPLE = (ANALYST, COLLEAGUE, VIEWER, UNVERIFIED)


def person(name, *, verified=True):
    return {"sub": name, "email": f"{name}@hospital.org", "email_verified": verified, "name": name}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Run the provider in a process of its own."""
    # Asked without an import, which would warn about the provider's own dependencies.
    if find_spec("oidc_provider_mock") is None:
        pytest.skip("oidc-provider-mock is not installed (requirements-dev.txt)")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    people = [person(name, verified=name != UNVERIFIED) for name in PEOPLE]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    for each in people:
        command += ["--user-claims", json.dumps(each)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{url}/.well-known/openid-configuration", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def owner_of(provider: str, name: str) -> str:
    return hashlib.sha256(f"{provider}{name}".encode()).hexdigest()


def write_secrets(home: Path, port: int, provider: str) -> None:
    """Write what an administrator would: the provider, and who may do what."""
    analysts = [f"{name}@hospital.org" for name in (ANALYST, COLLEAGUE, UNVERIFIED)]
    (home / ".streamlit").mkdir()
    (home / ".streamlit" / "secrets.toml").write_text(
        f"""
[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "faultline"
client_secret = "not-so-secret"
server_metadata_url = "{provider}/.well-known/openid-configuration"
client_kwargs = {{ "prompt" = "login" }}

[roles]
analyst = {json.dumps(analysts)}
"""
    )


@pytest.fixture(scope="module")
def hospital(provider, tmp_path_factory) -> Iterator[tuple[Server, dict[str, str]]]:
    """Serve with sign-in; give the server, and a job of each person."""
    home = tmp_path_factory.mktemp("hospital")
    write_results(home, cells=draw_cells(cells_per_sample=12), name="Small course")
    port = free_port()
    write_secrets(home, port, provider)
    jobs = {}
    for name in (ANALYST, VIEWER):
        owner = owner_of(provider, name)
        jobs[name] = create_job(home, "run", {"model": "majority"}, owner=owner)
        cancel_job(home, jobs[name], owner=owner)
    with served(home, port=port) as server:
        yield server, jobs


def sign_in_at(chromium: Browser, server: Server, name: str) -> Page:
    """Sign somebody in, in a browser of their own."""
    context = visitor(chromium)
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(server.url)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name=name, exact=True).click()
    page.wait_for_url(f"{server.url}/**")
    settled(page)
    return page


@pytest.fixture
def sign_in(chromium: Browser, hospital) -> Iterator[Callable[[str], Page]]:
    """Return a function that signs somebody in, in a browser of their own."""
    contexts = []

    def signed_in(name: str) -> Page:
        page = sign_in_at(chromium, hospital[0], name)
        contexts.append(page.context)
        return page

    yield signed_in
    for context in contexts:
        context.close()


def shown(page: Page) -> str:
    """Return the words of a page, without the marks that keep an address from being a link."""
    return page.get_by_test_id("stApp").inner_text().replace("\u2060", "")


def text_of(page: Page, url: str) -> str:
    page.goto(url)
    settled(page)
    return shown(page)


def test_nothing_is_shown_before_sign_in(chromium, hospital):
    context = visitor(chromium)
    page = context.new_page()
    for path in ("", "overview", "runs?runs_view=Jobs", f"runs?job={hospital[1][ANALYST]}"):
        text = text_of(page, f"{hospital[0].url}/{path}")
        assert "Sign in" in text
        assert "Small course" not in text
        assert "macro-F1" not in text
        assert "Training" not in text
    context.close()


def test_each_person_sees_their_own_jobs_and_role(sign_in, hospital):
    server, jobs = hospital
    ada, vic = sign_in(ANALYST), sign_in(VIEWER)
    assert "Signed in as ada@hospital.org (analyst)" in shown(ada)
    assert "Signed in as vic@hospital.org (viewer)" in shown(vic)
    for page, name, other in ((ada, ANALYST, VIEWER), (vic, VIEWER, ANALYST)):
        assert "1 job, 0 waiting" in text_of(page, f"{server.url}/runs?runs_view=Jobs")
        assert "cancelled" in text_of(page, f"{server.url}/runs?job={jobs[name]}")
        foreign = text_of(page, f"{server.url}/runs?job={jobs[other]}")
        unknown = text_of(page, f"{server.url}/runs?job={'0' * 16}")
        assert "Job not found." in foreign
        cut = [text.partition("Reference")[0] for text in (foreign, unknown)]
        assert cut[0] == cut[1]
    # The viewer reads, and is told why there is nothing to press.
    text_of(vic, f"{server.url}/runs?job={jobs[VIEWER]}")
    assert vic.get_by_role("button", name="Retry").is_disabled()
    assert "Your role on this server is viewer" in text_of(
        vic, f"{server.url}/runs?runs_view=Start+a+run"
    )
    text_of(ada, f"{server.url}/runs?job={jobs[ANALYST]}")
    assert ada.get_by_role("button", name="Retry").is_enabled()


def test_unverified_address_is_kept_out_whatever_its_role(sign_in):
    text = shown(sign_in(UNVERIFIED))
    assert "did not confirm your e-mail address" in text
    assert "Small course" not in text


def test_sign_out_ends_the_session_and_a_forged_cookie_begins_none(sign_in, hospital, provider):
    page = sign_in(ANALYST)
    cookies = page.context.cookies()
    page.get_by_role("button", name="Sign out").click()
    # The provider ends its own session, too.
    page.wait_for_url(f"{provider}/**")
    assert "Sign in" in text_of(page, hospital[0].url)
    forged = [
        cookie | {"value": cookie["value"][:-3] + "abc"}
        for cookie in cookies
        if cookie["name"].startswith("_streamlit_user")
    ]
    assert forged
    page.context.add_cookies(forged)
    assert "Sign in" in text_of(page, hospital[0].url)
