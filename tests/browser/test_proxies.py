"""Behind a proxy on the same machine nobody is its owner, whatever the proxy passes on."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from backend.config import project_root
from tests.browser.conftest import free_port, served
from tests.browser.proxy import proxy
from tests.helpers import draw_cells, write_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.conftest import Server

pytestmark = pytest.mark.browser

READ_ONLY = "it is read-only"

# What nginx does unless told otherwise, and what a websocket needs on top.
NGINX_DEFAULT = """
    proxy_pass http://127.0.0.1:{target};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
"""


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server whose administrator switched off what refuses other pages."""
    home = tmp_path_factory.mktemp("careless")
    write_results(home, cells=draw_cells(cells_per_sample=25), name="Small simulated course")
    with served(home, "--server.enableCORS=false", "--server.enableXsrfProtection=false") as server:
        yield server


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Run a proxy until the block ends; give the address to visit."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def nginx(folder: Path, location: str, before: str = ""):
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin:/sbin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    port = free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary} {before}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }} }}\n"
    )
    return running([program, "-p", str(folder), "-c", str(config)], port, folder / "nginx.log")


def caddy(folder: Path, target: int):
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("Caddy is not installed (Debian: apt-get install caddy)")
    port = free_port()
    config = folder / "Caddyfile"
    config.write_text(
        "{\n  admin off\n  auto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\n  reverse_proxy 127.0.0.1:{target}\n}}\n"
    )
    command = [program, "run", "--adapter", "caddyfile", "--config", str(config)]
    return running(command, port, folder / "caddy.log")


def reason_not_to_upload(visit: Callable[..., Page], url: str, server: Server) -> str:
    """Return what the page says instead of offering to upload; "" where it offers."""
    page = visit("evaluate", at=type(server)(url, server.log))
    told = page.get_by_text(READ_ONLY)
    offered = page.locator("[data-testid=stFileUploader]")
    assert (told.count() > 0) != (offered.count() > 0)
    return told.first.inner_text() if told.count() else ""


def test_without_a_proxy_the_visitor_owns_the_machine(visit, careless):
    assert reason_not_to_upload(visit, careless.url, careless) == ""


def test_nginx_as_it_comes_makes_the_server_public(visit, careless, tmp_path):
    """Its default host is the address behind it, and it adds no header: the page's address shows."""
    with nginx(tmp_path, NGINX_DEFAULT.format(target=port_of(careless))) as url:
        assert "another address" in reason_not_to_upload(visit, url, careless)


def test_documented_nginx_makes_the_server_public(visit, careless, tmp_path):
    text = (project_root() / "docs" / "deployment.md").read_text(encoding="utf-8")
    before = re.search(r"^map .*$", text, re.MULTILINE)
    location = re.search(r"location / \{\n(.*?)\n    \}", text, re.DOTALL)
    assert before is not None
    assert location is not None
    lines = location.group(1).replace("8501", str(port_of(careless)))
    with nginx(tmp_path, lines, before.group(0)) as url:
        assert "as proxies add it" in reason_not_to_upload(visit, url, careless)


def test_caddy_as_it_comes_makes_the_server_public(visit, careless, tmp_path):
    with caddy(tmp_path, port_of(careless)) as url:
        assert "as proxies add it" in reason_not_to_upload(visit, url, careless)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        pytest.param({"Host": "127.0.0.1:{target}"}, "another address", marks=pytest.mark.slow),
        ({"Host": "127.0.0.1:{target}", "X-Real-IP": "127.0.0.1"}, "as proxies add it"),
        pytest.param({"CF-Connecting-IP": "10.0.0.9"}, "as proxies add it", marks=pytest.mark.slow),
        ({"Origin": "https://faultline.hospital.org"}, "another address"),
        ({"Host": "faultline.hospital.org"}, "another machine"),
    ],
)
def test_other_proxies_make_the_server_public(visit, careless, asked, why):
    target = port_of(careless)
    asked = {name: value.format(target=target) for name, value in asked.items()}
    with proxy(target, {}, asked) as url:
        assert why in reason_not_to_upload(visit, url, careless)
