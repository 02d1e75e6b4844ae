"""The guides for newcomers follow the code: file names exist, the example runs."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib

import numpy as np
import pytest

from backend.config import project_root
from backend.errors import InputError
from backend.models import registry
from backend.models.registry import list_models, model_class

ROOT = project_root()
GUIDES = ("CONTRIBUTING.md", "docs/architecture.md")
EXAMPLE = ROOT / "examples" / "nearest_centroid"
PLACE = re.compile(r"`((?:app|backend|docs|examples|pages|plans|precomputed|tests)/[\w./-]*)`")


@pytest.mark.parametrize("guide", GUIDES)
def test_every_place_that_a_guide_names_exists(guide):
    places = PLACE.findall((ROOT / guide).read_text(encoding="utf-8"))
    assert len(places) > 10
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_every_package_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "backend").glob("*/__init__.py")} - {"cli"}
    assert [name for name in sorted(packages) if f"| `backend/{name}` |" not in text] == []


def test_make_targets_of_the_guide_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(
        r"^make ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )
    assert named
    assert [name for name in named if f"\n{name}:" not in makefile] == []


@pytest.mark.parametrize("name", ["faultline_nearest_centroid.py", "pyproject.toml"])
def test_the_example_in_the_guide_is_the_one_that_is_tested(name):
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert (EXAMPLE / name).read_text(encoding="utf-8") in guide


@pytest.fixture
def plugin(monkeypatch):
    """Return the key of the example, as if its package were installed."""
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    declared = points["project"]["entry-points"]["faultline.models"]
    ((key, target),) = declared.items()
    module = target.partition(":")[0]
    spec = importlib.util.spec_from_file_location(module, EXAMPLE / f"{module}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setitem(sys.modules, module, loaded)
    monkeypatch.setattr(registry, "_plugins", lambda: declared)
    return key


def test_the_example_is_a_model(plugin, make_adata):
    assert plugin in list_models()
    model = model_class(plugin)
    train, cells = make_adata(n_cells=120), make_adata(seed=1)
    fitted = model().fit(train, label_key="cell_type_lineage", valid=train[:0], seed=0)
    predictions = fitted.predict(cells)
    assert list(predictions.cell_ids) == list(cells.obs_names)
    np.testing.assert_allclose(predictions.proba.sum(axis=1), 1, atol=1e-5)
    called = np.array(predictions.classes)[predictions.proba.argmax(axis=1)]
    assert (called == cells.obs["cell_type_lineage"].to_numpy()).mean() > 0.8
    with pytest.raises(InputError, match="not saved"):
        fitted.save(None)
