"""Rules of the layout that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from app import nav
from backend.config import project_root

if TYPE_CHECKING:
    from pathlib import Path

ROOT = project_root()
PAGES = sorted((ROOT / "pages").glob("*.py"))
APP = sorted((ROOT / "app").rglob("*.py"))
BACKEND = sorted((ROOT / "backend").rglob("*.py"))
CONFIG = tomllib.loads((ROOT / "app" / ".streamlit" / "config.toml").read_text())


def imported(file: Path) -> set[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_backend_never_imports_streamlit():
    assert not [file.name for file in BACKEND if {"streamlit", "app"} & imported(file)]


@pytest.mark.parametrize("name", ["torch", "scanpy", "umap", "anndata"])
def test_pages_and_app_never_import(name):
    assert not [file.name for file in [*PAGES, *APP] if name in imported(file)]


def test_every_page_is_in_the_navigation():
    assert {file.stem for file in PAGES} == {page.key for page in nav.PAGES}
    assert nav.PAGES[0].key == "overview"


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_page_is_thin(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert not re.search(r"groupby|pivot|merge\(|\bselect\b .*\bfrom\b|duckdb", text)
    assert not {"pandas", "numpy", "altair", "duckdb", "pathlib"} & imported(file)
    functions = [
        node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert not functions
    assert "st.title" not in text


def test_entry_is_short():
    assert len((ROOT / "app" / "main.py").read_text().splitlines()) < 80


def test_only_the_cache_package_caches():
    for file in [*PAGES, *APP]:
        if file.parent != ROOT / "app" / "cache":
            assert "st.cache" not in file.read_text(encoding="utf-8"), file.name


def test_no_module_of_app_hides_a_module_of_others():
    for file in (ROOT / "app").glob("*.py"):
        assert file.stem not in sys.stdlib_module_names


def test_configuration_keeps_to_this_machine():
    assert CONFIG["server"]["address"] == "127.0.0.1"
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert CONFIG["client"]["showErrorDetails"] == "none"
    assert CONFIG["theme"]["font"] == "sans-serif"
    assert "http" not in (ROOT / "app" / ".streamlit" / "config.toml").read_text()


@pytest.mark.slow
def test_web_process_loads_no_heavy_module(results_home: Path, tmp_path: Path):
    """Open every page in a fresh process and look at what it has loaded."""
    code = """
import sys
from streamlit.testing.v1 import AppTest
from app import nav
app = AppTest.from_file("app/main.py", default_timeout=120)
for page in nav.PAGES:
    app.switch_page(str(nav.page_file(page.key))).run()
    assert not app.exception, (page.key, app.exception)
heavy = {"torch", "scanpy", "umap", "numba", "sklearn", "anndata", "celltypist"}
print("LOADED", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            "PYTHONPATH": str(ROOT),
            "FAULTLINE_HOME": str(tmp_path),
            "FAULTLINE_PRECOMPUTED": str(results_home),
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "LOADED []" in done.stdout
