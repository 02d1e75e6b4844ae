"""The study's plan: what it means at the size of the atlas, and what it refuses."""

from __future__ import annotations

import json
import re
import tomllib
from collections import namedtuple
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from backend.cli import main
from backend.config import project_root
from backend.data.dataset import DatasetInfo
from backend.data.profiles.ennis2023 import STUDIES
from backend.data.stand_in.cohort import plan_stand_in
from backend.data.stand_in.facts import KINDS
from backend.data.subset import choose_cells
from backend.errors import InputError, ModelUnavailable
from backend.models.catalogue import Registered
from backend.models.geneformer.model import Geneformer
from backend.models.registry import model_class
from backend.models.scbert import model as scbert
from backend.models.scfoundation import model as scfoundation
from backend.models.scgpt.model import ScGPT
from backend.splits import TEST, TRAIN, VALID, make_split
from backend.studies.costs import GUIDES
from backend.studies.plan import read_plan

if TYPE_CHECKING:
    from pathlib import Path

ROOT = project_root()
PLANS = [
    ROOT / "plans" / name
    for name in ("bias_to_breakdown.toml", "bias_to_breakdown_five_folds.toml")
]
PAGE = ROOT / "docs" / "bias-to-breakdown.md"
CHECKPOINTS = {
    "scgpt": ["whole_human"],
    "geneformer": ["v1_10m", "v2_104m"],
    "scbert": ["panglao"],
    "scfoundation": ["cell_01b"],
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return a file that only has to be there, in a place of its own."""
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))
    path = tmp_path / "bone_marrow.h5ad"
    path.write_bytes(b"")
    return path


def register(home: Path, **presets: str) -> None:
    """Write the records of published checkpoints, as `checkpoints add` does."""
    for model, names in CHECKPOINTS.items():
        for name in names:
            preset = presets.get(name, f"{model}.{'v1_10m' if name == 'v1_10m' else name}")
            entry = Registered(
                model=model, name=name, preset=preset, folder=str(home), sha256="0" * 64,
                files={}, is_published=True, added_at="2026-01-01T00:00:00+00:00",
            )  # fmt: skip
            path = home / "checkpoints" / model / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(entry)), encoding="utf-8")


@pytest.fixture(scope="module")
def cells():
    """Return the cells of an atlas of the published composition; who gave which is made up."""
    words = {"Hea": "Healthy", "Dia": "Diagnosis", "Rel": "Relapse"}
    rows = [
        (kind.final, words.get(sample.tp, "Post-treatment"), STUDIES[sample.origin.dataset],
         sample.origin.donor, sample.origin.name, int(n))
        for sample in plan_stand_in(339_381, n_genes=300).samples
        for kind, n in zip(KINDS, sample.cells, strict=True)
        if n
    ]  # fmt: skip
    columns = ["cell_type_fine", "timepoint", "study", "donor", "sample", "n"]
    groups = pd.DataFrame(rows, columns=columns)
    groups["donor"] = groups["study"] + " " + groups["donor"]
    groups["cell_type_lineage"] = groups["cell_type_fine"]
    for name in groups.columns.drop("n"):
        groups[name] = pd.Categorical(groups[name])
    obs = groups.loc[groups.index.repeat(groups["n"])].drop(columns="n")
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))], name="cell_id", dtype=object)
    return obs


@pytest.fixture(scope="module")
def drawn(cells):
    """Return the largest subset with the study's shares."""
    return cells.iloc[choose_cells(cells, read_shares())]


def read_shares():
    return tomllib.loads(PLANS[0].read_text(encoding="utf-8"))["subset"]["shares"]


def dry_run(plan, file, cells, monkeypatch, capsys):
    """Print the dry run of a plan on cells in the place of a file's subset."""

    def describe(source, shares, *, by, n_cells, seed, roles, any_genes):
        assert (by, n_cells, seed, any_genes) == ("timepoint", None, 0, False)
        assert roles.cell_type == "celltype_final"
        info = DatasetInfo(
            dataset_id="0" * 16, name="atlas", simulated=True, source=None, citation=None,
            licence_note=None, hashes={}, parent=None, n_cells=len(cells),
            n_donors=cells["donor"].nunique(), n_genes=18_000, timepoints=(), not_labelled=(),
        )  # fmt: skip
        return cells, info, ()

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("backend.studies.subsets.describe_subset", describe)
    monkeypatch.setattr("backend.studies.executors.local.gpu_names", lambda: ("cuda:0",))
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1 << 50, 0, 1 << 50))
    out = file.parent / "results"
    words = ["sweep", str(plan), "--dataset", str(file), "--out", str(out), "--dry-run"]
    assert main([*words, "--jobs", "1"]) == 0
    assert not out.exists()
    return capsys.readouterr().out


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.stem)
def test_the_dry_run_in_the_documentation_is_that_of_the_plan(
    plan, file, drawn, monkeypatch, capsys
):
    register(file.parent)
    monkeypatch.setenv("FAULTLINE_HOME", str(file.parent))
    printed = dry_run(plan, file, drawn, monkeypatch, capsys)
    shown = PAGE.read_text(encoding="utf-8")
    tail = printed[re.search(r"^\d+ runs: ", printed, re.M).start() :]
    assert "Relapse" in tail.partition("warning: ")[2]
    if plan == PLANS[0]:
        assert f"```\n{tail.rstrip()}\n```" in shown
    else:
        for line in (r"^\d+ runs", r"^Estimated: .*$"):
            assert f"`{re.search(line, tail, re.M)[0]}`" in shown


def test_the_parts_of_ten_folds_are_those_of_the_study_and_no_donor_is_in_two(drawn):
    split = make_split(drawn, "donor", dataset_id="0" * 16, folds=10, budget="full")
    for fold in range(10):
        parts = [split.cells(fold, role) for role in (TRAIN, VALID, TEST)]
        donors = [set(drawn["donor"].to_numpy()[part]) for part in parts]
        assert donors[0].isdisjoint(donors[1] | donors[2])
        assert donors[1].isdisjoint(donors[2])
        assert sum(int(part.sum()) for part in parts) == len(drawn)
    mean = [
        np.mean([split.cells(fold, role).mean() for fold in range(10)]) for role in (TRAIN, VALID)
    ]
    assert mean == pytest.approx([0.8, 0.1], abs=0.01)


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.stem)
def test_its_models_are_published_ones_as_their_authors_train_them(plan, file):
    register(file.parent / "home")
    rows = read_plan(plan, dataset=file).rows
    networks = [row.series for row in rows if row.series.preset]
    assert [series.preset for series in networks] == [
        f"{model}.{name}" for model, names in CHECKPOINTS.items() for name in names
    ]
    for series in networks:
        assert (series.init, series.settings, series.budget) == ("pretrained", {}, "full")
        assert series.checkpoint == series.preset.partition(".")[2]
        published = {one.preset for one in model_class(series.model).checkpoint_files}
        assert series.preset in published
    assert {row.series.model for row in rows} - set(CHECKPOINTS) == {
        "majority", "logreg", "celltypist", "hgb",
    }  # fmt: skip
    assert {row.series.label_level for row in rows} == {"fine"}


def test_costs_are_of_the_recipes_epochs():
    epochs = {"scbert.panglao": scbert.AUTHORS_RECIPE.epochs}
    epochs["scfoundation.cell_01b"] = scfoundation.FINETUNE_RECIPE.epochs
    for model in (ScGPT, Geneformer):
        for config in model.presets.values():
            epochs[config.name] = model.scratch(config, ["CD34"], seed=0).recipe().epochs
    for model, names in CHECKPOINTS.items():
        for name in names:
            assert GUIDES[f"{model}.{name}"].epochs == epochs[f"{model}.{name}"]


def test_the_two_plans_differ_in_their_folds_alone():
    ten, five = (tomllib.loads(path.read_text(encoding="utf-8")) for path in PLANS)
    assert (ten.pop("folds"), five.pop("folds")) == (10, 5)
    assert ten.pop("out") != five.pop("out")
    assert ten == five


def test_all_checkpoints_that_are_missing_are_named_at_once(file):
    with pytest.raises(ModelUnavailable) as refused:
        read_plan(PLANS[0], dataset=file)
    said = str(refused.value)
    assert "5 checkpoints are not registered here" in said
    for model, names in CHECKPOINTS.items():
        assert f"checkpoints add {model} DIR" in refused.value.hint
        for name in names:
            assert f'{model} "{name}"' in said


def test_a_dry_run_tells_the_cost_before_the_checkpoints_are_had(file, drawn, monkeypatch, capsys):
    printed = dry_run(PLANS[1], file, drawn.iloc[::40], monkeypatch, capsys)
    assert "45 runs: 0 done, 45 to do" in printed
    assert re.search(r"^scbert\.panglao +5 .* GPU +stated: ", printed, re.M)
    assert printed.count("missing: checkpoint") == 5
    assert "missing: checkpoint geneformer v2_104m; `checkpoints add geneformer DIR`" in printed


def test_a_checkpoint_of_another_version_is_refused(file):
    register(file.parent / "home", v2_104m="geneformer.v1_10m")
    with pytest.raises(InputError) as refused:
        read_plan(PLANS[0], dataset=file)
    assert refused.value.message == (
        'bias_to_breakdown.toml, [[run]] 3: the checkpoint "v2_104m" is geneformer.v1_10m, not '
        "geneformer.v2_104m."
    )
