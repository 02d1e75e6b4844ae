"""The dashboard runs under the policy of docs/deployment.md, and its server keeps its defaults."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from app.nav import PAGES
from backend.config import environment, project_root
from tests.browser.conftest import FOOTER, LISTEN, wait_until
from tests.browser.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext

pytestmark = pytest.mark.browser

# A page under a policy may not evaluate text, so no function is sent to it: elements only.
_IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
_PARTS = ":is([data-testid=stVegaLiteChart], [data-testid=stDataFrame])"
_EMPTY = f"{_PARTS}:not(:has(svg, canvas)), [data-testid=stSkeleton]"
_MAP = ".map[data-state=drawn]"


def documented_policy() -> str:
    text = (project_root() / "docs" / "deployment.md").read_text(encoding="utf-8")
    found = re.search(r"```csp\n(.*?)\n```", text, re.DOTALL)
    assert found is not None
    return " ".join(found.group(1).split())


@pytest.fixture(scope="module")
def port(server) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    context.add_init_script(LISTEN)
    yield context
    context.close()


def violations(context, url, pages):
    """Open pages one after another; return what their policy forbade, and scripts that failed."""
    found = []
    page = context.new_page()
    page.set_default_timeout(120_000)
    current = "start"

    def note(message) -> None:
        if message.text.startswith("POLICY "):
            found.append(f"{current}: {message.text}")

    page.on("console", note)
    page.on("pageerror", lambda error: found.append(f"{current}: {error}"))
    page.goto(url, wait_until="commit")
    page.get_by_text(FOOTER).first.wait_for()
    for info in pages:
        current = info.key
        page.get_by_test_id("stSidebarNav").get_by_text(info.title, exact=True).click()
        page.get_by_role("heading", name=info.title, level=1).wait_for()
        page.get_by_text(FOOTER).first.wait_for()
        page.locator(_IDLE).wait_for()
        # Charts, tables and the map load after the script has run.
        if info.needs_results:
            page.locator(_PARTS).first.wait_for(state="attached")
        if info.key == "failure_map":
            wait_until(page, lambda: bool(found) or page.locator(_MAP).count() > 0)
        wait_until(page, lambda: bool(found) or page.locator(_EMPTY).count() == 0)
    page.close()
    return found


def test_every_answer_bears_the_documented_policy(port):
    """That pages need no more is seen in every other test here: `visit` fails on a violation."""
    url = f"http://127.0.0.1:{port}"
    for path in ("", "_stcore/health", "methods", "no/such/file.js"):
        try:
            answer = urllib.request.urlopen(f"{url}/{path}")
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            assert answer.headers["Content-Security-Policy"] == documented_policy()
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.slow
def test_only_the_cell_map_needs_to_make_functions_from_text(context, port):
    policy = documented_policy().replace(" 'unsafe-eval'", "")
    assert "'unsafe-eval'" not in policy
    with proxy(port, {"Content-Security-Policy": policy}) as url:
        maps = [page for page in PAGES if page.key == "failure_map"]
        assert violations(context, url, [page for page in PAGES if page not in maps]) == []
        assert any("eval" in text for text in violations(context, url, maps))


def test_policy_forbids_what_it_should(context, port):
    """The test can fail: without the hash of the inline script there is a violation."""
    policy = re.sub(r" 'sha256-[^']*'", "", documented_policy())
    with proxy(port, {"Content-Security-Policy": policy}) as url:
        assert any("script-src" in text for text in violations(context, url, PAGES[-1:]))


def test_policy_names_no_other_host():
    assert not re.search(r"https?:|wss?:|\*|//", documented_policy())


def test_configuration_of_the_real_server_keeps_its_protection(tmp_path):
    """Ask Streamlit what `streamlit run app/server.py` reads, from every file that it reads."""
    code = """
from streamlit import config
config._main_script_path = "app/server.py"
config.get_config_options(force_reparse=True)
for name in ("enableXsrfProtection", "enableCORS", "address", "enableAgentApi", "cookieSecret"):
    print(name, config.get_option(f"server.{name}"))
print("origins", list(config.get_option("server.corsAllowedOrigins")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project_root(), env=environment(HOME=str(tmp_path)),
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert found["enableXsrfProtection"] == "True"
    assert found["enableCORS"] == "True"
    assert found["address"] == "127.0.0.1"
    assert found["enableAgentApi"] == "False"
    assert found["origins"] == "[]"
    assert len(found["cookieSecret"]) >= 32


def status_of(url, method="GET", **headers):
    request = urllib.request.Request(url, method=method, headers=headers)
    if method in ("PUT", "POST"):
        request.data = b"x"
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_upload_without_token_is_refused(server):
    status, _ = status_of(f"{server.url}/_stcore/upload_file/x/y", "PUT")
    assert status == 403


def test_other_sites_get_no_permission_to_read(server):
    _, headers = status_of(f"{server.url}/_stcore/health", Origin="https://evil.example")
    assert headers.get("Access-Control-Allow-Origin") is None


def test_websocket_of_another_site_is_refused(server):
    websockets = pytest.importorskip("websockets.sync.client")
    from websockets.exceptions import InvalidStatus

    url = server.url.replace("http", "ws") + "/_stcore/stream"
    with pytest.raises(InvalidStatus):
        websockets.connect(url, origin="https://evil.example", subprotocols=["streamlit"])
    with websockets.connect(url, origin=server.url, subprotocols=["streamlit"]) as own:
        assert own.subprotocol == "streamlit"
