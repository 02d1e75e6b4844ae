"""The study from its file to every page: read, balanced, split, fitted, stored, shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from app import nav
from backend.config import project_root
from backend.data.check import check
from backend.data.labels import family
from backend.data.stand_in.facts import COMPOSITION
from backend.data.stand_in.file import write_stand_in
from backend.store.bundle import read_dataset
from backend.studies.executors.common import InProcess
from backend.studies.plan import read_plan
from backend.studies.prepare import prepare
from backend.types import TIMEPOINTS

if TYPE_CHECKING:
    from pathlib import Path

PLAN = project_root() / "plans" / "bias_to_breakdown.toml"
SMALL = """
[[run]]
model = "scgpt"
preset = "small"
settings = { epochs = 1, max_steps = 12 }

[[run]]
model = "celltypist"
protocol = ["donor", "random"]
"""


def study_plan(folder: Path, rows: str = SMALL, **changes: str) -> Path:
    """Write the study's plan with other models, and other values of some keys."""
    text = PLAN.read_text(encoding="utf-8").partition("[[run]]")[0]
    for name, value in changes.items():
        text, n = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value}\n", text, flags=re.M)
        assert n == 1, name
    path = folder / "study.toml"
    path.write_text(text + rows, encoding="utf-8")
    return path


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """Return a stand-in of the atlas in its own columns and words, at 1:100."""
    path = tmp_path / "bone_marrow.h5ad"
    write_stand_in(path, 3_394, seed=1, n_genes=400)
    return path


@pytest.mark.usefixtures("plain_umap")
def test_from_the_atlas_to_every_page(empty_home, atlas, tmp_path, open_page):
    assert check(atlas, quick=True).facts["profile"] == "ennis2023"
    plan = read_plan(study_plan(tmp_path, folds="2"), dataset=atlas)
    study = prepare(plan, empty_home, is_written=True)
    outcomes = study.execute(InProcess(), lambda _: None)
    assert [each.status for each in outcomes] == ["done"] * 6, outcomes

    (folder,) = (empty_home / "datasets").iterdir()
    facts, cells = read_dataset(folder)
    assert facts["parent"]
    assert facts["simulated"]
    shares = cells["timepoint"].value_counts(normalize=True)
    assert shares.index.isin(TIMEPOINTS).all()
    assert shares["Healthy"] == pytest.approx(0.25 / 0.99, abs=0.002)
    assert shares["Relapse"] == pytest.approx(0.22 / 0.99, abs=0.002)
    assert set(cells["cell_type_fine"]) == set(COMPOSITION)
    assert "Other" not in {family(name) for name in COMPOSITION}

    for page in nav.PAGES:
        app = open_page(page.key, label_level="fine")
        assert not app.exception, page.key
        assert not app.error, page.key
        # No label of the atlas names a malignant state, and Blasts says so.
        has_answer = app.info if page.key == "blasts" else app.dataframe
        assert has_answer or not page.needs_results, page.key
        shown = "\n".join(
            [str(part.value) for part in (*app.markdown, *app.caption, *app.info, *app.warning)]
            + [table.value.to_csv() for table in app.dataframe]
        )
        assert not re.search(r"\bOther\b", shown), page.key
        if page.key in ("overview", "timepoints"):
            for timepoint in TIMEPOINTS:
                assert timepoint in shown.replace("\\", "").replace("\u2060", "")
        if page.needs_results:
            assert "Simulated data, not a finding" in shown, page.key
