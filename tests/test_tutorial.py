"""The tutorial's commands: each one is understood, and those that make the dataset do so."""

from __future__ import annotations

import gzip
import re
import shlex
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import pytest

from backend.cli import main
from backend.config import project_root
from backend.data import load
from tests.backend.data.conftest import GENES

if TYPE_CHECKING:
    from pathlib import Path

TUTORIAL = project_root() / "docs" / "tutorial-vangalen2019.md"
TYPES = ("HSC-like", "Prog-like", "Mono-like", "Mono", "T", "B")
SAMPLES = ("BM1", "BM2", "BM3", *(f"AML{i}-D0" for i in range(1, 6)), "AML1-D29", "AML2-D40")
CELLS = 12


def commands() -> list[list[str]]:
    """Return the words of each command of the tutorial that starts `python -m backend`."""
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [re.fullmatch(r"(?:\w+=\S+ )*python -m backend (.+)", line) for line in lines]
    return [shlex.split(match[1]) for match in found if match]


def write_sample(folder: Path, sample: str, rng: np.random.Generator) -> None:
    """Write the two files of a sample as GEO offers them."""
    cells = [f"{sample}_CELL{i}" for i in range(CELLS)]
    counts = rng.poisson(1.2, (len(GENES), CELLS))
    rows = [["Gene", *cells], *([g, *map(str, n)] for g, n in zip(GENES, counts, strict=True))]
    labels = [
        TYPES[i % len(TYPES)].removesuffix("-like" * sample.startswith("BM")) for i in range(CELLS)
    ]
    columns = ["Cell", "MutTranscripts", "WtTranscripts", "PredictionRefined", "CellType"]
    notes = [columns, *([c, "", "", "normal", t] for c, t in zip(cells, labels, strict=True))]
    for number, kind, table in (("1", "dem", rows), ("2", "anno", notes)):
        text = "".join("\t".join(row) + "\n" for row in table)
        (folder / f"GSM{number}_{sample}.{kind}.txt.gz").write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand where the reader stands: a folder with the unpacked files and the plans."""
    (tmp_path / "gse116256").mkdir()
    rng = np.random.default_rng(0)
    for sample in SAMPLES:
        write_sample(tmp_path / "gse116256", sample, rng)
    (tmp_path / "samples.csv").write_text("sample,timepoint\nAML2-D40,Relapse\n", encoding="utf-8")
    (tmp_path / "plans").symlink_to(project_root() / "plans")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_is_understood(words, monkeypatch):
    verb = import_module(f"backend.cli.{words[0].replace('-', '_')}")
    understood = []
    monkeypatch.setattr(verb, "run", understood.append)
    assert main(words) == 0
    assert understood[0].verb == words[0]
    plan = getattr(understood[0], "plan", None)
    assert plan is None or (project_root() / plan).is_file()


def test_every_step_has_a_command():
    verbs = [words[0] for words in commands()]
    assert {"data", "sweep", "run", "serve", "score"} <= set(verbs)
    actions = [words[1] for words in commands() if words[0] == "data"]
    assert actions == ["import-geo", "check", "import-geo"]


def test_downloaded_files_become_a_dataset(downloaded, capsys):
    plain, check, with_table = (words for words in commands() if words[0] == "data")
    assert main(plain) == 0
    assert f"{CELLS * len(SAMPLES)} cells of {len(SAMPLES)} samples" in capsys.readouterr().out
    assert main(check) == 0
    obs = load(downloaded / "vangalen2019.h5ad").obs
    assert dict(obs["timepoint"].value_counts() // CELLS) == {
        "Diagnosis": 5, "Healthy": 3, "Post-treatment": 2, "Relapse": 0,
    }  # fmt: skip
    assert main(with_table) == 0
    obs = load(downloaded / "vangalen2019.h5ad").obs
    assert set(obs.loc[obs["timepoint"] == "Relapse", "sample"]) == {"AML2-D40"}


@pytest.mark.slow
def test_rehearsal_prints_the_runs_and_writes_nothing(downloaded, capsys):
    assert main(next(words for words in commands() if words[0] == "data")) == 0
    before = sorted(downloaded.rglob("*"))
    rehearsals = [words for words in commands() if words[0] == "sweep"]
    assert len({words[1] for words in rehearsals}) == 2
    for words in rehearsals:
        assert main([*words, *(["--dry-run"] * ("--dry-run" not in words))]) == 0
        assert "0 done" in capsys.readouterr().out
    assert sorted(downloaded.rglob("*")) == before
