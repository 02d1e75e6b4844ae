"""The one list of pages: file, title, address and the question that each answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import streamlit as st

from app.filters import FILTERS
from app.state import LABEL_LEVEL, PROTOCOL
from backend.config import project_root

if TYPE_CHECKING:
    from pathlib import Path

    from streamlit.navigation.page import Page

__all__ = ["ICON", "PAGES", "WORDMARKS", "PageInfo", "navigation", "page_file"]


ICON: Final = project_root() / "app" / "icon.svg"
"""A file: a named icon would be fetched from another host for the browser's tab."""


WORDMARKS: Final = {
    dark: project_root() / "app" / name
    for dark, name in ((False, "wordmark.svg"), (True, "wordmark_dark.svg"))
}
"""The product's name and what it is in one line, for a light and a dark sidebar."""


@dataclass(frozen=True, slots=True)
class PageInfo:
    """One page: `key` is its file in `pages/` and, but for the first page, its address.

    `needs_labels` says whether it has nothing to show of cells without a label, `needs_counts` of
    cells whose counts are not kept, `has_metric` whether its scores are of the chosen metric, `without` which shared filters
    change nothing on it. `section` is what it stands under.
    """

    key: str
    title: str
    icon: str
    question: str
    needs_results: bool = True
    needs_labels: bool = True
    needs_counts: bool = False
    has_metric: bool = False
    without: tuple[str, ...] = ()
    section: str = "Failures"

    @property
    def filters(self) -> tuple[str, ...]:
        """The shared filters that change what the page shows."""
        if not self.needs_results:
            return ()
        return tuple(key for key in FILTERS if key not in self.without)


PAGES: Final = (
    PageInfo(
        "overview",
        "Overview",
        ":material/overview:",
        "Where do the models break on this data?",
        has_metric=True,
    ),
    PageInfo(
        "blasts",
        "Blasts",
        ":material/bloodtype:",
        "Are leukaemic cells called normal?",
        without=(LABEL_LEVEL,),
    ),
    PageInfo(
        "timepoints",
        "Timepoints",
        ":material/timeline:",
        "How does each model fall along the clinical course?",
        has_metric=True,
    ),
    PageInfo(
        "cell_types",
        "Cell types",
        ":material/grid_on:",
        "Which types are lost, and where?",
    ),
    PageInfo(
        "failure_map",
        "Failure map",
        ":material/scatter_plot:",
        "Which cells fail?",
        needs_labels=False,
    ),
    PageInfo(
        "confusions",
        "Confusions",
        ":material/table_chart:",
        "What are they mistaken for, and how bad is it?",
    ),
    PageInfo(
        "genes",
        "Genes",
        ":material/genetics:",
        "Which genes separate the cells that fail?",
        needs_counts=True,
    ),
    PageInfo("donors", "Donors", ":material/group:", "Is it one patient?", has_metric=True),
    PageInfo(
        "protocols",
        "Protocols",
        ":material/compare_arrows:",
        "How much did the split flatter the models?",
        has_metric=True,
        without=(PROTOCOL,),
        section="Studies",
    ),
    PageInfo(
        "published",
        "Published",
        ":material/import_contacts:",
        "What did the study report, and what is found here?",
        section="Studies",
    ),
    PageInfo(
        "evaluate",
        "Evaluate",
        ":material/upload_file:",
        "How do models do on my file?",
        needs_results=False,
        section="Your data",
    ),
    PageInfo(
        "runs",
        "Runs",
        ":material/play_circle:",
        "What was run, with what, and is it healthy?",
        needs_results=False,
        section="System",
    ),
    PageInfo(
        "methods",
        "Methods",
        ":material/menu_book:",
        "How is each number made?",
        needs_results=False,
        section="System",
    ),
)


def page_file(key: str) -> Path:
    """Return the script of a page, as `st.switch_page` and `st.page_link` want it."""
    return project_root() / "pages" / f"{key}.py"


def navigation() -> tuple[Page, PageInfo]:
    """Draw the sidebar's page list; return the chosen page and what is known of it."""
    pages = [
        st.Page(
            page_file(page.key),
            title=page.title,
            icon=page.icon,
            # The first page stands at the root; its own name is left to the hidden page below.
            url_path="first" if page is PAGES[0] else page.key,
            default=page is PAGES[0],
        )
        for page in PAGES
    ]
    sections: dict[str, list[Page]] = {}
    for page, info in zip(pages, PAGES, strict=True):
        sections.setdefault(info.section, []).append(page)
    # The first page has no address of its own, but links to it by name are written all the same.
    first = st.Page(
        page_file(PAGES[0].key), title=PAGES[0].title, url_path=PAGES[0].key, visibility="hidden"
    )
    sections[PAGES[0].section].append(first)
    chosen = st.navigation(sections, position="sidebar", expanded=True)
    return chosen, PAGES[pages.index(chosen)] if chosen in pages else PAGES[0]
