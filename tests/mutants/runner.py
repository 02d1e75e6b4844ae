"""Apply deliberate changes to a copy of the tree, one at a time, and run the tests that must notice."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.mutants.table import MUTANTS, Mutant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("backend", "tests", "pyproject.toml")
_PRELOADED: Final = ("anndata", "lightning_fabric", "pytest", "torch", "transformers")
_OUTCOMES: Final = {0: "green: it survives", 1: "red"}


def copy_tree(folder: Path) -> None:
    """Copy what the tests need to `folder`."""
    for name in _COPIED:
        if (ROOT / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "browser", "app")
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, folder)


def _run_tests(folder: Path, tests: tuple[str, ...]) -> None:
    """Run tests of a copy in this process, and end it with pytest's exit code."""
    os.chdir(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("backend", "tests")]:
        del sys.modules[name]
    sys.path[0] = str(folder)
    # Two changes within a second would look alike to Python's compiled files.
    sys.dont_write_bytecode = True
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        options = ("-q", "-x", "-m", "", "-p", "no:cacheprovider", "--assert=plain")
        code = pytest.main([*options, *tests])
    os._exit(int(code))


def run_tests(folder: Path, tests: Iterable[str]) -> int:
    """Run tests of a copy in a fresh process that has the large libraries; return the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    process = context.Process(target=_run_tests, args=(folder, tuple(tests)))
    process.start()
    process.join()
    return int(process.exitcode or 0)


def outcome_of(mutant: Mutant, folder: Path) -> int:
    """Return pytest's exit code with one change in a copy, which is left as it was."""
    path = folder / mutant.file
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return run_tests(folder, mutant.tests)
    finally:
        path.write_text(before, encoding="utf-8")


def main(words: Sequence[str] | None = None) -> int:
    """Run the mutants that were asked for; return 1 unless every one is red."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=main.__doc__)
    parser.add_argument("--list", action="store_true", help="name the mutants, and run none")
    parser.add_argument("--only", action="append", metavar="NAME", help="part of a name")
    args = parser.parse_args(words)
    chosen = [
        mutant for mutant in MUTANTS if not args.only or any(x in mutant.name for x in args.only)
    ]
    if not chosen:
        print(f"No mutant is named like {', '.join(args.only)}. --list names all.")
        return 1
    if args.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        if run_tests(folder, sorted({test for mutant in chosen for test in mutant.tests})):
            print("The tests are not green without any change: nothing can be told.")
            return 1
        survivors = 0
        for mutant in chosen:
            started = time.perf_counter()
            code = outcome_of(mutant, folder)
            survivors += code != 1
            text = _OUTCOMES.get(code, f"broken: pytest ends with {code}")
            print(f"{text:<20}{time.perf_counter() - started:5.0f} s  {mutant.name}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants turn a test red.")
    return int(survivors > 0)
