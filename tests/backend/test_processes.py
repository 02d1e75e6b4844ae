"""A child answers, keeps its limits, and never outlives its use."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from backend.processes import Child, ChildEnded, Limits, Process, ask_child, is_alive, myself

HERE = "tests.backend.children"


def until(is_true, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_child_answers_and_tells_on_the_way():
    seen = []
    assert ask_child(f"{HERE}:add", 1, 2, 3, limits=Limits(), tell=seen.append) == 6
    assert seen == [{"seen": 1}, {"seen": 2}, {"seen": 3}]
    assert len(ask_child(f"{HERE}:big", limits=Limits())) == 20 << 20


def test_a_child_takes_orders_until_none_follows():
    heard = []
    with Child(f"{HERE}:repeat", has_orders=True) as child:
        child.send({"a": 1})
        child.send("b")
        child.close_input()
        until(lambda: child.has_ended)
        heard = child.heard()
        assert child.how_it_ended == "ended with exit code 0"
    assert heard == [{"said": {"a": 1}}, {"said": "b"}, {"answer": None}]
    assert child.heard() == []


@pytest.mark.parametrize("limit", ["seconds", "silence"])
def test_a_child_without_end_is_ended(limit):
    with pytest.raises(ChildEnded) as caught:
        ask_child(f"{HERE}:leave_one_behind", limits=Limits(**{limit: 1.0}))
    assert caught.value.exceeded == limit


def test_memory_of_all_that_a_child_started_counts_and_all_of_it_ends():
    pids = []
    with pytest.raises(ChildEnded) as caught:
        ask_child(
            f"{HERE}:leave_one_behind",
            limits=Limits(resident=150 << 20, seconds=60.0),
            tell=lambda words: pids.append(words["pid"]),
        )
    assert caught.value.exceeded == "resident"
    until(
        lambda: not any(psutil.pid_exists(pid) and is_alive(Process("", pid, "")) for pid in pids)
    )


def test_a_child_may_be_kept_from_writing(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(ChildEnded):
        ask_child(f"{HERE}:write", str(path), limits=Limits(may_write=False), is_quiet=True)
    assert not path.exists() or path.read_bytes() == b""


def test_a_process_is_not_another_with_its_number():
    assert is_alive(myself())
    assert not is_alive(myself()._replace(started="1"))
    assert not is_alive(Process("", 0, ""))


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["seconds=3", "silence=3"])
def test_a_child_that_hears_nothing_ends_after_its_parent(limit):
    code = f"""
from backend.processes import Limits, ask_child
ask_child("{HERE}:never_let_go", limits=Limits({limit}), tell=lambda words: print(words["pid"], flush=True))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until(lambda: not is_alive(Process("", pid, "")))
    parent.stdout.close()
