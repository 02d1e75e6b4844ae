"""Words from outside stay words, in Markdown and in our sentences about them."""

from __future__ import annotations

import re

import pytest

from backend.evaluation.wording import plain, prose
from tests.hostile import NAMES

UNESCAPED = re.compile(r"(?<!\\)[!\[\]<>$*_#`:|~]")


@pytest.mark.parametrize("name", NAMES)
def test_no_mark_of_a_name_is_left_to_markdown(name):
    shown = plain(NAMES[name])
    assert not UNESCAPED.search(shown)
    assert (
        shown.replace("\\", "")
        .replace("\u2060", "")
        .startswith(NAMES[name].split()[0].replace("\\", "")[:3])
    )


def test_marks_that_are_not_seen_are_left_out():
    assert plain("a\u202eb\u200bc\ufeff\x00d\u2066e") == "abcde"
    assert plain("Zelle ä β 細胞") == "Zelle ä β 細胞"


@pytest.mark.parametrize(
    "address", ["http://evil.invalid", "HTTPS://x", "www.evil.invalid", "a@b.c"]
)
def test_address_is_no_link(address):
    """Streamlit's reader of Markdown makes links of what is left when escapes are undone."""
    shown = plain(address).replace("\\", "")
    assert "://" not in shown or "\u2060://" in shown
    assert shown.replace("\u2060", "") == address
    assert shown != address


def test_code_of_a_sentence_stays_code():
    assert prose('`obs` has no column "day".') == '`obs` has no column \\"day\\"\\.'
    assert prose("Set `a` or `b` (one).") == "Set `a` or `b` \\(one\\)\\."


@pytest.mark.parametrize("text", ["`", "a ` b", "` ` `", "``", "`a` [x](y) `b` ` ![z](w)", "` $x$"])
def test_backticks_of_a_name_open_nothing(text):
    """Outside code, which shows what it holds, every mark is escaped."""
    shown = prose(text)
    outside = re.sub(r"(?<!\\)`[^`]+`", "", shown)
    assert not UNESCAPED.search(outside)
