"""Six kinds of files that people really have, brought to the page one after the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.backend.prediction.conftest import trained_file, trained_home  # noqa: F401 - fixtures
from tests.backend.prediction.test_evaluate import new_cells
from tests.browser.conftest import served, settled, worker
from tests.browser.test_evaluate import N_CELLS, bring, evaluate, scored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.conftest import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def desk(trained_home, tmp_path_factory) -> Iterator[Server]:  # noqa: F811
    """Serve the stored models, with a worker beside the server."""
    home = tmp_path_factory.mktemp("desk")
    with (
        served(home, FAULTLINE_PRECOMPUTED=str(trained_home)) as running,
        worker(home, trained_home),
    ):
        yield running


def said(page: Page) -> str:
    settled(page)
    return page.get_by_test_id("stMain").inner_text()


def again(page: Page) -> None:
    page.get_by_role("button", name="Evaluate another file").click()
    page.get_by_text("Upload a file").wait_for()
    settled(page)


def saved(folder: Path, adata: ad.AnnData, name: str) -> Path:
    adata.write_h5ad(folder / name)
    return folder / name


def test_kinds_of_files(visit, desk, tmp_path):
    page = visit("evaluate", at=desk, height=1600)

    # Antibodies beside genes, and cells without counts.
    adata = new_cells(N_CELLS)
    counts = adata.X.toarray()
    counts[:6] = 0
    proteins = ad.AnnData(
        sparse.csr_matrix(np.full((N_CELLS, 1), 900.0, dtype=np.float32)),
        obs=adata.obs,
        var=pd.DataFrame(index=["CD34-1"]),
    )
    adata.X = sparse.csr_matrix(counts)
    both = ad.concat([adata, proteins], axis=1, merge="first")
    both.var["feature_types"] = ["Gene Expression"] * adata.n_vars + ["Antibody Capture"]
    bring(page, saved(tmp_path, both, "cite.h5ad"))
    page.get_by_text("What is changed or lost").click()
    page.get_by_text("1 rows of var are no genes (Antibody Capture: CD34-1)").wait_for()
    evaluate(page)
    assert scored(page) == (N_CELLS, N_CELLS - 6)
    assert "6 cells without counts" in said(page)
    again(page)

    # The labels stand in a column that no name tells.
    adata = new_cells(N_CELLS)
    adata.obs["fine"] = list(adata.obs["cell_type"])
    adata.obs["cell_type"] = "native cell"
    bring(page, saved(tmp_path, adata, "author.h5ad"))
    page.get_by_text("fine: holds known cell types").wait_for()
    assert "None of the labels has a type that the models can output: native cell" in said(page)
    assert page.get_by_role("button", name="Evaluate", exact=True).is_disabled()
    page.get_by_role("combobox", name=re.compile("Cell type")).click()
    page.get_by_role("option", name=re.compile("^fine")).click()
    evaluate(page)
    assert scored(page) == (N_CELLS, N_CELLS)
    again(page)

    # Donors bear names of training donors, and are other people.
    adata = new_cells(N_CELLS)
    adata.obs["donor"] = adata.obs["donor"].astype(str).str.removeprefix("NEW")
    own = adata.obs["cell_type"].astype(object)
    own.iloc[:5] = "fibroblast"
    adata.obs["cell_type"] = own
    bring(page, saved(tmp_path, adata, "names.h5ad"))
    page.get_by_text("bear names of training donors").wait_for()
    page.get_by_text("other people: scored").click()
    evaluate(page)
    assert scored(page) == (N_CELLS, N_CELLS - 5)
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("Labels of the file")).click()
    labels = download.value.path().read_text()
    assert labels.count("fibroblast,,not mapped") == 5
    assert "Research use only" in labels
    again(page)

    # Counts after ambient RNA was taken off.
    adata = new_cells(N_CELLS)
    adata.X.data = adata.X.data + np.float32(0.3)
    bring(page, saved(tmp_path, adata, "soup.h5ad"))
    page.get_by_text("values that are not whole").wait_for()
    page.get_by_role("button", name="Round to whole numbers").click()
    evaluate(page)
    assert scored(page) == (N_CELLS, N_CELLS)
    again(page)

    # A file that lies on this machine.
    path = saved(tmp_path, new_cells(N_CELLS), "large.h5ad")
    page.get_by_role("textbox", name=re.compile("Or its path on this machine")).fill(
        "/nowhere/x.h5ad"
    )
    page.get_by_role("textbox", name=re.compile("Or its path on this machine")).press("Enter")
    page.get_by_text("There is no file of counts").wait_for()
    page.get_by_role("textbox", name=re.compile("Or its path on this machine")).fill(str(path))
    page.get_by_role("textbox", name=re.compile("Or its path on this machine")).press("Enter")
    evaluate(page)
    assert scored(page) == (N_CELLS, N_CELLS)
    assert path.is_file()
    again(page)

    # Labels and predictions in two vocabularies.
    label = np.array(["B", "Mono", "T"])[np.arange(60) % 3]
    words = {"B": "B cells", "Mono": "Classical monocytes", "T": "NA"}
    table = pd.DataFrame(
        {
            "cell_id": [f"c{i}" for i in range(60)],
            "label": label,
            "predicted": [words[name] for name in label],
        }
    )
    page.get_by_text("Predictions of a model", exact=False).click()
    settled(page)
    content = table.to_csv(index=False).encode("utf-16")
    bring(page, {"name": "theirs.csv", "mimeType": "text/csv", "buffer": content})
    page.get_by_text("are written in two ways: 2 predicted names").wait_for()
    assert "20 of 60 predictions name no type" in said(page)
    page.get_by_role("button", name="Import", exact=True).click()
    page.get_by_text("imported and not run here").wait_for(timeout=120_000)
    assert "Accuracy 0.67" in said(page)
    assert page.get_by_test_id("stException").count() == 0
