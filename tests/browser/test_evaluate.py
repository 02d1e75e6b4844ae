"""A file of one's own in a browser: checked, mapped, predicted, scored, explored and deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from backend.data.genes import gene_table
from backend.data.geo import import_geo
from backend.jobs.directory import all_jobs
from backend.store.imports import template
from tests.backend.data.conftest import GENES
from tests.backend.data.test_geo import ANNOTATION, write
from tests.backend.prediction.conftest import trained_file, trained_home  # noqa: F401 - fixtures
from tests.backend.prediction.test_evaluate import new_cells
from tests.browser.conftest import free_port, served, settled, wait_until, worker
from tests.browser.test_sign_in import (  # noqa: F401 - a fixture
    ANALYST,
    COLLEAGUE,
    provider,
    sign_in_at,
    write_secrets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData
    from playwright.sync_api import Page

    from tests.browser.conftest import Server

pytestmark = pytest.mark.browser

# Below 60 cells the map is two components: no compilation of UMAP.
N_CELLS = 57


@pytest.fixture(scope="module")
def clinic(trained_home, tmp_path_factory) -> Iterator[Server]:  # noqa: F811
    """Serve the stored models, with a worker beside the server."""
    home = tmp_path_factory.mktemp("clinic")
    with (
        served(home, FAULTLINE_PRECOMPUTED=str(trained_home)) as running,
        worker(home, trained_home),
    ):
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def geo_file(folder: Path, adata: AnnData) -> Path:
    """Write cells as GSE116256 has them, two samples, and import them."""
    geo = folder / "geo"
    geo.mkdir()
    for i, sample in enumerate(("AML997-D0", "BM9")):
        part = adata[i::2]
        names = [f"{sample}_CELL{k}" for k in range(part.n_obs)]
        counts = pd.DataFrame(
            part.X.toarray().T.astype(int), index=list(part.var_names), columns=names
        )
        write(geo / f"GSM1_{sample}.dem.txt.gz", counts.to_csv(sep="\t", index_label="Gene"))
        rows = [
            f"{name}\t\t\tnormal\t{label}\n"
            for name, label in zip(names, part.obs["label"], strict=True)
        ]
        write(geo / f"GSM2_{sample}.anno.txt.gz", ANNOTATION + "".join(rows))
    import_geo(geo, folder / "imported.h5ad")
    return folder / "imported.h5ad"


def ensembl_file(folder: Path, adata: AnnData) -> Path:
    """Write cells whose genes are Ensembl ids with a version."""
    ids = gene_table().ensembl_of
    adata.var_names = [f"{ids[name]}.7" if name in ids else name for name in adata.var_names]
    assert adata.var_names.str.startswith("ENSG").sum() > 25
    adata.write_h5ad(folder / "ensembl.h5ad")
    return folder / "ensembl.h5ad"


def uploads_of(server: Server) -> list[Path]:
    return list(server.log.parent.rglob("uploads/*"))


def bring(page: Page, file: Path | dict) -> None:
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files(file)


def evaluate(page: Page, name: str = "") -> None:
    """Go on with everything that the page proposes, under a name where one is given."""
    page.get_by_text("The file can be used").wait_for()
    settled(page)
    if name:
        page.get_by_role("textbox", name="Name of the dataset").fill(name)
        page.get_by_role("textbox", name="Name of the dataset").press("Enter")
        settled(page)
    page.get_by_test_id("stMain").get_by_role("button", name="Evaluate", exact=True).click()
    page.wait_for_url(re.compile(r"job=[0-9a-f]{16}"))


def scored(page: Page) -> tuple[int, int]:
    """Wait for the results; return the cells predicted and scored."""
    said = page.get_by_text(re.compile(r"cells predicted, [\d,]+ of them scored"))
    said.wait_for(timeout=180_000)
    found = re.search(r"([\d,]+) cells predicted, ([\d,]+) of them", said.inner_text())
    assert found
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


@pytest.mark.parametrize("layout", ["geo", pytest.param("ensembl", marks=pytest.mark.slow)])
def test_a_file_goes_the_whole_way(visit, clinic, files, layout):
    adata = new_cells(N_CELLS)
    labels = {"HSC-like": "HSC", "classical monocyte": "Mono", "T cells": "T"}
    if layout == "ensembl":
        # Of three types of 19 cells two are one: it has enough for a score.
        labels["T cells"] = "Mono"
    adata.obs["label"] = adata.obs["cell_type"].map(labels)
    if layout == "ensembl":
        adata.obs["cell_type"] = adata.obs["label"].astype(str)
    file = (geo_file if layout == "geo" else ensembl_file)(files, adata)
    page = visit("evaluate", at=clinic, height=1600)
    assert "Do not upload identifiable patient data" in page.get_by_test_id("stMain").inner_text()
    bring(page, file)
    evaluate(page, f"My {layout} cells")
    assert scored(page) == (N_CELLS, N_CELLS)
    # The page itself answers.
    page.get_by_text(f"Scored: {N_CELLS} of {N_CELLS} labelled cells (100%)").first.wait_for()
    said = page.get_by_test_id("stMain").inner_text()
    answer = r"Accuracy [01]\.\d\d, macro-F1 [01]\.\d\d \(\d donors?, 38 cells; 1 of 2 types\)"
    assert re.search(answer if layout == "ensembl" else "No score: no type has 20", said)
    # The tab can be closed: the address leads back to the results.
    address = page.url.removeprefix(f"{clinic.url}/")
    other = visit(address, at=clinic, height=1600, another=True)
    assert scored(other) == (N_CELLS, N_CELLS)
    other.get_by_role("button", name="Open the results").click()
    other.get_by_role("heading", name="Overview", level=1).wait_for()
    other.locator("[data-testid=stVegaLiteChart] :is(svg, canvas)").first.wait_for()
    other.get_by_text("Where the numbers come from").click()
    other.get_by_text("Runs made").first.wait_for()
    settled(other)
    said = other.get_by_test_id("stMain").inner_text()
    assert f"My {layout} cells (uploaded): {N_CELLS} scored cells" in said
    assert ("GEO GSE116256" if layout == "geo" else "file ensembl.h5ad") in said
    assert other.get_by_test_id("stException").count() == 0
    # Deleted at once: file and results are gone, and the old address says so.
    page.get_by_test_id("stPopover").get_by_role("button").click()
    page.get_by_role("button", name="Delete file and results now").click()
    page.get_by_text("Upload a file").wait_for()
    wait_until(page, lambda: not uploads_of(clinic))
    assert "Job not found" in visit(address, at=clinic).get_by_test_id("stMain").inner_text()


def test_wrong_contents_end_in_words_and_leave_nothing(visit, clinic, files):
    def written(adata: AnnData) -> bytes:
        adata.write_h5ad(files / "wrong.h5ad")
        return (files / "wrong.h5ad").read_bytes()

    mouse = new_cells(N_CELLS)
    mouse.var_names = [name.capitalize() for name in mouse.var_names]
    wrong = {
        "not an hdf5 file; it looks like text": b"cell_id,label\na,T\n" * 400,
        "it ends before its own header says": written(new_cells(N_CELLS))[:20_000],
        "mouse": written(mouse),
    }
    page = visit("evaluate", at=clinic)
    # The next file can be brought right away.
    for reason, content in wrong.items():
        bring(page, {"name": "<b>wrong.h5ad", "mimeType": "", "buffer": content})
        told = page.get_by_test_id("stMain").filter(has_text="cannot be used")
        told.filter(has_text=re.compile(reason, re.IGNORECASE)).wait_for()
        settled(page)
        said = page.get_by_test_id("stMain").inner_text()
        assert "<b>wrong.h5ad cannot be used. The upload was deleted." in said
        assert reason in said.lower()
        # The name below which the server keeps it is nobody's business.
        assert "cells.h5ad" not in said
        assert str(files.parent) not in said
        assert not uploads_of(clinic)
        assert page.get_by_text("Upload a file").is_visible()


@pytest.mark.slow
def test_a_model_that_knows_too_few_genes_is_left_out(visit, clinic, files):
    adata = new_cells(N_CELLS)
    strange = [name for name in GENES if name not in set(adata.var_names)]
    adata.var_names = [*adata.var_names[:2], *strange, *adata.var_names[2 + len(strange) :]]
    adata[:, : 2 + len(strange)].copy().write_h5ad(files / "few.h5ad")
    page = visit("evaluate", at=clinic, height=1200)
    bring(page, files / "few.h5ad")
    page.get_by_text("cannot read this file: of its 30 genes the file has 2").wait_for()
    # The model without genes is asked, and the other is not.
    evaluate(page)
    assert scored(page) == (N_CELLS, N_CELLS)


def test_predictions_of_any_model_are_imported(visit, clinic):
    page = visit("evaluate", at=clinic, height=1200)
    page.get_by_text("Predictions of a model", exact=False).click()
    settled(page)
    bring(page, {"name": "theirs.csv", "mimeType": "text/csv", "buffer": template().encode()})
    page.get_by_role("button", name="Import").click()
    page.get_by_text("imported and not run here").wait_for(timeout=120_000)
    page.get_by_role("button", name="Open the results").click()
    page.get_by_role("heading", name="Overview", level=1).wait_for()
    settled(page)
    assert "my model" in page.get_by_test_id("stMain").inner_text()


@pytest.mark.slow
def test_a_killed_worker_costs_time_and_no_result(visit, trained_home, tmp_path):  # noqa: F811
    new_cells(N_CELLS).write_h5ad(tmp_path / "mine.h5ad")
    home = tmp_path / "home"
    home.mkdir()
    with served(home, FAULTLINE_PRECOMPUTED=str(trained_home)) as server:
        page = visit("evaluate", at=server, height=1600)
        bring(page, tmp_path / "mine.h5ad")
        evaluate(page)
        page.get_by_text("No worker is running, so the job waits").wait_for()
        with worker(home, trained_home) as first:
            wait_until(page, lambda: all_jobs(home)[0].state == "running")
            first.kill()
        with worker(home, trained_home):
            # The same tab, without a reload.
            assert scored(page) == (N_CELLS, N_CELLS)
    (job,) = all_jobs(home)
    assert (job.state, job.attempt) == ("done", 2)


@pytest.mark.slow
def test_two_people_upload_at_once_and_see_only_their_own(
    chromium,
    provider,  # noqa: F811
    trained_home,  # noqa: F811
    tmp_path,
):
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    write_secrets(home, port, provider)
    sizes = {ANALYST: 48, COLLEAGUE: 54}
    with served(home, port=port, FAULTLINE_PRECOMPUTED=str(trained_home)) as server:
        pages = {name: sign_in_at(chromium, server, name) for name in sizes}
        for name, page in pages.items():
            adata = new_cells(sizes[name], seed=sizes[name])
            adata.write_h5ad(tmp_path / f"of-{name}.h5ad")
            page.goto(f"{server.url}/evaluate")
            settled(page)
            bring(page, tmp_path / f"of-{name}.h5ad")
        for page in pages.values():
            evaluate(page)
        with worker(home, trained_home):
            for name, page in pages.items():
                assert scored(page) == (sizes[name], sizes[name])
        addresses = {name: page.url for name, page in pages.items()}
        for name, other in ((ANALYST, COLLEAGUE), (COLLEAGUE, ANALYST)):
            page = pages[name]
            page.goto(f"{server.url}/overview?dataset=of-{name}.h5ad")
            settled(page)
            shown = page.get_by_test_id("stApp").inner_text()
            assert f"of-{name}" in shown
            assert f"of-{other}" not in shown
            page.goto(addresses[other])
            settled(page)
            assert "Job not found" in page.get_by_test_id("stMain").inner_text()
            page.goto(f"{server.url}/overview?dataset=of-{other}.h5ad")
            settled(page)
            # What the link asked for is said back, and nothing of it is shown.
            assert "which is not here" in page.get_by_test_id("stMain").inner_text()
            assert f"of-{other}" not in page.get_by_test_id("stSidebar").inner_text()
            assert f"{sizes[other]} scored cells" not in page.get_by_test_id("stMain").inner_text()
        for page in pages.values():
            page.context.close()
