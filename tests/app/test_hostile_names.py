"""Words from files are shown as text: nothing of them is read as Markdown anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import streamlit as st

from app import nav
from tests.hostile import FORBIDDEN, write_hostile_results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Text that Streamlit draws as it is, files, addresses, and names that nobody sees.
AS_IT_IS = {
    ("selectbox", "options"), ("multiselect", "options"), ("selectbox", "raw_value"),
    ("multiselect", "raw_values"), ("multiselect", "default"), ("text", "body"),
    ("arrow_data_frame", "alt"), ("vega_lite_chart", "alt"), ("arrow_vega_lite_chart", "alt"),
    ("imgs", "alt"),
}  # fmt: skip
NOT_SHOWN = {
    "id", "key", "form_id", "url", "spec", "data", "columns", "query_string", "element_id",
    "column_order", "page_script_hash", "json", "mixed", "arrow_data", "proto", "index",
    "alt", "query_param_key", "formatted_options", "path",
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hostile")
    write_hostile_results(home)
    return home


@pytest.fixture(scope="module", autouse=True)
def on_hostile_results(home: Path, hostile_home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTLINE_PRECOMPUTED", str(hostile_home))
        patch.setenv("FAULTLINE_HOME", str(hostile_home / "own"))
        st.cache_data.clear()
        st.cache_resource.clear()
        yield
    st.cache_data.clear()
    st.cache_resource.clear()


def texts(message, kind: str, path: str = ""):
    """Yield (field, text) of everything in a message that may be drawn."""
    for field, value in message.ListFields():
        if field.name in NOT_SHOWN or (kind, field.name) in AS_IT_IS:
            continue
        place = f"{path}.{field.name}"
        values = value if field.is_repeated else [value]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        for each in values:
            if field.message_type is not None:
                yield from texts(each, kind, place)
            elif isinstance(each, str):
                yield place, each


def drawn(block):
    for child in block.children.values():
        if getattr(child, "proto", None) is not None:
            kind = getattr(child, "type", "")
            for place, text in texts(child.proto, kind):
                yield f"{kind}{place}", text
        if hasattr(child, "children"):
            yield from drawn(child)


@pytest.mark.parametrize("key", [page.key for page in nav.PAGES])
def test_no_name_is_read_as_markdown(open_page, key):
    app = open_page(key)
    assert not app.exception
    seen = list(drawn(app._tree))
    assert len(seen) > 5
    found = {(place, text[:2000]) for place, text in seen for mark in FORBIDDEN if mark in text}
    assert not found, "\n".join(f"{place}: {text}" for place, text in sorted(found))
