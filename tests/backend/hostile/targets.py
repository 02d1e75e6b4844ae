"""One target of fuzzing for each boundary, run in a process of its own: `fuzz` says what it used.

Every target returns what the boundary said, "read" or the message of a refusal. Everything else,
such as an error of another kind, ends the process with a traceback.
"""

from __future__ import annotations

import json
import pickle
import random
import resource
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backend.config import environment, golden_dir, project_root
from backend.errors import FaultlineError
from tests.conftest import build_adata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORDS = [
    b"", b"\0", b"nan", b"NaN", b"-1", b"1e999", b"99999999999999999999", b'"', b'""', b",", b"\n",
    b"\r\n", b"\xff\xfe", "\ufeff".encode(), b"=cmd", b"a" * 70_000, b"1;2", b"null", b"[" * 500,
    b"{}", b"true", "\u202e".encode(), b"\t",
]  # fmt: skip
OF_PLANS = [
    b"seed = [" + b"1," * 3000 + b"]\n", b"[[run]]\n", b"model = 'logreg'\n", b"[" * 3000,
    b"a = " + b"{b = " * 800, b"seed = " + b"9" * 6000, b"folds = 1e400\n", b"fraction = inf\n",
    b"seed = 0x" + b"f" * 100, b"1979-05-27", b"'''", b"\x1f",
]  # fmt: skip
PATIENCE = 15.0
"""Seconds without a word after which a file counts as one that is never read to its end."""


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


def answered(work: Callable[[], object]) -> str:
    """Return "read", or the message of a refusal."""
    said = "read"
    try:
        work()
    except FaultlineError as error:
        said = str(error)
    assert said
    assert len(said) < 4_500
    return said


def cells(folder: Path, n: int) -> Iterator[str]:
    """Look at many files in one process; users' check must say how one ended that process."""
    from backend.data import isolated
    from backend.processes import Limits

    isolated._LIMITS = Limits(silence=PATIENCE, spare_space=4 << 30)
    rng, whole = random.Random(1), []
    for options in ({}, {"compression": "gzip"}):
        path = folder / "whole"
        build_adata(60).write_h5ad(path, **options)
        whole.append(path.read_bytes())
    for number in range(n):
        made = rng.choice(whole)
        harmed = bytearray(made)
        if number % 4:
            # What lies behind stays where the file says that it is, so that it is read.
            for _ in range(rng.choice([1, 4, 16, 64])):
                harmed[rng.randrange(len(harmed))] = rng.choice([0, 1, 255, rng.randrange(256)])
        else:
            harmed = bytearray(changed(made, rng))
        (folder / f"{number:03d}.h5ad").write_bytes(harmed)
    n_said = 0
    while n_said < n:
        done = subprocess.run(
            [sys.executable, "-m", "tests.backend.hostile.checks", str(folder), str(n_said)],
            cwd=project_root(), env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        yield from done.stdout.splitlines()
        n_said += len(done.stdout.splitlines())
        if n_said == n:
            break
        assert done.returncode < 0, done.stderr[-2000:]
        report = isolated.check_isolated(folder / f"{n_said:03d}.h5ad")
        assert "damaged" in {problem.code for problem in report.problems}
        n_said += 1
        yield f"ended its process ({-done.returncode}) and said so"


def tables(folder: Path, n: int) -> Iterator[str]:
    """Import tables; nothing is left of one that is refused."""
    from backend.store.imports import import_predictions, template

    rng, csv = random.Random(2), folder / "t.csv"
    csv.write_text(template())
    pd.read_csv(csv).to_parquet(folder / "t.parquet")
    whole = [
        template().encode(),
        template().replace(",", ";").encode("utf-8-sig"),
        (folder / "t.parquet").read_bytes(),
    ]
    for number in range(n):
        csv.write_bytes(changed(rng.choice(whole), rng))
        out = folder / f"out{number}"
        out.mkdir()
        said = answered(lambda out=out: import_predictions(csv, out, name="fuzz"))
        assert said == "read" or not list(out.glob("runs/*/run.json")), "half of an import was left"
        yield said


def plans(folder: Path, n: int) -> Iterator[str]:
    """Read plans."""
    from backend.studies.plan import read_plan

    rng, path, data = random.Random(3), folder / "plan.toml", folder / "x.h5ad"
    data.write_bytes(b"x")
    whole = [each.read_bytes() for each in sorted((project_root() / "plans").glob("*.toml"))]
    for _ in range(n):
        path.write_bytes(changed(rng.choice(whole), rng, WORDS + OF_PLANS))
        yield answered(lambda: read_plan(path, dataset=data))


def checkpoints(folder: Path, n: int) -> Iterator[str]:
    """Read tensors, pickled weights, dictionaries and settings of every model."""
    from backend.models.checkpoints import read_json, read_tensors
    from backend.models.unpickle import read_pickled_dict

    rng, names = random.Random(4), ("safetensors", "pt", "pth", "ckpt", "json")
    whole = [
        each
        for name in names
        for each in sorted(golden_dir().rglob(f"*.{name}"))
        if each.stat().st_size < 1_000_000
    ]
    assert len({each.suffix for each in whole}) == len(names)
    for number in range(n):
        source = rng.choice(whole)
        path, read = folder / f"x{source.suffix}", read_tensors
        content = source.read_bytes()
        if number % 30 == 0:
            path, read = folder / "token_dictionary.pkl", read_pickled_dict
            content = pickle.dumps({"a": np.float32(1), "b": 2})
        elif path.suffix == ".json":
            read = read_json
        path.write_bytes(changed(content, rng))
        yield answered(lambda path=path, read=read: read(path))


def selections(folder: Path, n: int) -> Iterator[str]:
    """Read stored selections of cells."""
    from backend.evaluation.cells.selection import SavedSelection, scope_json
    from backend.types import Scope

    rng = random.Random(5)
    good = SavedSelection(
        kind="polygon", name="x", polygon=[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
        scope=scope_json(Scope(dataset_id="0" * 16)),
    ).to_json()  # fmt: skip
    text = json.dumps(good).encode()
    for number in range(n):
        if number % 2:
            # Of the right form, so that what stands in it is looked at.
            odd = rng.choice([None, 1, -1, 1e999, "\ud800", "x" * 10**5, [], [[]], {}, [1], True])
            yield answered(
                lambda value=good | {rng.choice(list(good)): odd}: SavedSelection.from_json(value)
            )
            continue
        try:
            value = json.loads(changed(text, rng))
        except (ValueError, RecursionError):
            yield "no JSON"
            continue
        yield answered(lambda value=value: SavedSelection.from_json(value))


def bundles(folder: Path, n: int) -> Iterator[str]:
    """Bring a results folder in; a harmed head costs its own bundle, and never the others."""
    from backend.store.bundle import write_dataset, write_run
    from backend.store.cache import Store
    from tests.backend.store import builders

    rng, series = random.Random(6), builders.series()
    write_dataset(folder, builders.info(), builders.cells())
    for fold in range(3):
        run = builders.record(series, fold)
        write_run(folder, run, builders.predictions(builders.cells(), run))
    heads = [*sorted(folder.glob("runs/*/run.json")), *folder.glob("datasets/*/dataset.json")]
    assert len(heads) == 4
    for _ in range(n):
        head = rng.choice(heads)
        whole = head.read_bytes()
        head.write_bytes(changed(whole, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Store(":memory:", [("public", folder)], threads=1) as store:
                report = store.sync()
        head.write_bytes(whole)
        n_whole = 2 if head.name == "run.json" else 3
        assert report.n_runs >= n_whole or head.name == "dataset.json"
        assert len(report.problems) <= 4
        assert all(len(problem) < 2_500 for problem in report.problems)
        yield report.problems[0] if report.problems else "read"


def fuzz(channel: Any, name: str, folder: str, n: int) -> dict[str, Any]:
    """Run one target in this process."""
    place = Path(folder) / name
    place.mkdir()
    said = Counter(word.replace(folder, "")[:40] for word in globals()[name](place, n))
    shutil.rmtree(place)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "said": dict(said.most_common()),
        "seconds": sum(each.ru_utime + each.ru_stime for each in used),
        "mib": max(each.ru_maxrss for each in used) / 1024,
    }
