"""Apply each deliberate change to a copy of the tree, and see that a test turns red.

python -m tests.mutants               # all; exit 1 if one survives
python -m tests.mutants --list
python -m tests.mutants --only NAME   # those with NAME in their name; may be repeated
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.config import environment
from tests.mutants.table import MUTANTS, Mutant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("backend", "tests", "pyproject.toml")
_OUTCOMES: Final = {0: "green: it survives", 1: "red"}


def copy_tree(folder: Path) -> None:
    """Copy what the tests need to `folder`."""
    for name in _COPIED:
        if (ROOT / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "browser", "app")
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, folder)


def run_tests(folder: Path, tests: Iterable[str]) -> int:
    """Run tests of a copy; return pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider"]
    # No compiled files: two changes within a second would look alike to Python.
    env = environment(PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run([*command, *tests], cwd=folder, env=env, capture_output=True, check=False)
    return done.returncode


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
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
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


if __name__ == "__main__":
    sys.exit(main())
