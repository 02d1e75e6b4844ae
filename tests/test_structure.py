"""Code flows one way: what a module may import, and how large it may be."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter

from backend.config import project_root

ROOT = project_root()
ORDER = (
    # Words of the project, which need nothing; then what every package may use.
    "errors", "protocols", "types", "config", "files", "processes",
    # From a file to a bundle: cells, folds, networks, fits, sets of fits.
    "data", "splits", "models", "store", "training", "studies",
    # From bundles to answers: numbers, a file of the user's own, work in the background.
    "evaluation", "prediction", "jobs",
    # What people touch.
    "cli", "app", "pages",
)  # fmt: skip
"""A package imports itself and those before it, in annotations too."""
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("backend", "app", "pages")
    for path in (ROOT / top).rglob("*.py")
}


@cache
def imported() -> dict[str, set[str]]:
    """Return for each module those of the project that it imports, anywhere in it."""
    found: dict[str, set[str]] = {}
    for module, path in FILES.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in FILES else node.module for name in whole}
        found[module] = (names & FILES.keys()) - {module}
    return found


def package_of(module: str) -> str:
    return module.removeprefix("backend.").partition(".")[0]


def test_packages_import_only_those_before_them():
    wrong = [
        f"{module} imports {other}"
        for module, others in imported().items()
        for other in others
        if other != "backend" and module not in ("backend", "backend.__main__")
        if ORDER.index(package_of(other)) > ORDER.index(package_of(module))
    ]
    assert wrong == []


def test_no_modules_import_each_other():
    try:
        TopologicalSorter(imported()).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_what_pages_share_does_not_know_the_pages():
    wrong = [
        f"{module} imports {other}"
        for module, others in imported().items()
        for other in others
        if module.startswith("app.components") and other.startswith("app.sections")
    ]
    assert wrong == []


def test_no_file_is_longer_than_a_person_reads():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: n for name, n in lengths.items() if n > 500} == {}
