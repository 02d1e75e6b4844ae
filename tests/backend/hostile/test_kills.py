"""Commands killed at any moment lose nothing, leave nobody behind, and end with the same numbers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress

import pandas as pd
import pyarrow as pa
import pytest

from backend.store.bundle import list_runs, read_predictions, read_run
from backend.store.imports import template
from backend.store.seals import verify
from tests.backend.hostile.forks import Forks
from tests.backend.hostile.killing import family, wait_until_gone
from tests.conftest import build_adata
from tests.helpers import write_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    with Forks(folder, FAULTLINE_HOME=str(folder), FAULTLINE_PRECOMPUTED=str(folder)) as made:
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.h5ad"
    build_adata(240, n_donors=6).write_h5ad(path)
    return path


def content(out):
    """Return what runs say, without their times."""
    found = {}
    for folder in list_runs(out):
        run = read_run(folder)
        frame = read_predictions(folder) if run.status == "done" else None
        found[folder.name] = (run.status, frame)
    return found


def kill_and_finish(forks, words, out, *, n, seed, env):
    """Kill a command `n` times at moments of its work, then let it end; return (kills, seconds).

    After each kill nobody of it is left, what was complete stays, and every bundle is whole.
    """
    begun = time.monotonic()
    code, said = forks.run(*(word.format(out=out / "whole") for word in words), **env("whole"))
    assert code == 0, said
    length = time.monotonic() - begun
    rng, kills, spoilt = random.Random(seed), 0, 0
    place = 0
    words_here = []
    while kills < n:
        if not words_here:
            place += 1
            words_here = [word.format(out=out / str(place)) for word in words]
        before = content(out / str(place))
        leader = forks.start(*words_here, **env(str(place)))
        time.sleep(rng.uniform(0, length))
        own = family(leader)
        with suppress(ProcessLookupError):
            os.kill(leader, signal.SIGKILL)
        code, said = forks.end()
        if code != -signal.SIGKILL:
            # It was faster this time. It must have been right, and another folder is begun.
            assert code == 0, said
            spoilt += 1
            assert spoilt < 5 * n
            words_here = []
            continue
        kills += 1
        wait_until_gone(own, leader)
        after = content(out / str(place))
        assert before.keys() <= after.keys(), "a complete run was lost"
        assert not any(verify(out / str(place)).values())
    if words_here:
        code, said = forks.run(*words_here, **env(str(place)))
        assert code == 0, said
    return kills, length, place


def same(one, other):
    """Compare what two folders hold."""
    first, second = content(one), content(other)
    assert first.keys() == second.keys()
    for name, (status, frame) in first.items():
        assert status == second[name][0]
        if frame is not None:
            pd.testing.assert_frame_equal(frame, second[name][1])
    return len(first)


def same_but_ids(one, other):
    """Compare two folders of runs that get ids of their own each time; return how many there are."""

    def frames(out):
        made = []
        for status, frame in content(out).values():
            assert status == "done"
            columns = [name for name in frame if name not in ("run_id", "dataset_id")]
            made.append(str(pa.Table.from_pandas(frame[columns]).to_pydict()))
        return made

    assert set(frames(one)) == set(frames(other))
    return len(frames(other))


def told(name, kills, length, n_equal):
    print(f"\n{name}: {kills} kills of {length:.1f} s, 0 lost, 0 left behind, {n_equal} equal")


def test_run(forks, data, tmp_path):
    words = (
        "run", "--dataset", str(data), "--model", "logreg", "--protocol", "random", "--folds", "3",
        "--out", "{out}",
    )  # fmt: skip
    kills, length, n = kill_and_finish(forks, words, tmp_path, n=12, seed=1, env=lambda _: {})
    for place in range(1, n + 1):
        assert same(tmp_path / "whole", tmp_path / str(place)) == 3
    told("run", kills, length, n)


def test_evaluate(forks, data, tmp_path):
    home = tmp_path / "models"
    code, said = forks.run(
        "run", "--dataset", data, "--model", "majority", "--protocol", "random", "--folds", "2",
        "--fold", "final", "--out", home,
    )  # fmt: skip
    assert code == 0, said
    mine = tmp_path / "mine.h5ad"
    adata = build_adata(120, n_donors=4, seed=7)
    adata.obs_names = [f"new{i}" for i in range(adata.n_obs)]
    adata.obs["donor"] = "N" + adata.obs["donor"].astype(str)
    adata.write_h5ad(mine)
    words = (
        "evaluate", "--run", *[f.name for f in list_runs(home)], "--models", str(home),
        "--dataset", str(mine), "--donor-names", "other", "--out", "{out}",
    )  # fmt: skip
    kills, length, n = kill_and_finish(forks, words, tmp_path, n=12, seed=2, env=lambda _: {})
    for place in range(1, n + 1):
        assert same_but_ids(tmp_path / "whole", tmp_path / str(place)) >= 1
    told("evaluate", kills, length, n)


def test_import(forks, tmp_path):
    table = tmp_path / "t.csv"
    head, *rows = template().splitlines()
    table.write_text("\n".join([head, *(f"{i}{row}" for i in range(2_000) for row in rows)]))
    words = ("import-predictions", str(table), "--name", "t", "--out", "{out}")
    kills, length, n = kill_and_finish(forks, words, tmp_path, n=12, seed=3, env=lambda _: {})
    for place in range(1, n + 1):
        assert same_but_ids(tmp_path / "whole", tmp_path / str(place)) >= 1
    told("import", kills, length, n)


def test_sweep(forks, data, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'dataset = "{data}"\n[[run]]\nmodel = "majority"\nprotocol = ["random", "donor"]\n'
        "folds = 5\n"
    )
    words = ("sweep", str(plan), "--jobs", "1", "--out", "{out}")
    kills, length, n = kill_and_finish(forks, words, tmp_path, n=6, seed=4, env=lambda _: {})
    for place in range(1, n + 1):
        assert same(tmp_path / "whole", tmp_path / str(place)) == 10
        assert not (tmp_path / str(place) / "sweep.lock").exists()
    told("sweep", kills, length, n)


def test_sync_and_publish(forks, tmp_path):
    """The store is a cache: whatever was killed, the next one gives the same scores."""
    bundles = tmp_path / "bundles"
    write_results(bundles)

    def env(place):
        home = tmp_path / f"home{place}"
        home.mkdir(exist_ok=True)
        return {"FAULTLINE_HOME": str(home), "FAULTLINE_PRECOMPUTED": str(bundles)}

    def scores(place):
        code, said = forks.run("score", "--json", "--dataset", "Tiny course", **env(place))
        assert code == 0, said
        return json.loads(said)

    for name, words in {
        "sync": ("store", "sync"),
        "publish": ("store", "seal", str(bundles)),
    }.items():
        if name == "publish":
            for head in bundles.glob("*/*/run.json"):
                about = json.loads(head.read_text())
                about.pop("files", None)
                head.write_text(json.dumps(about))
        kills, length, n = kill_and_finish(forks, words, tmp_path, n=6, seed=5, env=env)
        whole = scores("whole")
        assert whole
        assert all(scores(str(place)) == whole for place in range(1, n + 1))
        told(name, kills, length, n)
        for place in range(1, n + 1):
            shutil.rmtree(tmp_path / f"home{place}")
