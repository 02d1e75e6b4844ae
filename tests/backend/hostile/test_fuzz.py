"""Files with changed bytes and texts at every boundary end in an answer or a refusal.

Seeded and bounded; no traceback, no crash of a child that is not said.
"""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from backend.config import environment, project_root
from backend.errors import FaultlineError, shortened
from tests.conftest import build_adata

pytestmark = pytest.mark.slow

WORDS = [
    b"", b"\0", b"nan", b"NaN", b"-1", b"1e999", b"99999999999999999999", b'"', b'""', b",", b"\n",
    b"\r\n", b"\xff\xfe", "\ufeff".encode(), b"=cmd", b"a" * 70_000, b"1;2", b"null", b"[" * 500,
    b"{}", b"true", "\u202e".encode(), b"\t",
]  # fmt: skip


def changed(data: bytes, rng: random.Random, words: list[bytes] = WORDS) -> bytes:
    """Return bytes with a few of them changed, moved, doubled, cut or replaced by a word."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not made:
            break
        at = rng.randrange(len(made))
        match rng.randrange(6):
            case 0:
                made[at] = rng.randrange(256)
            case 1:
                made[at] ^= 1 << rng.randrange(8)
            case 2:
                del made[at : at + rng.choice([1, 8, 100, 5_000])]
            case 3:
                made[at:at] = rng.choice(words)
            case 4:
                made[at : at + rng.choice([1, 4, 30])] = rng.choice(words)
            case 5:
                made[at:at] = made[at : at + rng.choice([4, 64, 1_000])]
    return bytes(made)


def answered(work) -> str:
    """Return "read", or the message of a refusal; everything else is an error of the test."""
    said = "read"
    try:
        work()
    except FaultlineError as error:
        said = str(error)
    assert said
    assert len(said) < 4_500
    return said


def test_300_files_of_cells(tmp_path):
    """Many in one process; a file that ends it must be refused by the check that users have."""
    from backend.data.isolated import check_isolated

    rng, whole = random.Random(1), []
    for options in ({}, {"compression": "gzip"}):
        path = tmp_path / "whole"
        build_adata(60).write_h5ad(path, **options)
        whole.append(path.read_bytes())
    for number in range(300):
        (tmp_path / f"{number:03d}.h5ad").write_bytes(changed(rng.choice(whole), rng))
    codes: list[str] = []
    n_crashes = 0
    while len(codes) < 300:
        done = subprocess.run(
            [sys.executable, "-m", "tests.backend.hostile.checks", str(tmp_path), str(len(codes))],
            cwd=project_root(), env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        *said, last = done.stdout.split("\n")[:-1] or [""]
        if done.returncode == 0:
            codes += said
            assert float(last.removeprefix("peak ")) < 1024
            break
        codes += [*said, last]
        assert done.returncode < 0, done.stderr[-2000:]
        report = check_isolated(tmp_path / f"{len(codes):03d}.h5ad")
        assert "damaged" in {problem.code for problem in report.problems}
        codes.append("crashed and said so")
        n_crashes += 1
    counted = {code: codes.count(code) for code in sorted(set(codes))}
    print(counted, last)
    assert len(codes) == 300
    assert n_crashes < 10
    assert len(counted) > 3


def test_200_tables(tmp_path):
    from backend.store.imports import import_predictions, template

    rng = random.Random(2)
    csv = tmp_path / "t.csv"
    csv.write_text(template())
    table = pd.read_csv(csv)
    table.to_parquet(tmp_path / "t.parquet")
    whole = [
        template().encode(),
        template().replace(",", ";").encode("utf-8-sig"),
        (tmp_path / "t.parquet").read_bytes(),
    ]
    answers: dict[str, int] = {}
    for number in range(200):
        csv.write_bytes(changed(rng.choice(whole), rng))
        out = tmp_path / f"out{number}"
        out.mkdir()
        said = answered(lambda out=out: import_predictions(csv, out, name="fuzz"))
        answers[said[:40]] = answers.get(said[:40], 0) + 1
        if said != "read":
            assert not list(out.glob("runs/*/run.json")), "half of an import was left"
    print(sorted(answers.items(), key=lambda item: -item[1])[:12])
    assert answers["read"] > 10
    assert len(answers) > 10


def test_100_plans(tmp_path):
    from backend.studies.plan import read_plan

    rng, path = random.Random(3), tmp_path / "plan.toml"
    data = tmp_path / "x.h5ad"
    data.write_bytes(b"x")
    whole = [each.read_bytes() for each in sorted((project_root() / "plans").glob("*.toml"))]
    words = [
        *WORDS, b"seed = [" + b"1," * 3000 + b"]\n", b"[[run]]\n", b"model = 'logreg'\n", b"[" * 3000,
        b"a = " + b"{b = " * 800, b"seed = " + b"9" * 6000, b"folds = 1e400\n", b"fraction = inf\n",
        b"seed = 0x" + b"f" * 100, b"1979-05-27", b"'''", b"\x1f",
    ]  # fmt: skip
    answers: dict[str, int] = {}
    for _ in range(100):
        path.write_bytes(changed(rng.choice(whole), rng, words))
        said = answered(lambda: read_plan(path, dataset=data))
        answers[said[:30]] = answers.get(said[:30], 0) + 1
    print(answers)
    assert len(answers) > 5


def test_300_checkpoints(tmp_path):
    """Tensors, pickled weights, dictionaries and settings of every model with changed bytes."""
    from backend.config import golden_dir
    from backend.models.checkpoints import read_json, read_tensors
    from backend.models.unpickle import read_pickled_dict

    rng = random.Random(4)
    names = ("safetensors", "pt", "pth", "ckpt", "json")
    whole = [
        each
        for name in names
        for each in sorted(golden_dir().rglob(f"*.{name}"))
        if each.stat().st_size < 1_000_000
    ]
    assert len({each.suffix for each in whole}) == len(names)
    answers: dict[str, int] = {}
    for number in range(300):
        source = rng.choice(whole)
        path = tmp_path / f"x{source.suffix}"
        path.write_bytes(changed(source.read_bytes(), rng))
        if number % 30 == 0:
            path = tmp_path / "token_dictionary.pkl"
            path.write_bytes(changed(pickle.dumps({"a": np.float32(1), "b": 2}), rng))
            said = answered(lambda path=path: read_pickled_dict(path))
        elif path.suffix == ".json":
            said = answered(lambda path=path: read_json(path))
        else:
            said = answered(lambda path=path: read_tensors(path))
        answers[said[:40]] = answers.get(said[:40], 0) + 1
    print(sorted(answers.items(), key=lambda item: -item[1])[:12])
    assert answers["read"] > 10
    assert len(answers) > 3


def test_100_selections(tmp_path):
    from backend.evaluation.cells.selection import SavedSelection, scope_json
    from backend.types import Scope

    rng = random.Random(5)
    good = SavedSelection(
        kind="polygon", name="x", polygon=[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
        scope=scope_json(Scope(dataset_id="0" * 16)),
    ).to_json()  # fmt: skip
    n_json = 0
    for _ in range(100):
        data = changed(json.dumps(good).encode(), rng)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            continue
        n_json += answered(lambda value=value: SavedSelection.from_json(value)) == "read"
    assert n_json > 3


def test_a_message_is_never_a_page():
    assert len(shortened("x" * 10**6)) <= 2_000
    assert shortened("short") == "short"
