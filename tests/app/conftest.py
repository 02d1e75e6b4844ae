"""Pages over two small results folders: one that passes as real, one simulated."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest
import streamlit as st
from streamlit import config
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from backend.config import project_root
from tests.helpers import draw_cells, write_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REAL, SIMULATED = "Small cohort", "Small simulated course"


@pytest.fixture(scope="session")
def results_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_results(
        home,
        cells=draw_cells(
            samples={"Healthy": 3, "Diagnosis": 6}, cells_per_sample=60, n_studies=1, seed=1
        ),
        name=REAL,
        simulated=False,
        source="GEO GSE116256",
    )
    write_results(home, cells=draw_cells(cells_per_sample=25), name=SIMULATED)
    return home


@pytest.fixture(scope="module", autouse=True)
def this_machine() -> Iterator[None]:
    """Listen where `app/.streamlit/config.toml` says, which only the real server reads."""
    before = config.get_option("server.address")
    config.set_option("server.address", "127.0.0.1")
    yield
    config.set_option("server.address", before)


@pytest.fixture(scope="session", autouse=True)
def one_scan_of_packages() -> Iterator[None]:
    """Look through the installed packages for components once, not for every page opened."""
    with pytest.MonkeyPatch.context() as patch:
        scan = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


def _forget() -> None:
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="module", autouse=True)
def home(results_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Point the dashboard at the small results, once a file: store and caches are kept.

    Tests elsewhere, which may follow in the same process, have the folders of the repository.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTLINE_PRECOMPUTED", str(results_home))
        patch.setenv("FAULTLINE_HOME", str(tmp_path_factory.mktemp("store")))
        _forget()
        yield results_home
    _forget()


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point the dashboard at folders without results."""
    monkeypatch.setenv("FAULTLINE_PRECOMPUTED", str(tmp_path / "none"))
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path))
    _forget()
    yield tmp_path
    _forget()


@pytest.fixture(autouse=True)
def own_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a page puts in the place of `__main__`: child processes would run it again."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def _opened(key: str, **query: str | list[str]) -> AppTest:
    app = AppTest.from_file(str(project_root() / "app" / "main.py"), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    return app.switch_page(str(project_root() / "pages" / f"{key}.py")).run()


@pytest.fixture
def open_page() -> Callable[..., AppTest]:
    """Return a function that opens a page with some URL parameters."""
    return _opened


@pytest.fixture(scope="module")
def seen(home: Path) -> Callable[..., AppTest]:
    """Return what `open_page` returns, opened once a file, for tests that only look at a page."""
    return cache(_opened)
