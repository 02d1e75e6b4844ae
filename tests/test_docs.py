"""Every page, model and verb is named in the documentation."""

import re

import pytest

from app.nav import PAGES
from backend.cli import _VERBS
from backend.config import project_root
from backend.models.registry import list_models

ROOT = project_root()


def text_of(*paths):
    return "\n".join((ROOT / path).read_text(encoding="utf-8") for path in paths)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.key)
def test_page_is_in_readme_and_user_guide(page):
    assert f"| {page.title} |" in text_of("README.md")
    assert f"| {page.title} |" in text_of("docs/user-guide.md")


@pytest.mark.parametrize("verb", _VERBS)
def test_verb_is_in_readme(verb):
    assert f"python -m backend {verb}" in text_of("README.md")


def test_every_model_has_documentation():
    docs = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs/models").glob("*.md"))
    assert [key for key in list_models() if key not in docs] == []


def test_links_between_documents_lead_somewhere():
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_project_names_no_absolute_path_of_a_machine():
    pattern = re.compile(r"(?<![\w.])/(work|root|home/\w+)/")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/**/*.json")]:
        if ".venv" in path.parts or "node_modules" in path.parts:
            continue
        assert not pattern.search(path.read_text(encoding="utf-8")), path
