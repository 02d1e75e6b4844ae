"""Files with changed bytes and texts at every boundary end in an answer or a refusal.

Seeded and bounded; no traceback, no crash of a child that is not said.
"""

from __future__ import annotations

import pytest

from backend.errors import shortened
from backend.processes import Limits, ask_child

MOST_SECONDS = 60.0
"""Of processors: what else the machine does must not matter."""
MOST_MIB = 1024.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "n"),
    [
        ("cells", 300), ("tables", 200), ("checkpoints", 300), ("plans", 100), ("selections", 100),
        ("bundles", 100),
    ],
)  # fmt: skip
def test_what_was_changed_is_read_or_refused(target, n, tmp_path):
    used = ask_child(
        "tests.backend.hostile.targets:fuzz", target, str(tmp_path), n, limits=Limits(seconds=500)
    )
    said = used["said"]
    print(f"\n{target}: {n}, {used['seconds']:.0f} s, {used['mib']:.0f} MiB, {said}")
    assert sum(said.values()) == n
    assert said["read"] > 2
    assert len(said) > 3
    assert used["seconds"] <= MOST_SECONDS
    assert used["mib"] <= MOST_MIB


def test_a_message_is_never_a_page():
    assert len(shortened("x" * 10**6)) <= 2_000
    assert shortened("short") == "short"
