import pytest

from tests.helpers import draw_cells, open_store, write_results


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """A simulated course over four timepoints; see `tests/helpers.py`."""
    return write_results(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="session")
def store(results):
    opened = open_store(results.root)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Results like those on real data: 3 Healthy donors, 2 at Relapse, one study, no simulation."""
    cells = draw_cells(
        samples={"Healthy": 3, "Diagnosis": 8, "Relapse": 2}, cells_per_sample=150, n_studies=1
    )
    return write_results(
        tmp_path_factory.mktemp("small"),
        cells=cells,
        name="Real",
        simulated=False,
        source="GEO GSE116256",
        protocols=("donor",),
        models={"logreg": ("Logistic regression (L1)", (0,))},
        fine=(),
    )


@pytest.fixture(scope="session")
def small_store(small):
    opened = open_store(small.root)
    yield opened
    opened.close()
