"""Commands in processes that have the large libraries already: `python -m tests.backend.hostile.forks`.

A moment of a command is then a moment of its work, not of its imports, and sixty of them take little.
A line of JSON in, `{"words", "env", "log"}`, is one command in a session of its own; lines out are
`{"pid"}` at its start and `{"pid", "code"}` at its end. It runs one at a time.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Self

from backend.config import environment, project_root
from tests.conftest import build_adata
from tests.helpers import two_components

_LIBRARIES = (
    "anndata", "cellxgene_ontology_guide.ontology_parser", "duckdb", "filelock", "pyarrow.dataset",
    "pyarrow.parquet", "scipy.sparse", "sklearn.decomposition", "sklearn.linear_model", "torch",
    "backend.cli.evaluate", "backend.cli.import_predictions", "backend.cli.run", "backend.cli.score",
    "backend.cli.store", "backend.cli.sweep", "backend.data.cell_map", "backend.evaluation.views",
    "backend.models.geneformer.checkpoint", "backend.prediction.evaluate",
    "backend.prediction.imported_table", "backend.store.cache",
    "backend.store.imports", "backend.studies.executors.local", "backend.studies.prepare",
    "backend.training.runs",
)  # fmt: skip


def _command(words: list[str], env: dict[str, str], log: str) -> None:
    """Be the command; never returns."""
    from backend.cli import main

    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(env)  # noqa: TID251 - what a new process would have been given
    with Path(log).open("w") as file:
        for number in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDONLY) if number == 0 else file.fileno(), number)
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - said, as Python itself does
        traceback.print_exc()
        code = 1
    # As Python itself ends, but for freeing what every command has: that alone takes seconds.
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def serve() -> None:
    """Run commands until there are none."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    from backend.data import cell_map
    from backend.models.baselines.logreg import LogisticRegressionL1

    # What is compiled once is there in every command.
    cells = build_adata()
    LogisticRegressionL1(grid=[1.0]).fit(
        cells, label_key="cell_type_lineage", valid=cells[:0].copy(), seed=0
    )
    cell_map._umap = two_components
    # Else each command would look at all of this once more when it ends: seconds.
    gc.collect()
    gc.freeze()
    print("{}", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _command(**order)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


class Forks:
    """The side of the test; a context."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.log = folder / "command.log"
        self.env = env
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.backend.hostile.forks"], cwd=project_root(),
            env=environment(**env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._heard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def start(self, *words: object, **env: str) -> int:
        """Start a command; return its process, which leads its session."""
        assert self._process.stdin is not None
        order = {"words": [str(word) for word in words], "env": env, "log": str(self.log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._heard()["pid"])

    def end(self) -> tuple[int, str]:
        """Wait for the end of the command; return its code and what it said."""
        code = int(self._heard()["code"])
        return code, self.log.read_text(encoding="utf-8", errors="replace")

    def run(self, *words: object, **env: str) -> tuple[int, str]:
        """Run a command to its end."""
        self.start(*words, **env)
        return self.end()


if __name__ == "__main__":
    serve()
