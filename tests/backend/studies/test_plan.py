"""Plans: what they mean, and what is refused before any work."""

import dataclasses
import re
from pathlib import Path

import pytest

from backend.config import project_root
from backend.errors import FaultlineError, InputError, ModelUnavailable
from backend.studies.plan import PRETRAIN_KEYS, RUN_KEYS, TOP_KEYS, plan_of_one, read_plan

ROOT = project_root()
FOUNDATION = ("scgpt", "geneformer", "scbert", "scfoundation")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FAULTLINE_HOME", str(tmp_path / "home"))


@pytest.fixture
def read(tmp_path):
    """Read a plan given as text; its dataset exists."""

    def read(text, **options):
        (tmp_path / "cells.h5ad").touch()
        (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
        return read_plan(tmp_path / "plan.toml", **options)

    return read


def fields_of(plan):
    rows = [dataclasses.asdict(row.series) for row in plan.rows]
    assert {row.pop("dataset_id") for row in rows} == {""}
    return rows


def test_a_plan_of_one_line_has_the_defaults_of_run(read):
    plan = read('dataset = "cells.h5ad"\nmodel = "majority"')
    assert plan.datasets[0].name == "cells.h5ad"
    assert plan.threads == 1
    assert plan.rows[0].folds == ("all",)
    assert fields_of(plan) == [
        {
            "model": "majority",
            "preset": None,
            "init": "scratch",
            "checkpoint": None,
            "protocol": "donor",
            "folds": 5,
            "split_seed": 0,
            "budget": "equal",
            "label_level": "lineage",
            "fraction": 1.0,
            "seed": 0,
            "settings": {},
        }
    ]


def test_lists_are_combined_and_tables_take_what_stands_above_them(read):
    plan = read(
        """
        dataset = "cells.h5ad"
        protocol = ["random", "donor"]
        seed = [0, 1]

        [settings.logreg]
        min_cells = 5

        [[run]]
        model = ["majority", "logreg"]
        fraction = [0.1, 1]
        fold = [0, "final"]

        [[run]]
        model = "hgb"
        protocol = "study"
        seed = 7
        """
    )
    found = fields_of(plan)
    assert len(found) == 2 * 2 * 2 * 2 + 1
    assert {f["fraction"] for f in found[:16]} == {0.1, 1.0}
    assert all(isinstance(f["fraction"], float) for f in found)
    assert {f["settings"].get("min_cells") for f in found if f["model"] == "logreg"} == {5}
    assert all(f["settings"] == {} for f in found if f["model"] != "logreg")
    assert (found[-1]["protocol"], found[-1]["seed"]) == ("study", 7)
    assert plan.rows[0].folds == (0, "final")


def test_settings_of_a_table_win_over_those_of_the_model(read):
    plan = read(
        """
        dataset = "cells.h5ad"
        settings = { logreg = { min_cells = 5 } }
        [[run]]
        model = "logreg"
        settings = { min_cells = 3 }
        """
    )
    assert fields_of(plan)[0]["settings"] == {"min_cells": 3}


def test_presets_get_their_full_name_and_inits_their_checkpoint(read):
    plan = read(
        """
        dataset = "cells.h5ad"
        [[pretrain]]
        name = "ours"
        model = ["scgpt", "geneformer"]
        preset = "small"
        [[run]]
        model = ["scgpt", "geneformer"]
        preset = "small"
        init = ["scratch", "pretrained", "frozen"]
        checkpoint = "ours"
        """
    )
    found = [(f["preset"], f["init"], f["checkpoint"]) for f in fields_of(plan)]
    assert found[:3] == [
        ("scgpt.small", "scratch", None),
        ("scgpt.small", "pretrained", "ours"),
        ("scgpt.small", "frozen", "ours"),
    ]
    assert [made.series.preset for made in plan.pretrainings] == ["scgpt.small", "geneformer.small"]


def test_dataset_is_beside_the_plan_unless_one_is_given(read, tmp_path):
    other = tmp_path / "other.h5ad"
    other.touch()
    assert read('dataset = "cells.h5ad"\nmodel = "hgb"').datasets == (tmp_path / "cells.h5ad",)
    assert read('dataset = "gone.h5ad"\nmodel = "hgb"', dataset=other).datasets == (other,)


RUN = 'dataset = "cells.h5ad"\n[[run]]\nmodel = "majority"\n'
PRETRAIN = '[[pretrain]]\nmodel = "scgpt"\npreset = "small"\n'
SCGPT = 'dataset = "cells.h5ad"\n[[run]]\nmodel = "scgpt"\npreset = "small"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('datset = "cells.h5ad"', 'plan.toml: there is no key "datset".*Did you mean "dataset"'),
        (RUN + "fractoin = 0.5", r'\[\[run\]\] 1: there is no key "fractoin".*"fraction"'),
        (RUN + '[[run]]\nmodle = "hgb"', r'\[\[run\]\] 2: there is no key "modle".*"model"'),
        (RUN + "zzz = 1", "It has: model, preset"),
        (RUN + '[[pretrain]]\nnmae = "x"', r'\[\[pretrain\]\] 1: there is no key "nmae".*"name"'),
        (RUN + "seed = true", r"`seed` is True \(true or false\).*a whole number from 0"),
        (RUN + "seed = 1.5", r"`seed` is 1.5 \(a number\)"),
        (RUN + "seed = -1", "`seed` is -1"),
        (RUN + 'seed = "1"', r'`seed` is "1" \(text\)'),
        (RUN + "seed = []", "`seed` is an empty list"),
        (RUN + "folds = 1", "a whole number from 2"),
        (RUN + "fraction = 0", "a number above 0, up to 1"),
        (RUN + "fraction = [0.5, 1.5]", "`fraction` is 1.5"),
        (RUN + 'protocol = "doner"', '`protocol` is "doner".*Did you mean "donor"'),
        (RUN + 'init = "scrach"', '`init` is "scrach".*Did you mean "scratch"'),
        (RUN + 'label_level = "broad"', "Give one of: fine, lineage"),
        (RUN + 'budget = "cap"', "cap500"),
        (RUN + "budget = 500", r"`budget` is 500 \(a whole number\)"),
        (RUN + "fold = 7", r"\[\[run\]\] 1: There is no fold 7: .* 0 to 4"),
        (RUN + "budget = 'cap1000000000'", "up to 999999999"),
        (RUN + 'protocol = "external"', "Give one of: random, donor, study"),
        (RUN + 'fold = "last"', '"all", "final", or numbers from 0'),
        (RUN + "settings = 3", r"`settings` is 3 \(a whole number\)"),
        (RUN + "preset = 2020-01-01", "a date or time"),
        (RUN + "settings = { x = 2020-01-01 }", r"`settings.x` is .*a date or time"),
        (RUN + "settings = { x = [1, nan] }", "`settings.x` is nan"),
        ('dataset = "cells.h5ad"\nrun = 3', "`run` is a whole number"),
        ('dataset = "cells.h5ad"\nthreads = [1]\nmodel = "hgb"', r"`threads` is \[1\] \(a list\)"),
        ('dataset = "cells.h5ad"\nthreads = 0\nmodel = "hgb"', "a whole number from 1"),
        ('dataset = "cells.h5ad"\n[[run]]\nseed = 1', "there is no `model`"),
        ('dataset = "cells.h5ad"', "there is no `model`"),
        ('model = "hgb"', "plan.toml names no dataset.*--dataset"),
        ('dataset = "gone.h5ad"\nmodel = "hgb"', "there is no dataset `.*gone.h5ad`"),
        ("dataset = cells", r"plan.toml is not TOML: .*line 1, column"),
        (SCGPT + "settings = { epoch = 4 }", r"\[\[run\]\] 1: scGPT .* has no setting epoch"),
        (RUN + "settings = { x = 4 }", r"\[\[run\]\] 1: .* has no setting x"),
        (RUN + 'preset = "small"', "is a baseline: .*a \\[\\[run\\]\\] of their own"),
        (SCGPT + 'checkpoint = "ours"', '`checkpoint` is "ours", but `init` is "scratch"'),
        (RUN + PRETRAIN, r"\[\[pretrain\]\] 1: there is no `name`"),
        (RUN + PRETRAIN + 'name = "A b"', "small letters, digits"),
        (
            RUN + PRETRAIN.replace("scgpt", "logreg") + 'name = "a"',
            "cannot be pre-trained",
        ),
        (
            RUN + PRETRAIN + 'name = "a"\nsettings = {epoch = 1}',
            r"\[\[pretrain\]\] 1: Pre-training has no setting epoch",
        ),
    ],
)
def test_wrong_plans_are_refused_with_their_place(read, text, message):
    with pytest.raises(InputError) as caught:
        read(text)
    assert re.search(message, str(caught.value), flags=re.DOTALL), str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RUN.replace("majority", "scgtp"), '1: There is no model "scgtp".*Did you mean "scgpt"'),
        ('dataset = "cells.h5ad"\nmodel = "hgb"\n[settings.hbg]\na = 1', "settings.hbg.*no model"),
        (RUN.replace("majority", "hgb") + 'fold = "final"', "hgb|cannot be saved"),
        (
            SCGPT + 'init = "pretrained"',
            "no `checkpoint` is named.*checkpoints add scgpt DIR.*pretrain",
        ),
        (
            SCGPT + 'init = "frozen"\ncheckpoint = "none_such"',
            'no checkpoint "none_such".*checkpoints add scgpt',
        ),
    ],
)
def test_unknown_models_and_checkpoints_are_refused(read, text, message):
    with pytest.raises(ModelUnavailable) as caught:
        read(text)
    assert re.search(message, str(caught.value), flags=re.DOTALL), str(caught.value)


@pytest.mark.parametrize("preset", ['"large"', None])
def test_unknown_preset_is_refused_with_the_known_ones(read, preset):
    line = f"preset = {preset}" if preset else ""
    with pytest.raises(FaultlineError, match=r"\[\[run\]\] 1: scGPT needs a preset.*scgpt.small"):
        read(SCGPT.replace('preset = "small"', line))


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no plan"):
        read_plan(tmp_path / "none.toml")
    with pytest.raises(InputError, match="There is no plan"):
        read_plan(tmp_path)
    (tmp_path / "plan.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_plan(tmp_path / "plan.toml")


@pytest.mark.parametrize("name", ["vangalen", "vangalen_full", "simulated_tour"])
def test_shipped_plans_can_be_read(name, tmp_path):
    (tmp_path / "cells.h5ad").touch()
    assert read_plan(ROOT / "plans" / f"{name}.toml", dataset=tmp_path / "cells.h5ad").rows


def test_the_plan_of_the_shipped_study(tmp_path):
    (tmp_path / "cells.h5ad").touch()
    plan = read_plan(ROOT / "plans/vangalen.toml", dataset=tmp_path / "cells.h5ad")
    fields = fields_of(plan)
    assert {(f["budget"], f["label_level"], f["folds"], f["fraction"]) for f in fields} == {
        ("cap300", "fine", 5, 1.0)
    }
    found = {
        (f["model"], f["protocol"], f["init"], f["checkpoint"]) for f in fields if not f["seed"]
    }
    name, baselines = "vangalen2019_train", ("majority", "logreg", "celltypist", "hgb")
    wanted = {
        (model, protocol, "scratch", None)
        for model in (*FOUNDATION, *baselines)
        for protocol in ("donor", "random")
    }
    assert found == wanted | {(model, "donor", "pretrained", name) for model in FOUNDATION}
    assert {(f["model"], f["seed"]) for f in fields if f["seed"]} == {
        (model, seed) for model in ("scgpt", "logreg") for seed in (1, 2)
    }
    trained = {"epochs": 30, "patience": 5}
    assert all(f["settings"] == (trained if f["model"] in FOUNDATION else {}) for f in fields)
    finals = [row.series.model for row in plan.rows if "final" in row.folds]
    assert sorted(finals) == sorted([*FOUNDATION, "majority", "logreg", "celltypist"])
    assert [
        (m.series.model, m.name, m.series.protocol, m.series.budget) for m in plan.pretrainings
    ] == [(model, name, "donor", "cap300") for model in FOUNDATION]


def test_one_run_is_a_plan_of_one_row(read):
    fields = {"model": "geneformer", "preset": "small", "protocol": "donor", "folds": 3}
    plan = plan_of_one(fields, dataset=Path("cells.h5ad"), folds=["final", "all"])
    written = 'dataset = "cells.h5ad"\nmodel = "geneformer"\npreset = "small"\nfolds = 3'
    assert plan.rows[0].series == read(written).rows[0].series
    assert plan.rows[0].series.check_folds(plan.rows[0].folds) == [0, 1, 2, "final"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "cap0"}, "^`budget` is"),
        ({"protocol": "external"}, "^`protocol` is"),
        ({"folds": 1}, "^`folds` is 1"),
        ({"model": 3}, "^`model` is 3"),
        ({"preset": "small"}, "^Majority class is a baseline"),
        ({"init": "frozen"}, '^majority has no preset, so it cannot start from "frozen"'),
        ({"settings": {"depth": 3}}, "has no setting depth"),
        ({"model": "hgb"}, "cannot be saved"),
    ],
)
def test_a_row_given_by_hand_is_held_to_the_same_rules(change, message):
    fields = {"model": "majority", "protocol": "donor"} | change
    with pytest.raises(FaultlineError, match=message):
        plan_of_one(fields, dataset=Path("cells.h5ad"), folds=["all", "final"])


def test_every_key_is_documented():
    text = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")
    keys = {*TOP_KEYS, *RUN_KEYS, *PRETRAIN_KEYS} - {"run", "pretrain"}
    assert [key for key in sorted(keys) if f"| `{key}` |" not in text] == []
    assert "[[run]]" in text
    assert "[[pretrain]]" in text


def test_a_name_of_many_parts_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_bytes(b"a." * 50_000 + b"b = 1")
    with pytest.raises(InputError, match="more than 1,000 dots"):
        read_plan(path)
