"""What users left goes after some days, or at once."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from backend.config import keep_days
from backend.errors import InputError, JobFailed, JobNotFound
from backend.jobs.directory import (
    cancel_job,
    create_job,
    list_jobs,
    now,
    read_status,
    write_status,
)
from backend.jobs.expiry import delete_all, expire, expires_at

DAYS = 7.0


def make_old(*paths, days=8.0):
    moment = time.time() - days * 24 * 3600
    for path in paths:
        for part in [*path.rglob("*"), path]:
            os.utime(part, (moment, moment))


def left_behind(home, owner):
    """Write what an upload leaves: the file, its dataset, a run on it, and a selection."""
    root = home / "users" / owner
    for name in ("uploads/u1", "datasets/d1", "runs/r1"):
        (root / name).mkdir(parents=True)
    (root / "uploads/u1/data.h5ad").write_bytes(b"x")
    (root / "datasets/d1/dataset.json").write_text("{}")
    (root / "runs/r1/run.json").write_text(json.dumps({"dataset_id": "d1"}))
    (home / "selections" / owner).mkdir(parents=True)
    (home / "selections" / owner / "s1.json").write_text("{}")
    return root


def ended_job(home, *, days, owner="local"):
    job_id = create_job(home, "echo", {}, owner=owner)
    status = cancel_job(home, job_id, owner=owner)
    ended = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    write_status(home / "jobs" / job_id, status.with_(ended_at=ended))
    return job_id


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_old_things_go_and_young_ones_stay(home):
    old, young = left_behind(home, "old"), left_behind(home, "young")
    make_old(old, home / "selections" / "old")
    before = files(young)
    gone, kept = ended_job(home, days=8), ended_job(home, days=6)
    assert expire(home, days=DAYS) == 5
    assert files(old) == []
    assert files(home / "selections") == ["young/s1.json"]
    assert files(young) == before
    assert [status.job_id for status in list_jobs(home, owner="local")] == [kept]
    with pytest.raises(JobNotFound):
        read_status(home, gone, owner="local")


def test_shared_runs_never_expire(home):
    (home / "runs" / "r1").mkdir(parents=True)
    (home / "runs" / "r1" / "run.json").write_text("{}")
    make_old(home / "runs", days=1000)
    assert expire(home, days=DAYS) == 0
    assert files(home / "runs") == ["r1/run.json"]


def test_dataset_stays_as_long_as_a_run_on_it(home):
    root = left_behind(home, "local")
    make_old(root / "datasets")
    expire(home, days=DAYS)
    assert (root / "datasets/d1/dataset.json").exists()
    make_old(root / "runs")
    expire(home, days=DAYS)
    assert files(root) == ["uploads/u1/data.h5ad"]


def test_nothing_is_taken_from_under_an_open_job(home):
    root = left_behind(home, "local")
    make_old(root)
    create_job(home, "echo", {}, owner="local")
    assert expire(home, days=DAYS) == 0
    assert len(files(root)) == 3


def test_link_in_an_upload_folder_is_removed_and_not_followed(home, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("x")
    uploads = home / "users" / "local" / "uploads"
    uploads.mkdir(parents=True)
    (uploads / "link").symlink_to(outside)
    os.utime(uploads / "link", (0, 0), follow_symlinks=False)
    assert expire(home, days=DAYS) == 1
    assert list(uploads.iterdir()) == []
    assert (outside / "precious").exists()


def test_leftovers_of_killed_processes_go_after_a_day(home):
    (home / "jobs" / ".tmp-0123456789abcdef").mkdir(parents=True)
    expire(home, days=DAYS)
    assert (home / "jobs" / ".tmp-0123456789abcdef").exists()
    make_old(home / "jobs" / ".tmp-0123456789abcdef", days=2)
    expire(home, days=DAYS)
    assert list((home / "jobs").iterdir()) == []


def test_worker_expires(home, run_all, monkeypatch):
    make_old(left_behind(home, "local"))
    monkeypatch.setenv("FAULTLINE_KEEP_DAYS", "7")
    run_all()
    assert files(home / "users") == []


def test_delete_all_takes_everything_of_one_owner_at_once(home):
    left_behind(home, "me")
    other = left_behind(home, "other")
    create_job(home, "echo", {}, owner="me")
    kept = create_job(home, "echo", {}, owner="other")
    delete_all(home, owner="me")
    assert not (home / "users" / "me").exists()
    assert files(home / "selections") == ["other/s1.json"]
    assert list_jobs(home, owner="me") == []
    assert [status.job_id for status in list_jobs(home, owner="other")] == [kept]
    assert len(files(other)) == 3


def test_delete_all_waits_for_a_running_job(home):
    root = left_behind(home, "local")
    job_id = create_job(home, "echo", {}, owner="local")
    status = read_status(home, job_id, owner="local")
    (home / "jobs" / job_id / "claim-1").touch()
    write_status(home / "jobs" / job_id, status.with_(state="running", heartbeat_at=now()))
    with pytest.raises(JobFailed, match="being cancelled"):
        delete_all(home, owner="local")
    assert len(files(root)) == 3


@pytest.mark.parametrize("owner", ["..", "", "a/b"])
def test_delete_all_wants_an_owner(home, owner):
    with pytest.raises(InputError):
        delete_all(home, owner=owner)


def test_days_come_from_the_environment(monkeypatch):
    assert keep_days() == 7.0
    monkeypatch.setenv("FAULTLINE_KEEP_DAYS", "1.5")
    assert keep_days() == 1.5
    assert expires_at(1.5, "2024-01-01T00:00:00+00:00").isoformat() == "2024-01-02T12:00:00+00:00"
    for text in ("0", "-1", "soon", "inf"):
        monkeypatch.setenv("FAULTLINE_KEEP_DAYS", text)
        with pytest.raises(InputError, match="FAULTLINE_KEEP_DAYS"):
            keep_days()
