"""Job folders: whole files, ids that say nothing, and owners who see only their own."""

from __future__ import annotations

import json

import pytest

from backend.errors import InputError, JobFailed, JobNotFound, StoreError
from backend.jobs.directory import (
    cancel_job,
    create_job,
    delete_job,
    list_jobs,
    read_log,
    read_request,
    read_status,
    retry_job,
)

ACTIONS = (read_status, read_request, read_log, cancel_job, retry_job, delete_job)


def test_new_job_waits_in_its_folder(home):
    job_id = create_job(home, "echo", {"n": 1}, owner="local")
    status = read_status(home, job_id, owner="local")
    assert (status.state, status.attempt, status.progress) == ("queued", 1, 0.0)
    assert read_request(home, job_id, owner="local") == {"n": 1}
    files = {path.name for path in (home / "jobs" / job_id).iterdir()}
    assert files == {"request.json", "status.json", "log.txt"}
    assert [path.name for path in (home / "jobs").iterdir()] == [job_id]


def test_newest_job_comes_first_and_only_the_owners_are_listed(home):
    first = create_job(home, "echo", {}, owner="a")
    second = create_job(home, "echo", {}, owner="a")
    create_job(home, "echo", {}, owner="b")
    assert [status.job_id for status in list_jobs(home, owner="a")] == [second, first]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
@pytest.mark.parametrize(
    "name", ["0123456789abcdef", "../../etc", "", ".", "0123456789ABCDEF", "a" * 17, 7, None]
)
def test_foreign_and_unknown_jobs_read_the_same(home, action, name):
    foreign = create_job(home, "echo", {}, owner="somebody")
    with pytest.raises(JobNotFound) as of_foreign:
        action(home, foreign, owner="local")
    with pytest.raises(JobNotFound) as of_unknown:
        action(home, name, owner="local")
    assert of_foreign.value.args == of_unknown.value.args
    assert read_status(home, foreign, owner="somebody").state == "queued"


@pytest.mark.parametrize("owner", ["", "../x", "a/b", ".", "x" * 65, "ä", None])
def test_owner_that_cannot_name_a_folder_is_refused(home, owner):
    with pytest.raises(InputError, match="not the name of an owner"):
        create_job(home, "echo", {}, owner=owner)


def test_unknown_kind_and_unplain_requests_are_refused(home):
    with pytest.raises(JobFailed, match="no job of the kind"):
        create_job(home, "rm", {}, owner="local")
    with pytest.raises(InputError, match="not plain data"):
        create_job(home, "echo", {"x": object()}, owner="local")
    with pytest.raises(InputError, match="not plain data"):
        create_job(home, "echo", {"x": float("nan")}, owner="local")
    with pytest.raises(InputError, match="longer than 1 MiB"):
        create_job(home, "echo", {"x": "y" * (1 << 20)}, owner="local")
    assert list_jobs(home, owner="local") == []


def test_one_owner_cannot_fill_the_queue(home):
    for _ in range(20):
        create_job(home, "echo", {}, owner="local")
    with pytest.raises(JobFailed, match="20 jobs of yours"):
        create_job(home, "echo", {}, owner="local")
    assert create_job(home, "echo", {}, owner="other")


def test_waiting_job_is_cancelled_retried_and_deleted(home, run_all):
    job_id = create_job(home, "echo", {}, owner="local")
    assert cancel_job(home, job_id, owner="local").state == "cancelled"
    assert run_all() == 0
    with pytest.raises(JobFailed, match="queued"):
        retry_job(home, retry_job(home, job_id, owner="local").job_id, owner="local")
    assert run_all() == 1
    status = read_status(home, job_id, owner="local")
    assert (status.state, status.attempt) == ("done", 2)
    delete_job(home, job_id, owner="local")
    assert list_jobs(home, owner="local") == []
    assert list((home / "jobs").iterdir()) == []


def test_log_gives_its_last_lines(home):
    job_id = create_job(home, "echo", {}, owner="local")
    lines = "".join(f"line {i}\n" for i in range(1000))
    (home / "jobs" / job_id / "log.txt").write_text(lines)
    assert read_log(home, job_id, owner="local", tail=2) == "line 998\nline 999"


@pytest.mark.parametrize("text", ["{", "[]", '{"state": "queued"}', ""])
def test_damaged_status_is_named_and_hides_no_other_job(home, text):
    good = create_job(home, "echo", {}, owner="local")
    bad = create_job(home, "echo", {}, owner="local")
    (home / "jobs" / bad / "status.json").write_text(text)
    with pytest.raises(StoreError, match=bad):
        read_status(home, bad, owner="local")
    assert [status.job_id for status in list_jobs(home, owner="local")] == [good]


def test_status_of_a_newer_version_is_read(home):
    job_id = create_job(home, "echo", {}, owner="local")
    path = home / "jobs" / job_id / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "blue"}))
    assert read_status(home, job_id, owner="local").state == "queued"
